//! Stage of a session of WebSocket: what is stored between two cuts.

use crate::framing::frame::FrameState;
use greenroom_state::abi;

/// Number of the framing and version of its state. Bytes of another framing count as no state.
const STATE_HEAD: [u8; 2] = [abi::framing::WEBSOCKET as u8, 1];
/// Third byte of the state: the request was answered, and its turn is to come.
const ANSWERED: u8 = 1;
/// Third byte of the state: frames come.
const OPEN: u8 = 2;

/// Stage of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SocketStage {
    /// Request is awaited, and no turn has run.
    Request,
    /// Request was answered by 101. The session's first turn is to run.
    Answered,
    /// Frames come.
    Open,
}

/// Returns the stage that a stored state says.
pub(crate) fn stage(stored: &[u8]) -> SocketStage {
    match *stored {
        [framing, version, ANSWERED, ..] if [framing, version] == STATE_HEAD => SocketStage::Answered,
        [framing, version, OPEN, ..] if [framing, version] == STATE_HEAD => SocketStage::Open,
        _ => SocketStage::Request,
    }
}

/// Notes that the request was answered.
pub(crate) fn set_answered(state: &mut FrameState) {
    state.store(&[STATE_HEAD[0], STATE_HEAD[1], ANSWERED]);
}

/// Notes that the session's first turn has run, and that the request is consumed.
pub(crate) fn set_open(state: &mut FrameState) {
    state.set_searched(0);
    state.store(&[STATE_HEAD[0], STATE_HEAD[1], OPEN]);
}

/// Returns up to where pings in the unconsumed input were answered.
pub(super) fn answered(stored: &[u8]) -> usize {
    match *stored {
        [_, _, _, a, b, c, d] => u32::from_le_bytes([a, b, c, d]) as usize,
        _ => 0,
    }
}

/// Notes up to where pings in the unconsumed input were answered.
pub(super) fn set_answered_to(state: &mut FrameState, at: usize) {
    let [a, b, c, d] = (at as u32).to_le_bytes();
    state.store(&[STATE_HEAD[0], STATE_HEAD[1], OPEN, a, b, c, d]);
}
