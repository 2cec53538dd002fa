//! Handshake: the HTTP request that begins a session of WebSocket, or asks for a page.
//!
//! The request opens the session: it is the input of the session's first turn, as a message is of
//! a later one. It stays in the kept input until that turn has run. So a quarantined session runs
//! the turn when better code serves, and a death in between runs it again.
//!
//! | request | turns |
//! | --- | --- |
//! | for WebSocket, from an origin that may | `Opened`, behind the answer 101 |
//! | for a page | `Page`, which answers it; no other one |
//! | refused | none |
//!
//! A session without its first turn has no last one either. What a turn may know of the request is
//! lent to the turns of this one batch, and kept nowhere: a handler keeps in its state what it
//! needs.
//!
//! Costs: O(bytes of the request), parsed once, and again if its turn had to wait.

use super::Pass;
use super::close::{finish, finish_with};
use super::open::run_opened;
use super::reply::send_framing;
use super::socket;
use super::timeout::arm_timeout;
use crate::execute::watched::run_batch;
use crate::framing::websocket::farewell::Farewell;
use crate::framing::websocket::request::{HttpRequest, Refusal, Wants, accept, refuse};
use crate::framing::websocket::stage::{SocketStage, set_answered, set_open, stage};
use crate::host_state::notice::{limit_reached, notice};
use crate::ids::Slot;
use crate::limits::names::Limit;
use crate::session::blocked::Blocked;
use crate::session::life::Life;
use greenroom_state::abi::{Action, Bytes, action, closed, level};

/// Outcome of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// Consumed: what follows are frames.
    Opened,
    /// Consumed: what follows are frames that carry the session's stream.
    Carried,
    /// Kept: its turn can't run now.
    Waits,
    /// Session closed or gone.
    Ended,
}

/// Answers a whole request of a session that has had no turn.
pub(super) fn answer(pass: &mut Pass<'_>, slot: Slot, bytes: &[u8]) -> Asked {
    match HttpRequest::read(bytes) {
        Ok(request) => match request.wants {
            Wants::Socket(key) => open(pass, slot, &request, key),
            Wants::Page { head_only } => page(pass, slot, &request, head_only),
        },
        Err(refusal) => refused(pass, slot, refusal),
    }
}

/// Opens a session: answers 101 unless that was done, and runs the first turn.
fn open(pass: &mut Pass<'_>, slot: Slot, request: &HttpRequest<'_>, key: &[u8]) -> Asked {
    let host = &mut *pass.host;
    let Some(s) = host.sessions.get(slot) else { return Asked::Ended };
    let (was_answered, offer) =
        (stage(s.frame.stored()) == SocketStage::Answered, &host.services[s.service].offer);
    let origins = host.limits.origins(s.service);
    if !was_answered && !request.is_from(origins) {
        return refused(pass, slot, Refusal(403, "the origin is not allowed here"));
    }
    let protocol = request.protocol(&offer.protocols);
    let facts = request.facts(protocol);
    if !was_answered {
        let mut answer = Vec::new();
        accept(key, protocol, &mut answer);
        if !send_framing(pass, slot, &answer) {
            return Asked::Ended;
        }
    }
    let Some(s) = pass.host.sessions.get_mut(slot) else { return Asked::Ended };
    set_answered(&mut s.frame);
    // Kept input of a session that had its first turn under another framing brings no second one.
    let is_due = s.block(Blocked::OpenedTurnDue, false);
    pass.executor.know(facts, None);
    let ran = !is_due || run_opened(pass, slot);
    pass.executor.know(Vec::new(), None);
    let Some(s) = pass.host.sessions.get_mut(slot).filter(|s| s.life == Life::Open) else {
        return Asked::Ended;
    };
    if !ran {
        return Asked::Waits;
    }
    set_open(&mut s.frame);
    let Ok(is_carried) = socket::open(pass.host, slot) else {
        let what = "closed: no room for its stream of WebSocket";
        limit_reached(pass.host, Limit::StoreBytesMax, level::WARN, slot, what);
        finish(pass, slot, closed::LIMIT);
        return Asked::Ended;
    };
    // The peer is pinged from here on.
    arm_timeout(pass.host, slot);
    if is_carried { Asked::Carried } else { Asked::Opened }
}

/// Runs the turn that answers with a page, and ends the session.
fn page(pass: &mut Pass<'_>, slot: Slot, request: &HttpRequest<'_>, head_only: bool) -> Asked {
    let before = served(pass, slot);
    let asks = Action { name: request.path.into(), ..Action::new(action::PAGE, Bytes::EMPTY) };
    pass.executor.know(request.facts(None), Some(head_only));
    let ran = run_batch(pass.host, pass.executor, slot, &[asks], &mut pass.scratch.running);
    pass.executor.know(Vec::new(), None);
    if ran.consumed == 0 {
        return Asked::Waits;
    }
    let after = served(pass, slot);
    if before.0 == after.0 {
        let refusal = match before.1 == after.1 {
            true => Refusal(404, "no such page"),
            false => Refusal(500, "the page's turn failed"),
        };
        let mut response = Vec::new();
        refuse(refusal, head_only, &mut response);
        if !send_framing(pass, slot, &response) {
            return Asked::Ended;
        }
    }
    finish(pass, slot, closed::HANDLER);
    Asked::Ended
}

/// Bytes that a session was sent, and failed turns of its service.
fn served(pass: &Pass<'_>, slot: Slot) -> (u64, u64) {
    let session = pass.host.sessions.get(slot);
    session.map_or((0, 0), |s| (s.bytes_out, pass.host.services[s.service].faults))
}

/// Refuses a request, and ends the session. Operators are told.
fn refused(pass: &mut Pass<'_>, slot: Slot, refusal: Refusal) -> Asked {
    let Refusal(status, why) = refusal;
    notice(pass.host, level::INFO, slot, format!("closed: its request is refused ({status}): {why}"));
    let mut response = Vec::new();
    refuse(refusal, false, &mut response);
    if send_framing(pass, slot, &response) {
        finish_with(pass, slot, closed::LIMIT, Farewell { code: 0, reason: "" });
    }
    Asked::Ended
}

/// Ends a session whose peer has closed it by a close frame, which is answered by the same code.
/// `words`: payload of that frame. The last turn may know code and reason.
pub(super) fn closed_by_peer(pass: &mut Pass<'_>, slot: Slot, words: &[u8]) {
    let (code, reason) = match words.split_at_checked(2) {
        Some((code, reason)) => (u16::from_be_bytes([code[0], code[1]]), reason),
        None => (1005, &[][..]),
    };
    let facts = vec![("close-code", code.to_string().into_bytes()), ("close-reason", reason.to_vec())];
    pass.executor.know(facts, None);
    finish_with(pass, slot, closed::PEER, Farewell { code, reason: "" });
    pass.executor.know(Vec::new(), None);
}
