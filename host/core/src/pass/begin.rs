//! Begin: deadlines, due timers, sessions whose input resumes.
//!
//! The stage is the first of a pass, before anything that the shell reads in it. A due timer
//! becomes a waiting action here, and its turn comes in `deliver` or before its session's next
//! frame. A timer is one record until that turn is committed, so a crash in between fires it
//! again.
//!
//! Deadlines, sessions that resume, and entries of tables to delete have a budget each
//! ([`crate::limits::budget`]); the rest comes with the next pass. Timers and changed limits are
//! taken in portions, a few thousand in each pass.

use super::Pass;
use super::close::go_on_stopping;
use super::receive::{run_kept_input, wants_input};
use super::reclaim::{expire, reclaim};
use super::timeout::{on_timeout, rearm_timeouts};
use crate::command::Command;
use crate::effects::job_shares::RunningJob;
use crate::host_state::HostState;
use crate::host_state::end::gone;
use crate::host_state::notice::limit_reached;
use crate::host_state::output::is_full;
use crate::ids::{Slot, public_number};
use crate::limits::budget::SESSION_NS;
use crate::limits::names::Limit;
use crate::session::blocked::Blocked;
use crate::session::life::Life;
use greenroom_state::abi::level;

/// Timers that one pass turns into actions, at most. The others stay due, so the next pass
/// comes at once.
const FIRED_PER_PASS: usize = 4096;
/// Runs what is due at the beginning of a pass. `assembly` is memory for kept input.
///
/// `rearm_from` is the number of the last session whose deadline followed changed limits;
/// `None`: all have.
pub(crate) fn begin(pass: &mut Pass<'_>, rearm_from: &mut Option<u64>, assembly: &mut Vec<u8>) {
    // A pass in which a deadline comes reads first, and the next one judges: the host may have
    // stood still while the peer spoke or took output in time.
    let heard_until_ns = pass.host.heard_until_ns;
    // Deadlines come first: a session that is closed here runs no kept input below.
    pass.host.begin_stage();
    while !pass.host.stage_is_over()
        && let Some(slot) = pass.host.sessions.pop_due(heard_until_ns)
    {
        pass.host.budget.spend(SESSION_NS);
        match pass.host.sessions.get(slot).map(|s| s.life) {
            Some(Life::Open) => on_timeout(pass, slot),
            Some(life) => end_in_time(pass.host, slot, life),
            None => {}
        }
    }
    fire_timers(pass.host);
    name_late_jobs(pass.host);
    rearm_timeouts(pass.host, rearm_from);
    go_on_stopping(pass);
    // A session that woke itself has that turn before its next message.
    let HostState { inbox, sessions, .. } = &mut *pass.host;
    let woken = inbox.begin_pass(|slot| sessions.get(slot).is_some_and(|s| s.unsent() == 0));
    for slot in woken {
        sessions.resume(slot);
    }
    reclaim(pass.host);
    expire(pass.host);
    pass.host.begin_stage();
    // Sessions that are listed again by these turns wait for the next pass, behind those that this
    // one leaves.
    for _ in 0..pass.host.sessions.resumed() {
        if pass.host.stage_is_over() {
            break;
        }
        let Some(slot) = pass.host.sessions.pop_resumed() else { break };
        pass.host.budget.spend(SESSION_NS);
        // More output may have come since the session was listed. Then it stays blocked, and
        // `sent` lists it again once the peer has taken enough.
        let full = is_full(pass.host, slot);
        let now_ns = pass.host.now_ns;
        // The host let the peer wait, so its silence begins here.
        if pass.host.sessions.get(slot).is_some_and(|s| !s.expects_peer()) {
            pass.host.sessions.begin_silence(slot, now_ns);
        }
        pass.host.sessions.begins_to_run(slot);
        if let Some(s) = pass.host.sessions.get_mut(slot) {
            s.block(Blocked::OutputFull, full);
            s.block(Blocked::ShareUsed, false);
            // Cleared before the input runs: a session that uses up its share must get on the
            // list again.
            s.block(Blocked::ResumesNextPass, false);
        }
        run_kept_input(pass, slot, assembly);
        // The poll reports edges: bytes that arrived while the session was blocked are not
        // reported again.
        if wants_input(pass.host, slot) && !slot.is_service() {
            pass.host.commands.push(Command::Resume(slot));
        }
    }
    // What the shell reads has a budget of its own.
    pass.host.begin_stage();
}

/// Ends a draining or lingering session whose time is up. Output that a draining session has
/// left is dropped, and operators are told how much.
fn end_in_time(host: &mut HostState, slot: Slot, life: Life) {
    if life == Life::Draining {
        let unsent = host.sessions.get(slot).map_or(0, |s| s.unsent());
        let what = format!("closed with {unsent} bytes of output never taken");
        let limit = if host.stopping { Limit::StopMs } else { Limit::DrainMs };
        limit_reached(host, limit, level::INFO, slot, &what);
    } else {
        host.limits.reached(Limit::LingerMs);
    }
    gone(host, slot);
}

/// Turns timers that are due into waiting actions, up to a limit. A record without an owner is
/// deleted.
fn fire_timers(host: &mut HostState) {
    for _ in 0..FIRED_PER_PASS {
        let Some((owner, record)) = host.timers.pop_due(&host.store, host.now_ns) else { return };
        match host.sessions.slot_of(owner) {
            // The timer's own record waits, so firing writes nothing and cannot fail.
            Some(slot) => host.inbox.put_due(&host.store, slot, record),
            None => host.store.delete(record),
        }
    }
}

/// Tells operators of the jobs that have been running for `job_warn_ms`, once of each.
fn name_late_jobs(host: &mut HostState) {
    let ms = host.limits.host().job_warn_ms;
    while let Some(late) = host.jobs.shares.take_late(host.now_ns, ms) {
        host.limits.reached(Limit::JobWarnMs);
        let RunningJob { service, owner, name, dropped, .. } = late;
        let rest = if dropped { ", and no session waits for it" } else { "" };
        let message = format!("job {name} has been running for {ms} ms{rest} ({})", Limit::JobWarnMs);
        let session = public_number(owner);
        host.commands.push(Command::Notice { level: level::WARN, service, session, message });
    }
}
