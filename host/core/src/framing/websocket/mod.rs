//! WebSocket: messages in frames, behind an HTTP request, as RFC 6455 has them.
//!
//! | file | holds |
//! | --- | --- |
//! | [`request`] | the HTTP request, its answers, and what a turn may know of it |
//! | `message` | frames: messages, pings, the peer's close |
//! | [`stage`] | what is stored |
//! | [`sent`] | frames that are sent |
//! | [`stream`] | data frames as one stream, which another framing cuts |
//! | [`farewell`] | words for the peer at a session's end |
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
//! one message is bounded: `CONTROLS_MAX` and `OVERHEAD_BYTES_MAX` beside twice its bytes.

pub(crate) mod farewell;
mod message;
pub(crate) mod request;
pub(crate) mod sent;
pub(crate) mod stage;
pub(crate) mod stream;

use self::stage::{SocketStage, stage};
use super::frame::{Frame, FrameBuffers, FrameState};

/// Cuts the request, a message or a control frame.
pub(super) fn cut<'i>(
    input: &'i [u8],
    state: &mut FrameState,
    bytes_max: usize,
    buffers: &mut FrameBuffers,
) -> Frame<'i> {
    match stage(state.stored()) {
        SocketStage::Open => message::cut(input, state, bytes_max, buffers),
        SocketStage::Request | SocketStage::Answered => request::cut(input, state),
    }
}

#[cfg(test)]
mod tests;
