//! Close: last turn, remaining output, end of stream. The table is in [`crate::session::life`].

use super::Pass;
use crate::command::Command;
use crate::execute::batch::run_batch;
use crate::host_state::end::{drop_owned, flushed, gone, set_deadline};
use crate::host_state::notice::{limit_reached, notice};
use crate::ids::Slot;
use crate::limits::names::Limit;
use crate::session::life::Life;
use greenroom_state::abi::{Action, Bytes, action, closed, level};

/// Closes an open session: its last turn, then its output, then our end of the stream. `reason` is
/// one of [`closed`].
pub(crate) fn finish(pass: &mut Pass<'_>, slot: Slot, reason: u32) {
    last_turn(pass, slot, reason);
    let host = &mut *pass.host;
    let Some(s) = host.sessions.get(slot) else { return };
    if s.unsent() == 0 {
        flushed(host, slot);
    } else {
        let limits = host.limits.host();
        let wait_ms = if host.stopping { limits.stop_ms } else { limits.drain_ms };
        set_deadline(host, slot, wait_ms);
    }
}

/// Runs the turn that tells the handler of the end, and drops all that the session shares or owns,
/// but for its output.
pub(super) fn last_turn(pass: &mut Pass<'_>, slot: Slot, reason: u32) {
    let host = &mut *pass.host;
    let Some(s) = host.sessions.get_mut(slot) else { return };
    if s.life != Life::Open {
        let message = format!("asked to close it in life {:?}", s.life);
        return notice(host, level::ERROR, slot, message);
    }
    s.life = Life::Draining;
    host.sessions.touch(slot);
    let last = Action { detail: reason, ..Action::new(action::CLOSED, Bytes::EMPTY) };
    run_batch(host, pass.executor, slot, &[last], &mut pass.scratch.running);
    let Some(s) = host.sessions.get_mut(slot) else { return };
    let on = s.subscriptions.take().unwrap_or_default();
    for topic in &on.topics {
        host.topics.remove(topic, slot);
    }
    if let Some(r) = on.record {
        host.store.delete(r);
    }
    s.drop_input(&mut host.store);
    if let Some(r) = host.sessions.take_framing_record(slot) {
        host.store.delete(r);
    }
    drop_owned(host, slot);
}

/// Closes the sessions whose output grew over its limit. Their last turns may make others grow.
pub(crate) fn close_overflowed(pass: &mut Pass<'_>) {
    while let Some(slot) = pass.host.send_queue.pop_overflowed() {
        let host = &mut *pass.host;
        let Some(s) = host.sessions.get(slot) else { continue };
        let open = s.life == Life::Open;
        let what = format!("closed: {} bytes of output never taken", s.unsent());
        limit_reached(host, Limit::OutputBytesMax, level::WARN, slot, &what);
        if let Some(s) = host.sessions.get_mut(slot) {
            s.drop_output(&mut host.store, &mut host.shared);
        }
        if open {
            last_turn(pass, slot, closed::LIMIT);
        }
        pass.host.commands.push(Command::Reset(slot));
        gone(pass.host, slot);
    }
}

/// Gives every open session its last turn: the host stops.
pub(crate) fn stop(pass: &mut Pass<'_>) {
    pass.host.stopping = true;
    for slot in pass.host.sessions.slots().collect::<Vec<_>>() {
        if pass.host.sessions.get(slot).is_some_and(|s| s.life == Life::Open) {
            finish(pass, slot, closed::STOPPING);
        }
    }
}

/// Closes a session that an operator names, after its last turn. The error says why it can't.
pub(crate) fn close(pass: &mut Pass<'_>, id: u64) -> Result<(), String> {
    let slot = pass.host.sessions.slot_of(id).filter(|slot| !slot.is_service());
    let slot = slot.ok_or_else(|| format!("no session has number {id}"))?;
    if pass.host.sessions.get(slot).is_none_or(|s| s.life != Life::Open) {
        return Err(format!("session {id} is closing already"));
    }
    finish(pass, slot, closed::OPERATOR);
    Ok(())
}
