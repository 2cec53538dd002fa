//! WebSocket: messages in frames, behind an HTTP request, as RFC 6455 has them.
//!
//! | file | holds |
//! | --- | --- |
//! | [`request`] | the HTTP request, its answers, and what a turn may know of it |
//! | `message` | frames: messages, pings, the peer's close |
//! | `scan` | place of a search in a message that is not whole, and UTF-8 so far |
//!
//! | stage | stored | input |
//! | --- | --- | --- |
//! | request | nothing | an HTTP request |
//! | answered | 3 bytes | the same request, until the session's first turn has run |
//! | open | 3 bytes, or 7 with pings inside a message | frames |
//!
//! The request stays in the input until the turn that it begins has run. A message stays there
//! until its last frame has come. So the kept input is all that a successor needs, and each cut
//! is exact whatever byte the worker dies at. Storing fragments apart would be a record of its
//! own, with the same bytes in it. A ping between two fragments is answered at once. The stored
//! state says up to where pings were answered.
//!
//! Costs: a frame header is read once and a byte of text is checked once, as long as the cache
//! is kept. A whole message is copied once, as it has to be unmasked. What a peer may send for
//! one message is bounded: [`CONTROLS_MAX`] and [`OVERHEAD_BYTES_MAX`] beside twice its bytes.

mod message;
pub(crate) mod request;
mod scan;

use super::frame::{Frame, FrameBuffers, FrameState};
use greenroom_state::abi;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

pub(super) use self::scan::Scan;

/// Pings and pongs inside one message, at most. Each ping there costs a copy of the kept input.
const CONTROLS_MAX: u16 = 255;
/// Bytes of headers, pings and pongs that a message may have beside as many as its payload.
const OVERHEAD_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a close frame's reason, at most: a control frame has 125, and the code takes two.
pub(crate) const REASON_BYTES_MAX: usize = 123;

/// Reason of a close: the peer sent text that is none. The code for it is 1007.
const NOT_UTF8: &str = "a text message is not UTF-8";
/// Reason of a close: the peer does not keep to what it may send. The code for it is 1008.
const TOO_MANY_CONTROLS: &str = "a message has too many pings in it";
/// Reason of a close: a message costs far more than its bytes. The code for it is 1008.
const TOO_SMALL_FRAGMENTS: &str = "a message comes in too small fragments";

/// Number of the framing and version of its state. Bytes of another framing count as no state.
const STATE_HEAD: [u8; 2] = [abi::framing::WEBSOCKET as u8, 1];
/// Third byte of the state: the request was answered, and its turn is to come.
const ANSWERED: u8 = 1;
/// Third byte of the state: frames come.
const OPEN: u8 = 2;

/// Stage of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Request is awaited, and no turn has run.
    Request,
    /// Request was answered by 101. The session's first turn is to run.
    Answered,
    /// Frames come.
    Open,
}

/// Returns the stage that a stored state says.
pub(crate) fn stage(stored: &[u8]) -> Stage {
    match *stored {
        [framing, version, ANSWERED, ..] if [framing, version] == STATE_HEAD => Stage::Answered,
        [framing, version, OPEN, ..] if [framing, version] == STATE_HEAD => Stage::Open,
        _ => Stage::Request,
    }
}

/// Notes that the request was answered.
pub(crate) fn set_answered(state: &mut FrameState) {
    state.store(&[STATE_HEAD[0], STATE_HEAD[1], ANSWERED]);
}

/// Notes that the session's first turn has run, and that the request is consumed.
pub(crate) fn set_open(state: &mut FrameState) {
    state.searched = 0;
    state.store(&[STATE_HEAD[0], STATE_HEAD[1], OPEN]);
}

/// Returns up to where pings in the unconsumed input were answered.
fn answered(stored: &[u8]) -> usize {
    match *stored {
        [_, _, _, a, b, c, d] => u32::from_le_bytes([a, b, c, d]) as usize,
        _ => 0,
    }
}

/// Notes up to where pings in the unconsumed input were answered.
fn set_answered_to(state: &mut FrameState, at: usize) {
    let [a, b, c, d] = (at as u32).to_le_bytes();
    state.store(&[STATE_HEAD[0], STATE_HEAD[1], OPEN, a, b, c, d]);
}

/// Cuts the request, a message or a control frame.
pub(super) fn cut<'i>(
    input: &'i [u8],
    state: &mut FrameState,
    bytes_max: usize,
    buffers: &mut FrameBuffers,
) -> Frame<'i> {
    match stage(state.stored()) {
        Stage::Open => message::cut(input, state, bytes_max, buffers),
        Stage::Request | Stage::Answered => request::cut(input, state),
    }
}

/// Appends a message of bytes. Cannot fail.
pub(super) fn encode(message: &[u8], out: &mut Vec<u8>) {
    frame(OpCode::Data(Data::Binary), message, out);
}

/// Appends a message of text. Bytes that are not UTF-8 become U+FFFD. Cannot fail.
pub(super) fn encode_text(text: &[u8], out: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(text);
    frame(OpCode::Data(Data::Text), text.as_bytes(), out);
}

/// Appends a ping without a payload.
pub(crate) fn encode_ping(out: &mut Vec<u8>) {
    frame(OpCode::Control(Control::Ping), b"", out);
}

/// Appends a frame that is whole. A server masks nothing.
fn frame(opcode: OpCode, payload: &[u8], out: &mut Vec<u8>) {
    let header = FrameHeader { is_final: true, rsv1: false, rsv2: false, rsv3: false, opcode, mask: None };
    // Writing to memory cannot fail.
    let _ = header.format(payload.len() as u64, out);
    out.extend_from_slice(payload);
}

/// End of a session, as it is told to a WebSocket peer: a code of RFC 6455, and a reason.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Farewell<'r> {
    /// Code of the close frame; 0: the peer is told nothing, 1005: a frame without a code.
    pub(crate) code: u16,
    /// Reason; a longer one than [`REASON_BYTES_MAX`] is cut.
    pub(crate) reason: &'r str,
}

impl<'r> Farewell<'r> {
    /// Returns the end for a reason of [`crate::framing::frame::Frame::Invalid`].
    pub(crate) fn invalid(reason: &'r str) -> Farewell<'r> {
        let code = match reason {
            NOT_UTF8 => 1007,
            TOO_MANY_CONTROLS | TOO_SMALL_FRAGMENTS => 1008,
            _ => 1002,
        };
        Farewell { code, reason }
    }

    /// Returns the bytes that tell it: a close frame, or an HTTP response if there was no
    /// handshake. Empty: nothing is told.
    pub(crate) fn bytes(self, stored: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        if self.code == 0 {
            return out;
        }
        match stage(stored) {
            Stage::Request => request::refuse_end(self, &mut out),
            Stage::Answered | Stage::Open => {
                let mut payload = Vec::new();
                if self.code != 1005 {
                    payload.extend(self.code.to_be_bytes());
                    let len = self.reason.floor_char_boundary(REASON_BYTES_MAX);
                    payload.extend(&self.reason.as_bytes()[..len]);
                }
                frame(OpCode::Control(Control::Close), &payload, &mut out);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests;
