//! End of a session: all that it owns is dropped, and the session is forgotten.
//!
//! The stages of a session's end are in [`crate::pass::close`]; these are the steps without a
//! turn. [`gone`] deletes all records of a session in one pass, so a successor finds the session
//! or nothing of it. The shell closes the connection after that commit.

use super::HostState;
use super::framings::leave_framings;
use super::state::leave_topics;
use crate::command::Command;
use crate::ids::Slot;
use crate::session::blocked::Blocked;
use crate::session::life::Life;

/// Milliseconds that peers are waited for while the host stops, after our end is shut. Short, as
/// a stop waits for the slowest of them.
const STOP_LINGER_MS: u64 = 250;

/// Shuts our end of a draining session whose output is out. If the peer is done already, the
/// session is forgotten at once. Otherwise it lingers until the peer is done, or for
/// `linger_ms`.
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

/// Sets the deadline of a session that drains or lingers, from the time of this pass.
pub(crate) fn set_deadline(host: &mut HostState, slot: Slot, in_ms: u64) {
    host.sessions.set_deadline(slot, host.now_ns + in_ms * 1_000_000);
}

/// Forgets a session and its records. O(what the session owns). Runs no turn: the last turn was
/// before, or there is none. Cannot fail, as deletions need no room.
pub(crate) fn gone(host: &mut HostState, slot: Slot) {
    if let Some(s) = host.sessions.get_mut(slot) {
        s.drop_output(&mut host.store, &mut host.shared);
    }
    // Before the session is removed: its number leads to what it owns.
    drop_owned(host, slot);
    leave_topics(host, slot);
    let Some(s) = host.sessions.remove(slot) else { return };
    host.quarantines.forget(s.id);
    let framing = host.sessions.take_framing_record(slot);
    if s.over_tls() {
        host.tls.forget(&mut host.store, slot);
    }
    host.tls_due.forget(&mut host.store, slot);
    host.sockets.forget(&mut host.store, slot);
    leave_framings(host, &s);
    for r in [s.record, s.state, s.input, framing].into_iter().flatten() {
        host.store.delete(r);
    }
    let service = &mut host.services[s.service];
    service.count_session(s.id, false);
    // Builds that convert are kept for versions that some session holds.
    service.count_stored(s.state_version, 0);
    host.commands.push(Command::Close { slot, id: s.id });
}

/// Drops what a session that ends holds, has started, and what waits for it: names, actions,
/// timers, jobs, connections, its quarantine, the tail of its input. Sessions that wait for its
/// output go on. Repeatable.
pub(crate) fn drop_owned(host: &mut HostState, slot: Slot) {
    host.inbox.drop_all(&mut host.store, &mut host.shared, slot);
    let Some((id, service)) = host.sessions.get(slot).map(|s| (s.id, s.service)) else { return };
    host.names.drop_all(&mut host.store, service, slot);
    host.sessions.drop_input_tail(&mut host.store, slot);
    host.sessions.drop_terms(&mut host.store, slot);
    host.timers.drop_all(&mut host.store, id);
    drop_jobs(host, id);
    host.flow.forget(&mut host.store, slot);
    let waiting = host.flow.release(&mut host.store, slot);
    let_go_on(host, waiting);
    let dropped = host.outbound.drop_all(&mut host.store, id);
    host.commands.extend(dropped.into_iter().map(Command::GiveUpConnect));
    end_quarantine(host, slot);
}

/// Drops all jobs of an owner. O(its jobs + log jobs).
fn drop_jobs(host: &mut HostState, owner: u64) {
    for number in host.jobs.numbers(owner) {
        drop_job(host, number);
    }
}

/// Drops a job. If it runs, its thread is told after the commit that the result is unwanted.
pub(crate) fn drop_job(host: &mut HostState, number: u64) {
    if host.jobs.drop_one(&mut host.store, number) {
        host.commands.push(Command::CancelJob(number));
    }
}

/// Lets sessions go on that waited for another session's output. Their kept input runs with the
/// next pass.
pub(crate) fn let_go_on(host: &mut HostState, waiting: Vec<Slot>) {
    for slot in waiting {
        if let Some(s) = host.sessions.get_mut(slot) {
            s.block(Blocked::OtherSessionsOutput, false);
        }
        host.sessions.resume(slot);
    }
}

/// Ends a session's quarantine: another build serves, or the session has ended. Deletes its
/// record. A caller that keeps the session resumes it.
pub(crate) fn end_quarantine(host: &mut HostState, slot: Slot) {
    host.quarantines.remove(slot);
    let Some(s) = host.sessions.get_mut(slot) else { return };
    // Actions that were blocked at the start of this worker may run: they were blocked for the
    // build that served then. A last turn stays blocked.
    host.quarantines.unblock(s.id);
    if let Some(record) = s.take_quarantine().and_then(|q| q.record) {
        host.store.delete(record);
    }
}
