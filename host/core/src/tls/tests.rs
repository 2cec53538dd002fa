//! Tests of the stage, with toy ciphers: cuts at every byte, changed bytes, ends, keys.

use super::protection::{Protection, Seal};
use super::record::{HEADER_BYTES, TLS_1_2, TLS_1_3, alert, kind};
use super::stage::{Exhausted, Opened, TlsEnd, TlsStage};
use super::state::{Direction, TlsState};
use super::toy::{Toy, pair};

const MANY: u64 = 1 << 23;

/// Both ends of a connection.
fn ends() -> (TlsStage, TlsStage) {
    let (host, peer) = pair();
    (TlsStage::new(host), TlsStage::new(peer))
}

/// Opens what came at once; appends content and replies.
fn open(stage: &mut TlsStage, input: &[u8], content: &mut Vec<u8>, out: &mut Vec<u8>) -> Opened {
    stage.open(&Toy, input, MANY, (content, out), &mut Vec::new())
}

/// Seals one record of any kind, as an enemy or a strange peer may.
fn record(peer: &mut TlsStage, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let direction = &mut peer.state.host;
    let mut sealer = Toy.sealer(0, direction).unwrap();
    assert!(Seal::seal(&mut *sealer, kind, content, direction.number, &mut out));
    direction.number += 1;
    out
}

/// Changes the keys of what a peer seals.
fn update(peer: &mut TlsStage) {
    assert!(Toy.update(0, &mut peer.state.host));
    *peer = TlsStage::new(peer.state.clone());
}

#[test]
fn a_state_is_read_as_it_was_written() {
    let (mut state, _) = pair();
    (state.peer.number, state.host.number, state.read, state.written) = (7, u64::MAX - 1, 300, 1 << 40);
    (state.peer_closed, state.host_closed, state.peer_updates, state.host_updates) = (true, false, 3, 4);
    (state.updates_in_a_row, state.is_client) = (9, true);
    (state.peer.secret, state.host.iv) = ([9; 48], [8; 12]);
    let bytes = state.encode();
    assert!(TlsState::decode(&bytes).unwrap() == state);
    assert!(TlsState::decode(&bytes[1..]).is_none());
    let message = state.encode_message();
    assert!(TlsState::decode(&message).unwrap() == state);
    for mut later in [bytes.to_vec(), message.to_vec()] {
        later[0] = 3;
        assert!(TlsState::decode(&later).is_none());
    }
}

/// Streams with changes of keys, cut at every byte: content, answers and state are those of the
/// uncut stream.
#[test]
fn cutting_the_stream_anywhere_changes_nothing() {
    let (host, mut peer) = ends();
    let mut stream = Vec::new();
    let mut said = Vec::new();
    for n in 0..6usize {
        let text = vec![b'a' + n as u8; n * n * 3];
        peer.seal(&Toy, &text, MANY, &mut stream).unwrap();
        said.extend(text);
        if n % 2 == 1 {
            let asks = u8::from(n == 3);
            stream.extend(record(&mut peer, kind::HANDSHAKE, &[24, 0, 0, 1, asks]));
            update(&mut peer);
        }
    }
    peer.close(&Toy, MANY, &mut stream).unwrap();
    let run = |cuts: &[usize]| {
        let mut stage = TlsStage::new(host.state.clone());
        let (mut content, mut out, mut kept, mut end) = (Vec::new(), Vec::new(), Vec::new(), None);
        let mut from = 0;
        for to in cuts.iter().copied().chain([stream.len()]) {
            kept.extend_from_slice(&stream[from..to]);
            from = to;
            // A new process for each piece: all that counts is in the state and the kept bytes.
            stage = TlsStage::new(TlsState::decode(&stage.state.encode()).unwrap());
            let opened = open(&mut stage, &kept, &mut content, &mut out);
            kept.drain(..opened.consumed);
            end = end.or(opened.end);
        }
        (content, out, end, stage.state.encode())
    };
    let whole = run(&[]);
    assert_eq!((&whole.0, whole.2), (&said, Some(TlsEnd::Closed)));
    for at in 1..stream.len() {
        assert!(run(&[at]) == whole, "cut at {at}");
    }
    assert!(run(&(1..stream.len()).collect::<Vec<_>>()) == whole);
    // The answer to the one change that asked opens under the old keys, and the next record under
    // the new ones.
    let mut back = TlsStage::new(peer.state);
    let mut answers = whole.1.clone();
    let mut stage = TlsStage::new(TlsState::decode(&whole.3).unwrap());
    stage.seal(&Toy, b"behind", MANY, &mut answers).unwrap();
    let (mut content, mut out) = (Vec::new(), Vec::new());
    assert_eq!(open(&mut back, &answers, &mut content, &mut out).end, None);
    assert_eq!((content, back.state.peer_updates), (b"behind".to_vec(), 1));
}

/// A seeded search for bytes that panic or pass for a peer's.
#[test]
fn changed_bytes_are_refused_and_nothing_behind_them_is_opened() {
    let mut random = fastrand::Rng::with_seed(15);
    for _ in 0..3000 {
        let (mut host, mut peer) = ends();
        let mut stream = Vec::new();
        for _ in 0..random.usize(1..4) {
            peer.seal(&Toy, &vec![random.u8(..); random.usize(1..60)], MANY, &mut stream).unwrap();
        }
        let at = random.usize(..stream.len());
        let before = stream[at];
        stream[at] ^= 1 << random.u8(..8);
        if random.bool() {
            stream.truncate(random.usize(..=stream.len()));
        }
        let is_changed = stream.get(at).is_some_and(|b| *b != before);
        let (mut content, mut out) = (Vec::new(), Vec::new());
        let opened = open(&mut host, &stream, &mut content, &mut out);
        assert!(opened.consumed <= stream.len());
        // A length that grew may wait for more; all else that is whole is refused.
        match opened.end {
            Some(TlsEnd::Refused(_)) => assert!(is_changed && host.state.host_closed && !out.is_empty()),
            Some(other) => panic!("{other:?}"),
            None => assert!(out.is_empty() && content.len() <= 180),
        }
    }
}

#[test]
fn what_does_not_belong_is_refused_at_its_header() {
    for (bytes, says) in [
        (&[22, 3, 3, 0, 10][..], alert::UNEXPECTED_MESSAGE),
        (&[20, 3, 3, 0, 1, 1], alert::UNEXPECTED_MESSAGE),
        (&[21, 3, 3, 0, 2, 2, 40], alert::UNEXPECTED_MESSAGE),
        (b"GET / HTTP/1.1\r\n", alert::UNEXPECTED_MESSAGE),
        (&[23, 3, 1, 0, 10], alert::UNEXPECTED_MESSAGE),
        (&[23, 3, 3, 0x41, 1], alert::RECORD_OVERFLOW),
    ] {
        let (mut host, mut peer) = ends();
        let (mut content, mut out) = (Vec::new(), Vec::new());
        let opened = open(&mut host, bytes, &mut content, &mut out);
        assert_eq!((opened.consumed, opened.end), (0, Some(TlsEnd::Refused(says))), "{bytes:?}");
        // The peer reads why, and nothing follows.
        let told = open(&mut peer, &out, &mut content, &mut Vec::new());
        assert_eq!(told.end, Some(TlsEnd::Failed(says)));
        let len = out.len();
        host.seal(&Toy, b"more", MANY, &mut out).unwrap();
        host.close(&Toy, MANY, &mut out).unwrap();
        assert_eq!((out.len(), content), (len, Vec::new()));
    }
    let (mut host, _) = ends();
    let waits = open(&mut host, &[23, 3, 3, 0], &mut Vec::new(), &mut Vec::new());
    assert_eq!((waits.consumed, waits.end), (0, None));
}

#[test]
fn messages_of_a_handshake_are_few() {
    let end_of = |content: &[u8], kind: u8, version: u16| {
        let (mut host, mut peer) = ends();
        host.state.version = version;
        let input = record(&mut peer, kind, content);
        let mut out = Vec::new();
        (open(&mut host, &input, &mut Vec::new(), &mut out).end, out.len())
    };
    let refused = Some(TlsEnd::Refused(alert::UNEXPECTED_MESSAGE));
    // Two messages in one record, a part of one, and one that a server does not get.
    for bytes in [&[24, 0, 0, 1, 0, 24, 0, 0, 1, 0][..], &[24, 0, 0], &[24, 0, 0, 1, 2], &[4, 0, 0, 0], &[]] {
        assert_eq!(end_of(bytes, kind::HANDSHAKE, TLS_1_3).0, refused, "{bytes:?}");
    }
    assert_eq!(end_of(&[24, 0, 0, 1, 0], kind::HANDSHAKE, TLS_1_2).0, refused);
    // Another handshake is refused by a warning, and the session goes on.
    let (end, answered) = end_of(&[1, 0, 0, 4, 3, 3, 0, 0], kind::HANDSHAKE, TLS_1_2);
    assert!(end.is_none() && answered > HEADER_BYTES);
    assert_eq!(end_of(&[1, 100], kind::ALERT, TLS_1_2).0, None);
    assert_eq!(end_of(&[1, 100], kind::ALERT, TLS_1_3).0, Some(TlsEnd::Failed(100)));
    assert_eq!(end_of(&[2, 42], kind::ALERT, TLS_1_2).0, Some(TlsEnd::Failed(42)));
    assert_eq!(end_of(&[0], kind::ALERT, TLS_1_3).0, refused);
}

#[test]
fn a_key_seals_so_many_records_and_the_next_follows() {
    let (mut host, mut peer) = ends();
    let mut stream = Vec::new();
    for n in 0..20u8 {
        host.seal(&Toy, &[n; 40_000], 5, &mut stream).unwrap();
    }
    let (mut content, mut out) = (Vec::new(), Vec::new());
    let opened = open(&mut peer, &stream, &mut content, &mut out);
    assert_eq!((opened.consumed, opened.end), (stream.len(), None));
    assert!((0..20).all(|n| content[n * 40_000..][..40_000] == [n as u8; 40_000]));
    assert!(peer.state.peer_updates > 10 && host.state.host_updates == peer.state.peer_updates);
    // In TLS 1.2 there is no next key, but the end can still be told.
    let mut old = TlsStage::new(TlsState { version: TLS_1_2, ..pair().0 });
    assert_eq!(old.seal(&Toy, &[0; 100_000], 5, &mut Vec::new()), Err(Exhausted));
    assert_eq!(old.state.host.number, 5);
    old.close(&Toy, 5, &mut Vec::new()).unwrap();
    assert!(old.state.host_closed);
}

/// Many requests for other keys in one read are one answer.
#[test]
fn a_peer_cannot_demand_more_than_one_answer_at_once() {
    let (mut host, mut peer) = ends();
    let mut stream = Vec::new();
    let demand = |peer: &mut TlsStage, stream: &mut Vec<u8>, times: usize| {
        for _ in 0..times {
            stream.extend(record(peer, kind::HANDSHAKE, &[24, 0, 0, 1, 1]));
            update(peer);
        }
    };
    for _ in 0..3 {
        demand(&mut peer, &mut stream, 32);
        peer.seal(&Toy, b"x", MANY, &mut stream).unwrap();
    }
    let mut out = Vec::new();
    assert_eq!(open(&mut host, &stream, &mut Vec::new(), &mut out).end, None);
    assert_eq!((host.state.peer_updates, host.state.host_updates), (96, 1));
    assert_eq!(out.len(), HEADER_BYTES + 5 + 1 + 16);
    // Without data between them there is an end, wherever the stream is cut.
    for _ in 0..33 {
        let mut stream = Vec::new();
        demand(&mut peer, &mut stream, 1);
        let end = open(&mut host, &stream, &mut Vec::new(), &mut Vec::new()).end;
        let is_last = host.state.updates_in_a_row > 32;
        assert_eq!(end, is_last.then_some(TlsEnd::Refused(alert::UNEXPECTED_MESSAGE)));
    }
    assert_eq!(host.state.updates_in_a_row, 33);
}

#[test]
fn no_number_is_used_twice() {
    let (state, _) = pair();
    let host = Direction { number: u64::MAX, ..state.host.clone() };
    let mut stage = TlsStage::new(TlsState { host, ..state });
    let mut out = Vec::new();
    assert_eq!(stage.seal(&Toy, b"x", u64::MAX, &mut out), Err(Exhausted));
    assert_eq!((stage.close(&Toy, u64::MAX, &mut out), out.len()), (Err(Exhausted), 0));
}
