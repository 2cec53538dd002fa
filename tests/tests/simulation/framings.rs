//! Framings of the services: what peers write, and what they read.
//!
//! Sessions of one service have different framings. A peer writes its lines as messages of its own
//! one, and reads back the text that messages make, one behind the other. So the laws about lines
//! hold for every framing, and a broadcast reaches sessions of all of them.

use crate::model::Subject;
use greenroom_core::framing::Framing;
use greenroom_core::framing::custom::{CustomCut, CustomMessage};
use greenroom_core::framing::delimiter::Delimiter;
use greenroom_core::framing::frame::{Frame, FrameBuffers, FrameState};
use greenroom_core::framing::length_prefix::LengthPrefix;

/// Longest message of a peer.
const BYTES_MAX: u32 = 8192;
/// First byte of each telnet command.
const IAC: u8 = 255;
/// Bytes of a raw stream are below this one, so that no line begins with them.
pub(crate) const RAW_BELOW: u8 = 9;

/// Framings of a seed that its builds offer. Outbound sessions have the first: lines for every
/// other seed. The shipped service offers lines alone: it is had in others all the same.
pub(crate) fn of_seed(seed: u64, subject: Subject) -> Vec<Framing> {
    let bytes_max = BYTES_MAX;
    if subject != Subject::Script {
        return vec![Framing::Lines { bytes_max }];
    }
    let prefix = match seed % 3 {
        0 => LengthPrefix::new(2, true),
        1 => LengthPrefix::base_128(4).and_then(|p| p.counting_itself().behind(1)),
        _ => LengthPrefix::new(8, false).map(LengthPrefix::counting_itself),
    };
    let delimiter = Delimiter::new([&b"\r.\r"[..], b"||"][(seed / 3 % 2) as usize]);
    let mut all = vec![
        Framing::Lines { bytes_max },
        Framing::Telnet { bytes_max },
        Framing::Custom { version: 1, bytes_max },
        Framing::Delimiter { delimiter: delimiter.expect("a delimiter"), bytes_max },
        Framing::LengthPrefix { prefix: prefix.expect("a prefix"), bytes_max },
    ];
    let first = if seed.is_multiple_of(2) { 0 } else { (seed / 2 % 5) as usize };
    all.swap(0, first);
    all.extend([Framing::WebSocket { bytes_max }, Framing::Raw { bytes_max }, Framing::Peer { bytes_max }]);
    all
}

/// Framings that a service has without offering them, and whose every turn is that of a line.
pub(crate) fn of_any_service() -> [Framing; 2] {
    let bytes_max = BYTES_MAX;
    [Framing::Lines { bytes_max }, Framing::WebSocket { bytes_max }]
}

/// Bytes that a peer writes before its first message.
pub(crate) fn greeting(framing: Framing) -> &'static [u8] {
    match framing {
        Framing::WebSocket { .. } => {
            b"GET /sim HTTP/1.1\r\nHost: sim\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        }
        _ => b"",
    }
}

/// Frame of a WebSocket client: its first byte, and a payload that is masked.
pub(crate) fn client_frame(first: u8, payload: &[u8], rng: &mut fastrand::Rng) -> Vec<u8> {
    let mask = rng.u32(..).to_be_bytes();
    let mut frame = vec![first];
    match payload.len() {
        len @ ..126 => frame.push(0x80 | len as u8),
        len => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().enumerate().map(|(at, b)| b ^ mask[at % 4]));
    frame
}

/// Bytes as one message of WebSocket: text or bytes, in one to many fragments, with pings between
/// them.
pub(crate) fn in_fragments(bytes: &[u8], rng: &mut fastrand::Rng) -> Vec<u8> {
    let (mut frames, mut rest, mut opcode) = (Vec::new(), bytes, rng.u8(1..=2));
    loop {
        let most = if rng.bool() { rest.len() } else { rng.usize(0..=rest.len()) };
        let (part, behind) = rest.split_at(most);
        let is_last = behind.is_empty();
        frames.extend(client_frame(opcode | u8::from(is_last) << 7, part, rng));
        (opcode, rest) = (0, behind);
        if is_last {
            return frames;
        }
        if rng.u8(..) < 60 {
            frames.extend(client_frame(0x89, b"there?", rng));
        }
    }
}

/// Bytes that a peer writes for a line. Over telnet it says something about an option now and then,
/// at the line's beginning or within.
pub(crate) fn written(framing: Framing, line: &str, rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    match framing {
        Framing::Lines { .. } => {
            bytes.extend(line.bytes().chain(if rng.bool() { "\n" } else { "\r\n" }.bytes()));
        }
        Framing::Telnet { .. } => {
            let at = rng.usize(0..=line.len());
            bytes.extend(&line.as_bytes()[..at]);
            if rng.bool() {
                let option = rng.u8(30..34);
                bytes.extend([IAC, rng.u8(251..=254), option, IAC, 250, option, b'x', IAC, 240]);
            }
            bytes.extend(&line.as_bytes()[at..]);
            bytes.extend(["\n", "\r\n", "\r\0"][rng.usize(0..3)].bytes());
        }
        Framing::Custom { .. } => bytes = encoded(line.as_bytes()),
        Framing::WebSocket { .. } => bytes = in_fragments(line.as_bytes(), rng),
        other => other.encode(line.as_bytes(), &mut bytes).expect("a line can be expressed"),
    }
    bytes
}

/// Takes what is whole off the bytes that a peer has read, and appends its text. True: it has read
/// the host's last word.
pub(crate) fn read(framing: Framing, raw: &mut Vec<u8>, text: &mut Vec<u8>) -> bool {
    match framing {
        Framing::Lines { .. } | Framing::Raw { .. } => text.append(raw),
        Framing::Telnet { .. } => read_telnet(raw, text),
        Framing::WebSocket { .. } => return read_websocket(raw, text),
        Framing::Custom { .. } => loop {
            match cut(raw, &mut Vec::new()) {
                CustomCut::Message { message: CustomMessage::Input(range), consumed } => {
                    text.extend(&raw[range]);
                    raw.drain(..consumed);
                }
                CustomCut::More => break,
                other => panic!("{other:?}"),
            }
        },
        other => loop {
            let mut buffers = FrameBuffers::default();
            let consumed = match other.cut(raw, &mut FrameState::default(), &mut buffers) {
                Frame::Message { payload, consumed } => {
                    text.extend(payload.bytes(&buffers));
                    consumed
                }
                Frame::More => break,
                other => panic!("{other:?}"),
            };
            raw.drain(..consumed);
        },
    }
    false
}

/// Reads messages of WebSocket, behind the answer to the request. A text is a line without its end.
/// True: a close frame came, and nothing behind it.
pub(crate) fn read_websocket(raw: &mut Vec<u8>, text: &mut Vec<u8>) -> bool {
    if raw.starts_with(b"H") {
        let Some(end) = raw.windows(4).position(|w| w == b"\r\n\r\n") else { return false };
        assert!(raw.starts_with(b"HTTP/1.1 101 "), "{}", raw.escape_ascii());
        raw.drain(..end + 4);
    }
    while let [first, len, ref rest @ ..] = raw[..] {
        let (len, begin) = match len {
            126 => match rest.first_chunk() {
                Some(len) => (usize::from(u16::from_be_bytes(*len)), 4),
                None => break,
            },
            len @ ..126 => (usize::from(len), 2),
            _ => panic!("{}", raw.escape_ascii()),
        };
        let Some(payload) = raw.get(begin..begin + len) else { break };
        match first {
            0x81 => {
                text.extend(payload);
                text.push(b'\n');
            }
            0x82 => text.extend(payload),
            0x88 => {
                assert_eq!(raw.len(), begin + len, "nothing follows on a close");
                raw.clear();
                return true;
            }
            0x8a => assert_eq!(payload, b"there?", "a pong has what its ping had"),
            _ => panic!("{}", raw.escape_ascii()),
        }
        raw.drain(..begin + len);
    }
    false
}

/// Reads text over telnet: commands are verbs, and CR LF is one end of a line.
fn read_telnet(raw: &mut Vec<u8>, text: &mut Vec<u8>) {
    let mut at = 0;
    while at < raw.len() {
        at += match raw[at..] {
            [IAC, 251..=254, _, ..] => 3,
            [IAC, IAC, ..] | [b'\r', b'\n', ..] => {
                text.push(raw[at + 1]);
                2
            }
            [IAC] | [IAC, 251..=254] | [b'\r'] => break,
            [IAC | b'\r', ..] => panic!("{}", raw[at..].escape_ascii()),
            _ => {
                text.push(raw[at]);
                1
            }
        };
    }
    raw.drain(..at);
}

/// Message of the framing that the scripted service has of its own: its length, then its bytes.
pub(crate) fn encoded(message: &[u8]) -> Vec<u8> {
    [format!("{}:", message.len()).as_bytes(), message].concat()
}

/// Cuts such a message. The state counts them.
pub(crate) fn cut(input: &[u8], state: &mut Vec<u8>) -> CustomCut {
    let Some(colon) = input.iter().position(|b| *b == b':') else { return CustomCut::More };
    let len: usize = String::from_utf8_lossy(&input[..colon]).parse().expect("a length");
    let (at, consumed) = (colon + 1, colon + 1 + len);
    if consumed > input.len() {
        return CustomCut::More;
    }
    let count = state.first_chunk().map_or(0, |n| u64::from_le_bytes(*n));
    *state = (count + 1).to_le_bytes().to_vec();
    CustomCut::Message { message: CustomMessage::Input(at..consumed), consumed }
}
