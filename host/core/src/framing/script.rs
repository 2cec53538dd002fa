//! Scripts for the tests of framings: a stream, cut everywhere, must give one trace.
//!
//! The scripts hold a framing to the promise of [`super`]: a cut depends on the unconsumed
//! bytes and the stored state alone. Between two parts the state goes through the form that a
//! record has, so a framing that keeps something elsewhere fails.

use super::Framing;
use super::frame::{Frame, FrameBuffers, FrameEvent, FrameState};
use super::websocket::stage;
use std::fmt::Write;

/// Treatment of the state between two parts of a stream.
#[derive(Clone, Copy, Debug)]
enum Between {
    /// Through a record and back, cache included.
    Stored,
    /// Through a record and back, and the cache is lost.
    Uncached,
}

/// Streams up to this length are cut at every byte, longer ones near both ends.
const CUT_EVERYWHERE_BYTES_MAX: usize = 256;

/// Checks that a stream gives the expected trace: as a whole, cut in two at every byte, and cut
/// into single bytes. Each is checked with and without what the state caches.
///
/// A trace is messages in quotes, replies in angle brackets, events in square brackets (kind,
/// detail, data), `request`, `closed: WORDS`, `too-long` or `invalid: REASON`.
/// Behind `|` are the bytes that are left.
#[track_caller]
pub(super) fn check(framing: Framing, stream: &[u8], expected: &str) {
    // Cuts cost the square of the length, so a longer stream is cut near its ends only.
    let short = stream.len() <= CUT_EVERYWHERE_BYTES_MAX;
    for between in [Between::Stored, Between::Uncached] {
        assert_eq!(trace(framing, &[stream], between), expected);
        for at in (0..=stream.len()).filter(|at| short || *at < 16 || stream.len() - at < 16) {
            let (a, b) = stream.split_at(at);
            assert_eq!(trace(framing, &[a, b], between), expected, "cut at {at}, {between:?}");
        }
        if short {
            let bytes: Vec<_> = stream.chunks(1).collect();
            assert_eq!(trace(framing, &bytes, between), expected, "cut at every byte, {between:?}");
        }
    }
}

/// Checks a stream like [`check`], of a session whose framing has a state already.
#[track_caller]
pub(super) fn check_from(framing: Framing, state: &FrameState, stream: &[u8], expected: &str) {
    for between in [Between::Stored, Between::Uncached] {
        for at in 0..=stream.len() {
            let (a, b) = stream.split_at(at);
            let traced = trace_from(framing, state.clone(), &[a, b], between);
            assert_eq!(traced, expected, "cut at {at}, {between:?}");
        }
        let bytes: Vec<_> = stream.chunks(1).collect();
        let traced = trace_from(framing, state.clone(), &bytes, between);
        assert_eq!(traced, expected, "cut at every byte, {between:?}");
    }
}

/// Returns the trace of a stream that comes as a whole.
pub(super) fn trace_whole(framing: Framing, stream: &[u8]) -> String {
    trace(framing, &[stream], Between::Stored)
}

/// Checks the bytes that a message is sent as. The framing must say that it encodes.
#[track_caller]
pub(super) fn check_encoded(framing: Framing, message: &[u8], expected: &[u8]) {
    let mut out = b"before".to_vec();
    framing.encode(message, &mut out).unwrap();
    assert_eq!(
        out.strip_prefix(b"before").unwrap().escape_ascii().to_string(),
        expected.escape_ascii().to_string()
    );
    assert!(framing.encodes());
}

/// Feeds the parts of a new session one after the other, and writes down what comes out.
fn trace(framing: Framing, parts: &[&[u8]], between: Between) -> String {
    trace_from(framing, FrameState::default(), parts, between)
}

/// Feeds the parts of a session whose framing has a state already.
fn trace_from(framing: Framing, mut state: FrameState, parts: &[&[u8]], between: Between) -> String {
    let (mut left, mut trace) = (Vec::new(), String::new());
    for part in parts {
        left.extend_from_slice(part);
        let mut buffers = FrameBuffers::default();
        loop {
            // Payloads and replies of earlier cuts lie in the same buffers: each cut only
            // appends.
            let (stored, replied) = (state.stored().to_vec(), buffers.replies.len());
            let frame = framing.cut(&left, &mut state, &mut buffers);
            let consumed = match frame {
                Frame::Message { payload, consumed } => {
                    assert!(consumed > 0, "a message takes at least a byte");
                    write!(trace, "\"{}\" ", payload.bytes(&buffers).escape_ascii()).unwrap();
                    consumed
                }
                // A reply may take no bytes, or leave the state as it was, but never both: the
                // loop would not end.
                Frame::Reply { consumed } => {
                    let reply = &buffers.replies[replied..];
                    assert!(consumed > 0 || state.stored() != stored, "progress");
                    if !reply.is_empty() {
                        write!(trace, "<{}> ", reply.escape_ascii()).unwrap();
                    }
                    if let Some(FrameEvent { kind, detail, data }) = buffers.event.take() {
                        write!(trace, "[{kind} {detail} {}] ", data.escape_ascii()).unwrap();
                    }
                    consumed
                }
                // The host answers, and what follows are messages.
                Frame::Request { consumed } => {
                    trace.push_str("request ");
                    stage::set_answered(&mut state);
                    let again = framing.cut(&left, &mut state, &mut buffers);
                    assert_eq!(again, Frame::Request { consumed }, "until its turn has run");
                    stage::set_open(&mut state);
                    consumed
                }
                Frame::Closed(words) => {
                    let words = buffers.payloads[words].escape_ascii();
                    return format!("{trace}closed: {words} | ");
                }
                Frame::More => {
                    // A caller stores the state only with consumed bytes, so a cut without any
                    // must not change it.
                    assert_eq!(state.stored(), stored, "stored bytes stay");
                    break;
                }
                Frame::TooLong => return trace + "too-long | ",
                Frame::Invalid(why) => return trace + "invalid: " + why + " | ",
            };
            left.drain(..consumed);
        }
        let searched = match between {
            Between::Stored => state.searched(),
            Between::Uncached => 0,
        };
        state = FrameState::new(searched, state.stored()).expect("a state that fits");
    }
    trace + &format!("| {}", left.escape_ascii())
}
