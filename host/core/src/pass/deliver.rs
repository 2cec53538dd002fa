//! Deliver: waiting actions get their turns.
//!
//! A session's actions come before the next frame that it was sent. Other sessions' actions run
//! before the pass is committed, unless there are too many: then they go on in the next one.

use super::close::finish;
use super::{Pass, Scratch};
use crate::execute::batch::run_batch;
use crate::host_state::output::{note_overflow, pause_if_full};
use crate::ids::Slot;
use greenroom_state::abi::closed;

/// Turns that a pass runs of waiting actions. The rest waits for the next pass, behind everybody's
/// input.
const DELIVERED_PER_PASS: usize = 4096;

/// Runs waiting actions, of this pass or an earlier one, and timers that are due, up to a limit.
pub(crate) fn deliver_group(pass: &mut Pass<'_>) {
    let mut left = DELIVERED_PER_PASS;
    let replays = pass.executor.set_replays_aside();
    let mut rounds = pass.host.inbox.ready_len() + DELIVERED_PER_PASS;
    while left > 0 && rounds > 0 && !pass.executor.replays_exhausted() {
        rounds -= 1;
        let Some(ready) = pass.host.inbox.pop_ready() else { break };
        let Some(slot) = ready else { continue };
        left = left.saturating_sub(run_some(pass, slot));
        ready_again(pass, slot);
        finish_if_peer_done(pass, slot);
    }
    pass.executor.add_replays(replays);
}

/// Runs all actions that wait for one session.
pub(super) fn run_waiting(pass: &mut Pass<'_>, slot: Slot) {
    while pass.host.inbox.has(slot)
        && !pass.executor.replays_exhausted()
        && !pass.host.send_queue.has_overflowed(slot)
    {
        if run_some(pass, slot) == 0 {
            break;
        }
    }
    ready_again(pass, slot);
}

fn may_run(pass: &Pass<'_>, slot: Slot) -> bool {
    pass.host.sessions.get(slot).is_some_and(|s| s.may_run_actions())
}

/// Lists a session again whose actions may run. A session that waits says so when it goes on.
fn ready_again(pass: &mut Pass<'_>, slot: Slot) {
    if may_run(pass, slot) {
        pass.host.inbox.set_ready(slot);
    }
}

/// Runs some actions of a session. Returns how many it has done.
fn run_some(pass: &mut Pass<'_>, slot: Slot) -> usize {
    if !may_run(pass, slot) || !pass.host.inbox.has(slot) {
        return 0;
    }
    let host = &mut *pass.host;
    let Scratch { copied, running, .. } = &mut *pass.scratch;
    host.inbox.copy_batch(&host.store, &host.shared, slot, copied, running);
    host.sessions.touch(slot);
    if slot.is_service()
        && let Some(s) = host.sessions.get_mut(slot)
        && let Some(turn) = copied.turn_name(host.services[s.service].generation())
    {
        s.turns = turn;
    }
    let ran = run_batch(host, pass.executor, slot, &copied.actions(), running);
    running.end();
    host.inbox.drop_oldest(&mut host.store, &mut host.shared, slot, ran.consumed);
    pause_if_full(host, slot);
    note_overflow(host, slot);
    if ran.close {
        finish(pass, slot, closed::HANDLER);
    }
    ran.consumed
}

/// Closes a session whose peer has ended its side. The peer's last frames, and the actions that
/// wait, come before: a session that is blocked keeps them for later.
pub(super) fn finish_if_peer_done(pass: &mut Pass<'_>, slot: Slot) {
    let may_end = |pass: &Pass<'_>| pass.host.sessions.get(slot).is_some_and(|s| s.may_end());
    if may_end(pass) && pass.host.inbox.has(slot) {
        run_waiting(pass, slot);
    }
    if may_end(pass) && !pass.host.inbox.has(slot) {
        finish(pass, slot, closed::PEER);
    }
}
