//! Between: what stands between messages, or ends them: replies, requests, closes, broken rules.

use super::Pass;
use super::close::finish_with;
use super::cut::End;
use super::framing::{refused, reply_and_tell};
use super::handshake::{Asked, answer, closed_by_peer};
use crate::framing::websocket::farewell::Farewell;
use crate::host_state::notice::limit_reached;
use crate::ids::Slot;
use crate::limits::names::Limit;
use greenroom_state::abi::{closed, level};

/// Outcome of what stands between messages.
pub(super) enum Between {
    /// So many bytes of it are consumed; 0: the framing's state has changed. The second number
    /// counts the turns that wait for it.
    Consumed(usize, usize),
    /// So many bytes of it are consumed, and the input with them. Those behind are frames that
    /// carry the session's stream.
    Carried(usize),
    /// Kept for later.
    Kept,
    /// Session closed or gone.
    Ended,
}

/// Deals with what ends a cut without messages, at the beginning of `rest`.
#[inline(never)]
pub(super) fn between_messages(pass: &mut Pass<'_>, slot: Slot, end: End, rest: &[u8]) -> Between {
    match end {
        End::More => Between::Kept,
        // A reply that consumes no byte has changed the framing's state, so the next round makes
        // progress.
        End::Reply(consumed) => {
            let events = reply_and_tell(pass, slot);
            events.map_or(Between::Ended, |events| Between::Consumed(consumed, events))
        }
        End::Request(consumed) => match answer(pass, slot, &rest[..consumed]) {
            Asked::Opened => Between::Consumed(consumed, 0),
            Asked::Carried => Between::Carried(consumed),
            Asked::Waits => Between::Kept,
            Asked::Ended => Between::Ended,
        },
        End::Closed => {
            let words = pass.scratch.cut.closing().to_vec();
            closed_by_peer(pass, slot, &words);
            Between::Ended
        }
        End::TooLong => {
            let what = "closed: a frame was longer than its service takes";
            limit_reached(pass.host, Limit::FrameBytesMax, level::INFO, slot, what);
            let farewell = Farewell { code: 1009, reason: "the message is too long" };
            finish_with(pass, slot, closed::LIMIT, farewell);
            Between::Ended
        }
        End::Invalid(why) => {
            refused(pass, slot, why);
            finish_with(pass, slot, closed::LIMIT, Farewell::invalid(why));
            Between::Ended
        }
    }
}
