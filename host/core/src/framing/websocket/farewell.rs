//! Farewell: words for a peer of WebSocket at its session's end, a close frame or an HTTP response.

use super::request;
use super::sent::frame;
use super::stage::SocketStage;
use tungstenite::protocol::frame::coding::{Control, OpCode};

/// Bytes of a close frame's reason, at most: a control frame has 125, and the code takes two.
pub(crate) const REASON_BYTES_MAX: usize = 123;

/// Reason of a close: the peer sent text that is none. The code for it is 1007.
pub(super) const NOT_UTF8: &str = "a text message is not UTF-8";
/// Reason of a close: the peer does not keep to what it may send. The code for it is 1008.
pub(super) const TOO_MANY_CONTROLS: &str = "a message has too many pings in it";
/// Reason of a close: a message costs far more than its bytes. The code for it is 1008.
pub(super) const TOO_SMALL_FRAGMENTS: &str = "a message comes in too small fragments";

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
    pub(crate) fn bytes(self, stage: SocketStage) -> Vec<u8> {
        let mut out = Vec::new();
        if self.code == 0 {
            return out;
        }
        match stage {
            SocketStage::Request => request::refuse_end(self.code, &mut out),
            SocketStage::Answered | SocketStage::Open => {
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
