//! Custom: messages that functions of the service's library cut and frame.
//!
//! The library sees the unconsumed input, and up to [`STATE_BYTES_MAX`] bytes of state that it
//! keeps for the session. It answers with a message, with bytes to skip, or that it wants more.
//! Nothing of that is believed: an answer that makes no sense is a fault of the library, and ends
//! the session, as a panic there does. So input can't bring the host to a loop or out of bounds.
//!
//! The state changes with consumed bytes alone, like that of any framing. A build of the same
//! version goes on with it, in the middle of a message.
//!
//! Costs: one call for each message, and one for each read that adds to a message. The library sees
//! the whole message again with each read.

use super::frame::{CutRefusal, Frame, FrameBuffers, FrameState, Payload, STORED_BYTES_MAX};
use greenroom_state::abi;
use std::ops::Range;

/// Most bytes of state that a library keeps for a session's framing.
pub const STATE_BYTES_MAX: usize = abi::framing::CUSTOM_STATE_BYTES_MAX;
// The framing's number and its version go before.
const _: () = assert!(STATE_BYTES_MAX + 2 <= STORED_BYTES_MAX);

/// Most bytes of input that may wait for the end of a message, beside twice the longest message.
const OVERHEAD_BYTES_MAX: usize = 4096;

/// Answer of a library, not judged yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CustomCut {
    /// No whole message; the state stays.
    More,
    /// Message.
    Message {
        /// Message without its framing.
        message: CustomMessage,
        /// Bytes of input that it took.
        consumed: usize,
    },
    /// Bytes that are no message.
    Skipped {
        /// Number of them.
        consumed: usize,
    },
    /// Input that breaks the rules of the framing, with the reason.
    Invalid(String),
}

/// Message that a library has cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CustomMessage {
    /// Range of the input.
    Input(Range<usize>),
    /// Bytes that differ from the input.
    Own(Vec<u8>),
}

/// Cuts the next message by the answer of `call`, which gets the input and the library's state. A
/// refusal is in [`FrameBuffers::refusal`].
pub(crate) fn cut<'i>(
    (version, bytes_max): (u8, usize),
    input: &'i [u8],
    state: &mut FrameState,
    buffers: &mut FrameBuffers,
    call: impl FnOnce(&mut Vec<u8>) -> Result<CustomCut, String>,
) -> Frame<'i> {
    let head = [abi::framing::CUSTOM as u8, version];
    let mut kept = state.stored().strip_prefix(&head).unwrap_or_default().to_vec();
    let judged = call(&mut kept).and_then(|answer| judge(&answer, input.len(), kept.len()).map(|()| answer));
    let (message, consumed) = match judged {
        Ok(CustomCut::Message { message, consumed }) => (Some(message), consumed),
        Ok(CustomCut::Skipped { consumed }) => (None, consumed),
        Ok(CustomCut::More) if input.len() > 2 * bytes_max + OVERHEAD_BYTES_MAX => return Frame::TooLong,
        Ok(CustomCut::More) => return Frame::More,
        Ok(CustomCut::Invalid(reason)) => return refuse(buffers, reason, false),
        Err(reason) => return refuse(buffers, reason, true),
    };
    let payload = match message {
        None => None,
        Some(CustomMessage::Input(range)) if range.len() > bytes_max => return Frame::TooLong,
        Some(CustomMessage::Own(bytes)) if bytes.len() > bytes_max => return Frame::TooLong,
        Some(CustomMessage::Input(range)) => Some(Payload::Input(&input[range])),
        Some(CustomMessage::Own(bytes)) => {
            let begin = buffers.payloads.len();
            buffers.payloads.extend(bytes);
            Some(Payload::Unescaped(begin..buffers.payloads.len()))
        }
    };
    let stored = if kept.is_empty() { kept } else { [&head[..], &kept].concat() };
    if state.stored() != stored {
        state.store(&stored);
    }
    match payload {
        Some(payload) => Frame::Message { payload, consumed },
        None => Frame::Reply { consumed },
    }
}

/// Ends the stream for a reason that the buffers hold.
fn refuse<'i>(buffers: &mut FrameBuffers, reason: String, is_fault: bool) -> Frame<'i> {
    buffers.refusal = Some(CutRefusal { reason, is_fault });
    Frame::Invalid("its framing refuses the input")
}

/// Judges an answer. Fails with what makes no sense about it.
fn judge(answer: &CustomCut, input_len: usize, state_len: usize) -> Result<(), String> {
    if state_len > STATE_BYTES_MAX {
        return Err(format!("it keeps {state_len} bytes of state, of at most {STATE_BYTES_MAX}"));
    }
    let consumed = match answer {
        CustomCut::More | CustomCut::Invalid(_) => return Ok(()),
        CustomCut::Message { consumed, .. } | CustomCut::Skipped { consumed } => *consumed,
    };
    if consumed == 0 {
        return Err("it consumes nothing, so it would never end".into());
    }
    if consumed > input_len {
        return Err(format!("it consumes {consumed} bytes, and there are {input_len}"));
    }
    match answer {
        CustomCut::Message { message: CustomMessage::Input(Range { start, end }), .. }
            if start > end || *end > input_len =>
        {
            Err(format!("its message is from {start} to {end}, and there are {input_len} bytes"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::frame::STORED_BYTES_MAX;

    /// Cuts with one answer, of a session that keeps the state `old`, and keeps `new` afterwards.
    fn answer(cut: Result<CustomCut, String>, new: &[u8]) -> (String, FrameState) {
        let mut state = FrameState::new(0, b"\x07\x03old").unwrap();
        let mut buffers = FrameBuffers::default();
        let frame = super::cut((3, 4), b"input", &mut state, &mut buffers, |kept| {
            assert_eq!(kept, b"old");
            *kept = new.to_vec();
            cut
        });
        let said = match (frame, buffers.refusal.take()) {
            (Frame::Invalid(_), Some(CutRefusal { reason, is_fault })) => format!("{is_fault} {reason}"),
            (Frame::Message { payload, consumed }, _) => {
                format!("{} {consumed}", payload.bytes(&buffers).escape_ascii())
            }
            (other, _) => format!("{other:?}"),
        };
        (said, state)
    }

    /// Messages, bytes that are skipped, and the state that goes with them.
    #[test]
    fn answers_become_frames() {
        let old = FrameState::new(0, b"\x07\x03old").unwrap();
        let new = FrameState::new(0, b"\x07\x03new").unwrap();
        let message = |message| Ok(CustomCut::Message { message, consumed: 5 });
        let range = message(CustomMessage::Input(1..3));
        assert_eq!(answer(range.clone(), b"new"), ("np 5".into(), new.clone()));
        assert_eq!(answer(range, b""), ("np 5".into(), FrameState::default()));
        assert_eq!(
            answer(message(CustomMessage::Own(b"own".to_vec())), b"new"),
            ("own 5".into(), new.clone())
        );
        let skipped = answer(Ok(CustomCut::Skipped { consumed: 2 }), b"new");
        assert_eq!(skipped, ("Reply { consumed: 2 }".into(), new));
        // Without consumed bytes the state stays.
        assert_eq!(answer(Ok(CustomCut::More), b"new"), ("More".into(), old.clone()));
        assert_eq!(answer(message(CustomMessage::Input(0..5)), b"new"), ("TooLong".into(), old));
    }

    /// The peer breaks the rules, or the library does.
    #[test]
    fn nonsense_is_a_fault_of_the_library() {
        let message =
            |range, consumed| Ok(CustomCut::Message { message: CustomMessage::Input(range), consumed });
        let whole = Range { start: 0, end: 1 };
        for (cut, new, says) in [
            (Ok(CustomCut::Invalid("no such frame".into())), &b""[..], "false no such frame"),
            (Err("panicked".into()), b"", "true panicked"),
            (message(whole.clone(), 0), b"", "true it consumes nothing, so it would never end"),
            (Ok(CustomCut::Skipped { consumed: 0 }), b"", "true it consumes nothing, so it would never end"),
            (message(whole.clone(), 6), b"", "true it consumes 6 bytes, and there are 5"),
            (message(3..6, 5), b"", "true its message is from 3 to 6, and there are 5 bytes"),
            (
                message(Range { start: 3, end: 2 }, 5),
                b"",
                "true its message is from 3 to 2, and there are 5 bytes",
            ),
            (message(whole, 1), &[7; 33], "true it keeps 33 bytes of state, of at most 32"),
        ] {
            assert_eq!(answer(cut, new).0, says);
        }
    }

    /// State of another version is not shown to the library.
    /// Answers that are drawn, from good ones to nonsense: none panics, and none makes the host
    /// believe in bytes that are not there, or keep more than it may.
    #[test]
    fn drawn_answers_stay_within_bounds() {
        let mut random = fastrand::Rng::with_seed(15);
        let (mut state, mut frames) = (FrameState::default(), [0; 4]);
        for _ in 0..20_000 {
            let input = vec![7; random.usize(..200)];
            let mut near = || match random.u8(0..8) {
                0 => random.usize(..),
                _ => random.usize(..=input.len() + 1),
            };
            let (consumed, start, end) = (near(), near(), near());
            let own = vec![8; random.usize(..20)];
            let answer = match random.u8(0..5) {
                0 => CustomCut::More,
                1 => CustomCut::Skipped { consumed },
                2 => CustomCut::Message { message: CustomMessage::Own(own), consumed },
                _ => CustomCut::Message { message: CustomMessage::Input(start..end), consumed },
            };
            let kept = random.usize(..STATE_BYTES_MAX + 2);
            let (before, mut buffers) = (state.stored().to_vec(), FrameBuffers::default());
            let frame = cut((3, 10), &input, &mut state, &mut buffers, |state| {
                state.resize(kept, 1);
                Ok(answer)
            });
            let which = match frame {
                Frame::Message { payload, consumed } => {
                    assert!(payload.bytes(&buffers).len() <= 10);
                    assert!((1..=input.len()).contains(&consumed));
                    0
                }
                Frame::Reply { consumed } => {
                    assert!((1..=input.len()).contains(&consumed));
                    1
                }
                Frame::More | Frame::TooLong | Frame::Invalid(_) => {
                    assert_eq!(state.stored(), before, "a cut of nothing keeps nothing");
                    2 + usize::from(buffers.refusal.is_some())
                }
                other => panic!("{other:?}"),
            };
            assert!(state.stored().len() <= STORED_BYTES_MAX);
            frames[which] += 1;
        }
        assert!(frames.iter().all(|n| *n > 1000), "each kind of outcome: {frames:?}");
    }

    #[test]
    fn a_state_of_another_version_counts_as_none() {
        let mut state = FrameState::new(0, b"\x07\x02old").unwrap();
        let mut buffers = FrameBuffers::default();
        let frame = super::cut((3, 4), b"input", &mut state, &mut buffers, |kept| {
            assert_eq!(*kept, b"");
            Ok(CustomCut::Skipped { consumed: 1 })
        });
        assert_eq!((frame, state), (Frame::Reply { consumed: 1 }, FrameState::default()));
    }
}
