//! Begin: deadlines, due timers, sessions whose input resumes.

use super::Pass;
use super::receive::{run_kept_input, wants_input};
use super::timeout::{on_timeout, rearm_timeouts};
use crate::command::Command;
use crate::host_state::HostState;
use crate::host_state::end::gone;
use crate::host_state::notice::limit_reached;
use crate::host_state::output::is_full;
use crate::ids::Slot;
use crate::limits::names::Limit;
use crate::session::blocked::Blocked;
use crate::session::life::Life;
use greenroom_state::abi::level;

/// Timers that a pass fires. The rest waits for the next pass.
const FIRED_PER_PASS: usize = 4096;

/// Runs what is due at the beginning of a pass. `assembly`: memory for kept input.
pub(crate) fn begin(pass: &mut Pass<'_>, rearm_from: &mut Option<u64>, assembly: &mut Vec<u8>) {
    let now_ns = pass.host.now_ns;
    while let Some(slot) = pass.host.sessions.pop_due(now_ns) {
        match pass.host.sessions.get(slot).map(|s| s.life) {
            Some(Life::Open) => on_timeout(pass, slot),
            Some(life) => end_in_time(pass.host, slot, life),
            None => {}
        }
    }
    fire_timers(pass.host);
    rearm_timeouts(pass.host, rearm_from);
    for slot in pass.host.sessions.take_resumed() {
        let full = is_full(pass.host, slot);
        if let Some(s) = pass.host.sessions.get_mut(slot) {
            s.block(Blocked::OutputFull, full);
            s.block(Blocked::ShareUsed, false);
            s.block(Blocked::ResumesNextPass, false);
        }
        run_kept_input(pass, slot, assembly);
        if wants_input(pass.host, slot) && !slot.is_service() {
            pass.host.commands.push(Command::Resume(slot));
        }
    }
}

/// Ends a draining or lingering session whose time is up.
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

/// Turns timers that are due into actions.
fn fire_timers(host: &mut HostState) {
    for _ in 0..FIRED_PER_PASS {
        let Some((owner, record)) = host.timers.pop_due(&host.store, host.now_ns) else { return };
        match host.sessions.slot_of(owner) {
            Some(slot) => host.inbox.put_due(slot, record),
            None => host.store.delete(record),
        }
    }
}
