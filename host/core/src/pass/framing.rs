//! Framing: what a session's framing does beside cutting messages.
//!
//! A framing may answer by itself, tell an event, refuse the input, and keep a few bytes of state
//! with the session. A reply and the state that says that the reply was given become valid with
//! the same commit. An event is an action that comes before the next frame.
//!
//! Messages of most framings meet none of this.

use super::Pass;
use super::close::finish;
use crate::effects::action_record::{Data, PendingAction};
use crate::effects::inbox::{Inbox, RunningBatch};
use crate::execute::batch::cut_failed;
use crate::framing::Framing;
use crate::framing::frame::{FrameEvent, FrameState, Refusal};
use crate::host_state::HostState;
use crate::host_state::deliver::deliver;
use crate::host_state::notice::{limit_reached, notice};
use crate::host_state::output::{note_overflow, pause_if_full, send};
use crate::ids::Slot;
use crate::limits::names::Limit;
use crate::session::output::OutputWriter;
use crate::store::kind::Kind;
use greenroom_state::abi::{closed, level};

/// Returns whether the code of a session's service cuts its messages.
pub(super) fn calls_code(host: &HostState, slot: Slot) -> bool {
    let service = host.sessions.get(slot).map(|s| &host.services[s.service]);
    service.is_some_and(|s| matches!(s.offer.framing, Framing::Custom { .. }))
}

/// Sends what the session's framing answers by itself, and lets its event wait for the session's
/// turn. The reply is output like any other: sent after the commit, and counted against the output
/// limits. Returns the number of events. `None`: there is no room, and the session is closed.
///
/// The event is an action that comes before the next frame, so it survives a death like any other.
/// A build that does not know its kind never gets it.
pub(super) fn answer(pass: &mut Pass<'_>, slot: Slot) -> Option<usize> {
    let event = pass.scratch.cut.take_event();
    let (host, reply) = (&mut *pass.host, pass.scratch.cut.reply());
    let service = host.sessions.get(slot).map(|s| &host.services[s.service])?;
    let event = event.filter(|e| service.code.knows(e.kind));
    let reply_room = (!reply.is_empty()).then(|| OutputWriter::record_bytes(reply.len()));
    let event_room = event.as_ref().map(|e| Inbox::record_bytes(0, e.data.len()));
    if !host.store.reserve(reply_room.into_iter().chain(event_room)) {
        let what = "closed: no room for a reply of its framing";
        limit_reached(host, Limit::StoreBytesMax, level::WARN, slot, what);
        finish(pass, slot, closed::LIMIT);
        return None;
    }
    if !reply.is_empty() {
        send(host, slot, reply);
        pause_if_full(host, slot);
        note_overflow(host, slot);
    }
    let events = usize::from(event.is_some());
    if let Some(FrameEvent { kind, detail, data }) = event {
        let (data, name) = (Data::Own(&data), "");
        let action = PendingAction { kind, detail, from: 0, depth: 0, name, data };
        deliver(host, slot, &action, &RunningBatch::default());
    }
    Some(events)
}

/// Tells operators why a session's input is refused. If its library's own framing is at fault, that
/// counts as a failed turn does.
pub(super) fn refused(pass: &mut Pass<'_>, slot: Slot, why: &str) {
    let host = &mut *pass.host;
    match pass.scratch.cut.take_refusal() {
        None => notice(host, level::INFO, slot, format!("closed: {why}")),
        Some(Refusal { reason, is_fault: false }) => {
            notice(host, level::INFO, slot, format!("closed: its framing refuses the input: {reason}"));
        }
        Some(Refusal { reason, is_fault: true }) => {
            notice(host, level::ERROR, slot, format!("closed: its framing failed: {reason}"));
            cut_failed(host, slot, format!("its framing failed: {reason}"));
        }
    }
}

/// Begins a session's framing anew if its service has another framing than the one that left
/// the state. Kept input stays: the new framing cuts it from its beginning.
///
/// A successor does not know which framing left the state. Stored bytes tell by their first
/// byte which framing they are of; a framing that stores nothing left none.
pub(super) fn follow_framing(host: &mut HostState, slot: Slot) {
    let Some(s) = host.sessions.get_mut(slot) else { return };
    let service = &host.services[s.service];
    // Counts changes of the framing in this process. Recovered sessions and services begin at
    // 0.
    let is_same = std::mem::replace(&mut s.framings, service.framings) == service.framings;
    if !is_same || (service.offer.framing.cuts_slices() && !s.frame.stored().is_empty()) {
        s.frame = FrameState::default();
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
    // A session that has negotiated something keeps the same bytes for long.
    if sessions.framing_record(slot).is_some_and(|r| store.read(r, |b| b == stored)) {
        return true;
    }
    if !store.reserve([stored.len()]) {
        return false;
    }
    match store.put(sessions.framing_record(slot), Kind::Framing, s.id, stored) {
        Ok(r) => sessions.set_framing_record(slot, r),
        Err(_) => return false,
    }
    true
}
