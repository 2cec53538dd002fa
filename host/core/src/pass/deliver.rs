//! Deliver: waiting actions get their turns.
//!
//! A session's actions come before the next frame that it was sent. Other sessions' actions run
//! before the pass is committed, unless there are too many: then they go on in the next one. So
//! a message and the notes that it causes are mostly one commit.
//!
//! Each action is a record until its turn is committed, and goes in that very commit. A death
//! before it runs the action again, and nothing of the first time was seen.
//!
//! Costs: O(actions that run), and their turns; at most about 4,096 turns in one pass, and the
//! budget of the stage.

use super::close::finish;
use super::handshake::closed_by_peer;
use super::open::awaits_peer;
use super::{Pass, Scratch};
use crate::effects::action_buffer::ActionBuffer;
use crate::effects::action_name::action_name;
use crate::effects::action_record::CLOSE_ASKED;
use crate::effects::timers::Timers;
use crate::execute::watched::run_batch;
use crate::host_state::HostState;
use crate::host_state::notice::notice;
use crate::host_state::output::{note_overflow, pause_if_full, release_waiting};
use crate::host_state::tls::is_cut;
use crate::ids::Slot;
use crate::session::life::Session;
use greenroom_state::abi::{action, closed, level};

/// Turns that a pass runs of waiting actions, about; the last batch may go beyond. The rest
/// waits for the next pass, behind the input that arrives by then.
const DELIVERED_PER_PASS: usize = 4096;
/// Time after which a service's timer comes again that was left out, in nanoseconds.
const TRY_LATER_NS: u64 = 5_000_000_000;

/// Runs waiting actions, of this pass or an earlier one, and timers that are due, up to a
/// limit. Runs before each commit, behind the input.
pub(crate) fn deliver_group(pass: &mut Pass<'_>) {
    let mut left = DELIVERED_PER_PASS;
    // Input that fails again and again must not stop the actions of other sessions.
    let replays = pass.executor.set_replays_aside();
    // Each round takes one entry of the list. A session whose actions are not consumed is
    // listed again, so a limit on turns alone would not end the loop.
    let mut rounds = pass.host.inbox.ready_len() + DELIVERED_PER_PASS;
    pass.host.begin_stage();
    while left > 0 && rounds > 0 && !pass.executor.replays_exhausted() && !pass.host.stage_is_over() {
        rounds -= 1;
        // `None` inside: its actions are gone since the session was listed.
        let Some(ready) = pass.host.inbox.pop_ready() else { break };
        let Some(slot) = ready else { continue };
        left = left.saturating_sub(run_some(pass, slot));
        ready_again(pass, slot);
        finish_if_peer_done(pass, slot);
    }
    pass.executor.add_replays(replays);
}

/// Runs the actions that wait for one session. Ends early if they may not run, if the stage is
/// over, or if the session's output is over its limit: it is closed behind this input. The rest
/// runs in `deliver`.
pub(super) fn run_waiting(pass: &mut Pass<'_>, slot: Slot) {
    while pass.host.inbox.has(slot) && !pass.executor.replays_exhausted() && !pass.host.stage_is_over() {
        if run_some(pass, slot) == 0 {
            break;
        }
    }
    ready_again(pass, slot);
}

/// Returns whether actions of a session may run: it is open, not quarantined, and had its first
/// turn.
fn may_run(pass: &Pass<'_>, slot: Slot) -> bool {
    // A host that stops gives sessions their last turns and no others.
    let may_run = |s: &Session| s.may_run_actions() && (!pass.host.stopping || slot.is_service());
    pass.host.sessions.get(slot).is_some_and(may_run)
}

/// Lists a session again whose actions may run. A session that waits says so when it goes on.
fn ready_again(pass: &mut Pass<'_>, slot: Slot) {
    if may_run(pass, slot) {
        pass.host.inbox.set_ready(slot);
    }
}

/// Runs one batch of a session's actions. Returns how many it has consumed; 0 if none may run.
fn run_some(pass: &mut Pass<'_>, slot: Slot) -> usize {
    if !may_run(pass, slot) || !pass.host.inbox.has_due(slot) {
        return 0;
    }
    let host = &mut *pass.host;
    let Scratch { copied, running, .. } = &mut *pass.scratch;
    host.inbox.copy_batch(&host.store, &host.shared, slot, copied, running);
    if let Some(dropped) = without_turn(host, slot, copied) {
        running.end();
        host.inbox.drop_oldest(&mut host.store, &mut host.shared, slot, dropped);
        if copied.kind() == CLOSE_ASKED {
            finish(pass, slot, closed::HANDLER);
        }
        return dropped;
    }
    // The record counts the session's turns: that count names the next action after a death.
    host.sessions.touch(slot);
    // A service's own turns have names in place of a count, since no record keeps their count.
    if slot.is_service()
        && let Some(s) = host.sessions.get_mut(slot)
        && let Some(turn) = copied.turn_name(host.services[s.service].generation())
    {
        s.turns = turn;
    }
    let ran = run_batch(host, pass.executor, slot, &copied.actions(), running);
    running.end();
    if ran.left_out && copied.kind() == action::TIMER {
        try_later(host, slot, copied.first_name());
    }
    // Deleted in the commit that holds the effects of their turns: each action counts once.
    host.inbox.drop_oldest(&mut host.store, &mut host.shared, slot, ran.consumed);
    pause_if_full(host, slot);
    // These actions may be all that others waited for: perhaps no output follows from them.
    release_waiting(host, slot);
    // Others cause these turns, so a pause of the session's own input does not bound their
    // output.
    note_overflow(host, slot);
    if ran.close {
        finish(pass, slot, closed::HANDLER);
    }
    ran.consumed
}

/// Sets a timer of a service again whose turn was left out: the next build may be better. Without
/// room the timer is gone, and operators were told of it.
fn try_later(host: &mut HostState, slot: Slot, name: &[u8]) {
    let (Some(id), Ok(name)) = (host.sessions.get(slot).map(|s| s.id), std::str::from_utf8(name)) else {
        return;
    };
    // One that was set meanwhile is newer.
    if !host.timers.contains(id, name) && host.store.reserve([Timers::record_bytes(name.len())]) {
        host.timers.set(&mut host.store, id, name, host.now_ns + TRY_LATER_NS);
    }
}

/// Returns the number of actions that have no turn: the end of the session, or what the build that
/// serves is too old for. `None`: they have.
fn without_turn(host: &mut HostState, slot: Slot, copied: &ActionBuffer) -> Option<usize> {
    if copied.kind() == CLOSE_ASKED {
        return Some(copied.len());
    }
    let s = host.sessions.get(slot)?;
    if host.services[s.service].build_of(s.id).code.knows(copied.kind()) {
        return None;
    }
    let what = action_name(copied.kind());
    let message = format!("{} {what} actions are dropped: its build is too old for them", copied.len());
    notice(host, level::WARN, slot, message);
    Some(copied.len())
}

/// Closes a session whose peer has ended its side. The peer's last frames, and the actions that
/// wait, come before: a session that is blocked keeps them for later.
pub(super) fn finish_if_peer_done(pass: &mut Pass<'_>, slot: Slot) {
    let may_end = |pass: &Pass<'_>| pass.host.sessions.get(slot).is_some_and(|s| s.may_end());
    if may_end(pass) && pass.host.inbox.has(slot) {
        run_waiting(pass, slot);
    }
    // Asked again: the actions may have closed the session, or blocked it. A peer that has ended
    // without its request brings no first turn any more, so actions wait in vain.
    if may_end(pass) && (!pass.host.inbox.has(slot) || awaits_peer(pass.host, slot)) {
        if let Some(words) = pass.host.sockets.closing(slot).map(<[u8]>::to_vec) {
            return closed_by_peer(pass, slot, &words);
        }
        let over_tls = pass.host.sessions.get(slot).is_some_and(|s| s.over_tls());
        if over_tls && is_cut(pass.host, slot) {
            // Without the peer's last alert nobody knows whether this is all that it sent.
            let message = "its peer has cut the stream: no alert of TLS told the end".into();
            notice(pass.host, level::DEBUG, slot, message);
            return finish(pass, slot, closed::BROKEN);
        }
        finish(pass, slot, closed::PEER);
    }
}
