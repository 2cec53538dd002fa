//! Random streams through every framing, with fixed seeds.
//!
//! Three promises are tried: streams may be cut anywhere, no input panics or makes a framing grow
//! beyond its bounds, and what is sent comes back as it was.

use super::frame::{Frame, FrameBuffers, FrameState, STORED_BYTES_MAX};
use super::script::{check, trace_whole};
use super::telnet::{Verb, wish};
use super::{Delimiter, Dialect, Framing, LengthPrefix};
use fastrand::Rng;

/// Bytes that mean something to a framing, beside two that do not.
const ALPHABET: [u8; 18] =
    [b'a', b'b', b'\r', b'\n', 0, 1, 2, 128, 255, 255, 251, 252, 253, 254, 250, 240, 246, 31];

/// Every framing, in several forms.
fn framings() -> Vec<Framing> {
    let delimiter = |bytes| Framing::Delimiter { delimiter: Delimiter::new(bytes).unwrap(), bytes_max: 5 };
    let fixed = |width, little| LengthPrefix::new(width, little).unwrap();
    let base_128 = |most| LengthPrefix::base_128(most).unwrap();
    let prefixes = [
        (fixed(1, false), 5),
        (fixed(2, true), 300),
        (fixed(8, false).counting_itself(), 5),
        (fixed(4, false).counting_itself().behind(1).unwrap(), 40),
        (base_128(4), 40),
        (base_128(4).behind(1).unwrap(), 40),
        (base_128(10).counting_itself().behind(16).unwrap(), 300),
    ];
    // Every width in either order, with and without itself.
    let each = [1, 2, 4, 8].into_iter().flat_map(|width| [(width, false), (width, true)]);
    let each = each.map(|(width, little)| fixed(width, little));
    let each = each.flat_map(|prefix| [(prefix, 20), (prefix.counting_itself(), 20)]);
    let prefixes =
        each.chain(prefixes).map(|(prefix, bytes_max)| Framing::LengthPrefix { prefix, bytes_max });
    let mut all = vec![
        Framing::Lines { bytes_max: 5 },
        Framing::Telnet { bytes_max: 5 },
        Framing::Telnet { bytes_max: 50 },
        delimiter(b"\r\n"),
        delimiter(b"aab"),
    ];
    all.extend(prefixes);
    all
}

/// Streams that no author thought of: cut anywhere, each gives the trace of the whole.
#[test]
fn random_streams_may_be_cut_anywhere() {
    let mut random = Rng::with_seed(9);
    for framing in framings() {
        for _ in 0..100 {
            let len = random.usize(0..32);
            let stream: Vec<u8> = (0..len).map(|_| *random.choice(&ALPHABET).unwrap()).collect();
            check(framing, &stream, &trace_whole(framing, &stream));
        }
    }
}

/// Valid streams with bytes changed, lost and doubled, which come in random parts while turns ask
/// for options. Nothing panics. State, kept input, messages and replies stay within their bounds.
#[test]
fn mutated_streams_stay_within_bounds() {
    let mut random = Rng::with_seed(31);
    let mut framings = framings();
    framings.push(Framing::Raw { bytes_max: 5 });
    for framing in framings {
        for _ in 0..300 {
            let stream = mutated(framing, &mut random);
            feed(framing, &stream, &mut random);
        }
    }
}

/// A valid stream of a framing, with some of its bytes mutated.
fn mutated(framing: Framing, random: &mut Rng) -> Vec<u8> {
    let mut stream = Vec::new();
    for _ in 0..random.usize(1..20) {
        let len = random.usize(0..20);
        let message: Vec<u8> = (0..len).map(|_| *random.choice(&ALPHABET).unwrap()).collect();
        // Those that can't be expressed are left out, and lines get their end.
        let _ = framing.encode(&message, &mut stream);
        let is_line = matches!(framing, Framing::Lines { .. } | Framing::Telnet { .. });
        stream.extend(is_line.then_some(b'\n'));
        if matches!(framing, Framing::Telnet { .. }) && random.bool() {
            let option = random.u8(28..34);
            stream.extend([255, random.u8(251..=254), option]);
            super::telnet::subnegotiate(option, &message, &mut stream);
        }
    }
    for _ in 0..random.usize(0..6) {
        if stream.is_empty() {
            break;
        }
        let at = random.usize(0..stream.len());
        match random.u8(0..4) {
            0 => stream[at] = random.u8(..),
            1 => stream[at] = *random.choice(&ALPHABET).unwrap(),
            2 => drop(stream.remove(at)),
            _ => stream.insert(at, stream[at]),
        }
    }
    stream
}

/// Feeds a stream in random parts, and checks each bound after each cut.
fn feed(framing: Framing, stream: &[u8], random: &mut Rng) {
    let (mut left, mut state, mut rest) = (Vec::new(), FrameState::default(), stream);
    while !rest.is_empty() {
        let (part, later) = rest.split_at(random.usize(1..=rest.len()));
        rest = later;
        left.extend(part);
        let mut buffers = FrameBuffers::default();
        loop {
            if matches!(framing, Framing::Telnet { .. }) && random.u8(0..4) == 0 {
                let verb = Verb::new(random.u32(251..=254)).unwrap();
                let _ = wish(&mut state, verb, random.u8(28..34));
            }
            let (before, replied) = (state.stored().to_vec(), buffers.replies.len());
            let frame = framing.cut(&left, &mut state, &mut buffers);
            assert!(state.stored().len() <= STORED_BYTES_MAX);
            assert!(buffers.replies.len() - replied <= 7, "one reply at a time");
            let consumed = match frame {
                Frame::Message { payload, consumed } => {
                    assert!(payload.bytes(&buffers).len() <= framing.bytes_max() as usize);
                    assert!((1..=left.len()).contains(&consumed));
                    consumed
                }
                Frame::Reply { consumed } => {
                    let event = buffers.event.take().map_or(0, |event| event.data.len());
                    assert!(event <= 1024 && consumed <= left.len());
                    assert!(consumed > 0 || state.stored() != before, "progress");
                    consumed
                }
                Frame::More => {
                    assert_eq!(state.stored(), before);
                    // The longest prefix, twice the message and telnet's commands.
                    let most = 2 * framing.bytes_max() as usize + 4096 + 1024;
                    assert!(left.len() <= most, "{} bytes are kept", left.len());
                    break;
                }
                Frame::TooLong | Frame::Invalid(_) => return,
                other => panic!("{other:?}: WebSocket has random tests of its own"),
            };
            left.drain(..consumed);
            // A state goes through its record now and then.
            if random.bool() {
                state = FrameState::new(state.searched(), state.stored()).expect("a state that fits");
            }
        }
    }
}

/// Messages that are encoded, and cut in random parts, are those that were sent.
#[test]
fn messages_come_back_as_they_were_sent() {
    let mut random = Rng::with_seed(77);
    let mut cases: Vec<_> = framings().into_iter().map(|framing| (framing, Dialect::Plain)).collect();
    cases.push((Framing::Telnet { bytes_max: 50 }, Dialect::Binary));
    for (framing, dialect) in cases {
        let is_line = matches!(framing, Framing::Lines { .. } | Framing::Telnet { .. });
        let mut returned = 0;
        for _ in 0..300 {
            let (mut stream, mut sent) = (Vec::new(), Vec::new());
            for _ in 0..random.usize(1..8) {
                let len = random.usize(0..=framing.bytes_max() as usize);
                let mut message: Vec<u8> = (0..len).map(|_| *random.choice(&ALPHABET).unwrap()).collect();
                if is_line {
                    // An end of a line within would make two of it.
                    message.retain(|b| !matches!(b, b'\r' | b'\n'));
                }
                let ending: &[u8] = if is_line { b"\n" } else { b"" };
                let whole = [&message[..], ending].concat();
                if framing.encode_in(dialect, &whole, &mut stream).is_ok() {
                    sent.push(message);
                }
            }
            returned += sent.len();
            assert_eq!(decoded(framing, &stream, &mut random), sent, "{framing:?}");
        }
        assert!(returned > 300, "{framing:?}: {returned} messages were compared");
    }
}

/// Messages of a stream that comes in random parts.
fn decoded(framing: Framing, stream: &[u8], random: &mut Rng) -> Vec<Vec<u8>> {
    let (mut left, mut state, mut rest, mut messages) =
        (Vec::new(), FrameState::default(), stream, Vec::new());
    while !rest.is_empty() {
        let (part, later) = rest.split_at(random.usize(1..=rest.len()));
        rest = later;
        left.extend(part);
        let mut buffers = FrameBuffers::default();
        loop {
            let consumed = match framing.cut(&left, &mut state, &mut buffers) {
                Frame::Message { payload, consumed } => {
                    messages.push(payload.bytes(&buffers).to_vec());
                    consumed
                }
                Frame::More => break,
                other => panic!("{other:?} of {}", stream.escape_ascii()),
            };
            left.drain(..consumed);
        }
    }
    assert_eq!(left, b"");
    messages
}
