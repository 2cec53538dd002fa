//! Framing: what a session's framing does beside cutting messages.
//!
//! A framing may answer by itself, tell an event, refuse the input, and keep a few bytes of state
//! with the session. A reply and the state that says that the reply was given become valid with
//! the same commit. An event is an action that comes before the next frame.
//!
//! Messages of most framings meet none of this.

use super::Pass;
use super::close::finish;
use super::reply::send_framing;
use crate::effects::action_record::{Data, PendingAction};
use crate::effects::inbox::Inbox;
use crate::effects::running_batch::RunningBatch;
use crate::execute::batch::cut_failed;
use crate::framing::Framing;
use crate::framing::frame::{CutRefusal, FrameEvent};
use crate::host_state::HostState;
use crate::host_state::deliver::deliver;
use crate::host_state::notice::{limit_reached, notice};
use crate::ids::Slot;
use crate::limits::names::Limit;
use crate::store::kind::Kind;
use greenroom_state::abi::{closed, fault, level};

/// Returns whether the code of a session's service cuts its messages.
pub(super) fn calls_code(host: &HostState, slot: Slot) -> bool {
    let framing = host.sessions.get(slot).map(|s| host.services[s.service].framings.get(s.framing));
    framing.is_some_and(Framing::calls_code)
}

/// Sends what the session's framing answers by itself, and lets its event wait for the session's
/// turn. Returns the number of events. `None`: there is no room, and the session is closed.
///
/// The event is an action that comes before the next frame, so it survives a death like any other.
/// A build that does not know its kind never gets it.
pub(super) fn reply_and_tell(pass: &mut Pass<'_>, slot: Slot) -> Option<usize> {
    let (event, reply) = (pass.scratch.cut.take_event(), pass.scratch.cut.take_reply());
    if !reply.is_empty() && !send_framing(pass, slot, &reply) {
        return None;
    }
    let host = &mut *pass.host;
    let code = host.sessions.get(slot).map(|s| host.services[s.service].build_of(s.id).code)?;
    let Some(FrameEvent { kind, detail, data }) = event.filter(|e| code.knows(e.kind)) else {
        return Some(0);
    };
    if !host.store.reserve([Inbox::record_bytes(0, data.len())]) {
        let what = "closed: no room for an event of its framing";
        limit_reached(host, Limit::StoreBytesMax, level::WARN, slot, what);
        finish(pass, slot, closed::LIMIT);
        return None;
    }
    let (data, name) = (Data::Own(&data), b"");
    let action = PendingAction { kind, detail, from: 0, depth: 0, name, data };
    deliver(host, slot, &action, &RunningBatch::default());
    Some(1)
}

/// Tells operators why a session's input is refused. If its library's own framing is at fault, that
/// counts as a failed turn does.
pub(super) fn refused(pass: &mut Pass<'_>, slot: Slot, why: &str) {
    let host = &mut *pass.host;
    // Other framings leave the words of an earlier cut alone.
    let refusal = calls_code(host, slot).then(|| pass.scratch.cut.take_refusal());
    match refusal.flatten() {
        None => notice(host, level::INFO, slot, format!("closed: {why}")),
        Some(CutRefusal { reason, is_fault: false }) => {
            notice(host, level::INFO, slot, format!("closed: its framing refuses the input: {reason}"));
        }
        Some(CutRefusal { reason, is_fault: true }) => {
            notice(host, level::ERROR, slot, format!("closed: its framing failed: {reason}"));
            cut_failed(host, slot, fault::ERROR, format!("its framing failed: {reason}"));
        }
    }
}

/// Keeps what a session's framing stores; most store nothing. False: there is no room for it,
/// and the old record stays.
pub(super) fn keep_framing(host: &mut HostState, slot: Slot) -> bool {
    let HostState { sessions, store, .. } = host;
    let Some(s) = sessions.get(slot) else { return true };
    let stored = s.frame.stored();
    if stored.is_empty() {
        if let Some(r) = sessions.take_framing_record(slot) {
            store.delete(r);
        }
        return true;
    }
    // A session that has negotiated something keeps the same bytes for long, as one of WebSocket
    // does.
    let kept = sessions.framing_record(slot);
    if kept.is_some_and(|r| store.read(r, |b| b == stored)) {
        return true;
    }
    if !store.reserve([stored.len()]) {
        return false;
    }
    match store.put(kept, Kind::Framing, s.id, stored) {
        Ok(r) => sessions.set_framing_record(slot, r),
        Err(_) => return false,
    }
    true
}
