//! Forgets a session, and all it owns. The stages of a session's end are in [`crate::pass::close`].

use super::HostState;
use crate::command::Command;
use crate::ids::Slot;
use crate::session::blocked::Blocked;
use crate::session::life::Life;

/// Milliseconds that peers are waited for while the host stops, after our end is shut.
const STOP_LINGER_MS: u64 = 250;

/// Shuts our end of a draining session whose output is out; closes it if the peer is done.
pub(crate) fn flushed(host: &mut HostState, slot: Slot) {
    let Some(s) = host.sessions.get_mut(slot) else { return };
    if s.peer_done {
        return gone(host, slot);
    }
    s.life = Life::Lingering;
    host.sessions.touch(slot);
    host.commands.push(Command::Shutdown(slot));
    let wait_ms = if host.stopping { STOP_LINGER_MS } else { host.limits.host().linger_ms };
    set_deadline(host, slot, wait_ms);
}

/// Sets the deadline of a session that drains or lingers.
pub(crate) fn set_deadline(host: &mut HostState, slot: Slot, in_ms: u64) {
    host.sessions.set_deadline(slot, host.now_ns + in_ms * 1_000_000);
}

/// Forgets a session and its records. O(what it owns).
pub(crate) fn gone(host: &mut HostState, slot: Slot) {
    if let Some(s) = host.sessions.get_mut(slot) {
        s.drop_output(&mut host.store, &mut host.shared);
    }
    drop_owned(host, slot);
    let Some(s) = host.sessions.remove(slot) else { return };
    host.quarantines.forget(s.id);
    let topics = s.subscriptions.as_ref().and_then(|on| on.record);
    let framing = host.sessions.take_framing_record(slot);
    for r in [s.record, s.state, s.input, framing, topics].into_iter().flatten() {
        host.store.delete(r);
    }
    let service = &mut host.services[s.service];
    service.sessions -= 1;
    service.count_stored(s.state_version, 0);
    host.commands.push(Command::Close { slot, id: s.id });
}

/// Drops what a session that ends has started and what waits for it: actions, timers, jobs,
/// connections, its quarantine.
pub(crate) fn drop_owned(host: &mut HostState, slot: Slot) {
    host.inbox.drop_all(&mut host.store, &mut host.shared, slot);
    let Some(id) = host.sessions.get(slot).map(|s| s.id) else { return };
    host.timers.drop_all(&mut host.store, id);
    drop_jobs(host, id);
    let waiting = host.flow.release(slot);
    let_go_on(host, waiting);
    host.outbound.drop_all(&mut host.store, id);
    end_quarantine(host, slot);
}

fn drop_jobs(host: &mut HostState, owner: u64) {
    if host.jobs.len() == 0 {
        return;
    }
    for number in host.jobs.numbers(owner) {
        drop_job(host, number);
    }
}

/// Drops a job, and tells its thread if it runs.
pub(crate) fn drop_job(host: &mut HostState, number: u64) {
    if host.jobs.drop_one(&mut host.store, number) {
        host.commands.push(Command::CancelJob(number));
    }
}

/// Lets sessions go on that waited for another session's output.
pub(crate) fn let_go_on(host: &mut HostState, waiting: Vec<Slot>) {
    for slot in waiting {
        if let Some(s) = host.sessions.get_mut(slot) {
            s.block(Blocked::OtherSessionsOutput, false);
        }
        host.sessions.resume(slot);
    }
}

/// Ends a session's quarantine: another build serves, or the session has ended.
pub(crate) fn end_quarantine(host: &mut HostState, slot: Slot) {
    host.quarantines.remove(slot);
    let Some(s) = host.sessions.get_mut(slot) else { return };
    // The process that started this one may block its actions again.
    host.quarantines.unblock(s.id);
    if let Some(record) = s.take_quarantine().and_then(|q| q.record) {
        host.store.delete(record);
    }
}
