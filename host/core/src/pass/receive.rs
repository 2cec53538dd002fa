//! Receive: bytes become frames, frames become batches, the rest is kept.

use super::Pass;
use super::close::{finish, finish_if_peer_done, last_turn};
use super::deliver::run_waiting;
use super::open::run_opened_if_due;
use super::timeout::frame_waits;
use crate::execute::batch::{Ran, run_batch};
use crate::framing::frame::{FrameState, PlainFrame as Frame};
use crate::host_state::HostState;
use crate::host_state::end::gone;
use crate::host_state::notice::limit_reached;
use crate::host_state::output::pause_if_full;
use crate::host_state::state::input_len;
use crate::ids::Slot;
use crate::limits::host::BATCH_ACTIONS_MAX;
use crate::limits::names::Limit;
use crate::session::blocked::Blocked;
use crate::session::life::Life;
use crate::store::kind::Kind;
use arrayvec::ArrayVec;
use greenroom_state::abi::{Action, action, closed, level};

/// Bytes of input that a quarantined session keeps before its peer is no longer read.
const QUARANTINE_INPUT_BYTES_MAX: usize = 64 * 1024;

/// Takes bytes from a peer. `assembly`: memory for kept input and the bytes that follow it.
pub(crate) fn received(pass: &mut Pass<'_>, slot: Slot, bytes: &[u8], assembly: &mut Vec<u8>) {
    let host = &mut *pass.host;
    let Some(s) = host.sessions.get_mut(slot) else { return };
    if s.life != Life::Open || s.peer_done {
        return;
    }
    s.bytes_in += bytes.len() as u64;
    s.heard_ns = host.now_ns;
    let input = s.input;
    host.sessions.touch(slot);
    match input {
        None => run_frames(pass, slot, bytes),
        Some(input) => {
            assembly.clear();
            host.store.read(input, |b| assembly.extend_from_slice(b));
            assembly.extend_from_slice(bytes);
            run_frames(pass, slot, assembly);
        }
    }
}

/// Takes note that a peer has ended its side.
pub(crate) fn peer_done(pass: &mut Pass<'_>, slot: Slot) {
    let Some(s) = pass.host.sessions.get_mut(slot) else { return };
    s.peer_done = true;
    match s.life {
        Life::Open => {
            pass.host.sessions.touch(slot);
            finish_if_peer_done(pass, slot);
        }
        Life::Draining => pass.host.sessions.touch(slot),
        Life::Lingering => gone(pass.host, slot),
    }
}

/// Ends a session whose connection broke.
pub(crate) fn broken(pass: &mut Pass<'_>, slot: Slot) {
    let host = &mut *pass.host;
    let Some(s) = host.sessions.get_mut(slot) else { return };
    let open = s.life == Life::Open;
    s.drop_output(&mut host.store, &mut host.shared);
    if open {
        last_turn(pass, slot, closed::BROKEN);
    }
    gone(pass.host, slot);
}

/// Whether a session's connection should be read.
pub(crate) fn wants_input(host: &HostState, slot: Slot) -> bool {
    host.sessions.get(slot).is_some_and(|s| match s.life {
        Life::Open if s.is_blocked(Blocked::Quarantined) => {
            input_len(host, slot) < QUARANTINE_INPUT_BYTES_MAX
        }
        Life::Open => s.may_be_read(),
        // To notice the peer's end.
        Life::Draining | Life::Lingering => true,
    })
}

/// Whole messages at the beginning of some input, at most a batch.
struct Cut<'b> {
    actions: ArrayVec<Action<'b>, BATCH_ACTIONS_MAX>,
    /// End of each message.
    ends: ArrayVec<usize, BATCH_ACTIONS_MAX>,
    /// Whether the next message is too long.
    too_long: bool,
    /// State of the framing behind the last message.
    frame: FrameState,
}

/// Cuts at most `max` messages from `input`, from `at` on.
#[inline]
fn cut<'b>(host: &mut HostState, slot: Slot, input: &'b [u8], at: usize, max: usize) -> Option<Cut<'b>> {
    let s = host.sessions.get_mut(slot)?;
    let framing = host.services[s.service].offer.framing;
    let (mut actions, mut ends) = (ArrayVec::new(), ArrayVec::new());
    let (mut end, mut too_long) = (at, false);
    while !actions.is_full() && actions.len() < max {
        match framing.next(&input[end..], &mut s.frame) {
            Frame::Message(message, len) => {
                end += len;
                actions.push(Action::new(action::MESSAGE, message.into()));
                ends.push(end);
                if end == input.len() {
                    break;
                }
            }
            Frame::More => break,
            Frame::TooLong => {
                too_long = true;
                break;
            }
        }
    }
    Some(Cut { actions, ends, too_long, frame: s.frame.clone() })
}

/// Runs the whole messages in `input`, and keeps the rest.
fn run_frames(pass: &mut Pass<'_>, slot: Slot, input: &[u8]) {
    let (mut at, mut turns) = (0, 0);
    let share = pass.host.limits_of(slot).turns_at_once_max;
    while at < input.len() {
        let Some(s) = pass.host.sessions.get(slot) else { return };
        if s.life != Life::Open {
            return;
        }
        if !s.may_run_frames() {
            break;
        }
        if pass.executor.replays_exhausted() || turns >= share {
            yield_to_others(pass, slot);
            break;
        }
        if pass.host.inbox.has(slot) {
            run_waiting(pass, slot);
            if pass.host.inbox.has(slot) && !pass.executor.replays_exhausted() {
                // The frames come behind the actions that wait.
                break;
            }
            continue;
        }
        let Some(cut) = cut(pass.host, slot, input, at, share - turns) else { return };
        if cut.actions.is_empty() {
            if cut.too_long {
                let what = "closed: a frame was longer than its service takes";
                limit_reached(pass.host, Limit::FrameBytesMax, level::INFO, slot, what);
                return finish(pass, slot, closed::LIMIT);
            }
            break;
        }
        let share_used = turns + cut.actions.len() >= share;
        let ran = run_cut(pass, slot, &cut);
        if ran.consumed > 0 {
            at = cut.ends[ran.consumed - 1];
        }
        turns += ran.consumed;
        if pass.host.sessions.get(slot).is_none() {
            return;
        }
        if ran.close {
            return finish(pass, slot, closed::HANDLER);
        }
        let all = ran.consumed == cut.actions.len();
        if all && !cut.actions.is_full() && !cut.too_long && !share_used {
            break;
        }
    }
    keep_input(pass, slot, &input[at..], at > 0);
}

/// Runs the messages that were cut.
fn run_cut(pass: &mut Pass<'_>, slot: Slot, cut: &Cut<'_>) -> Ran {
    let ran = run_batch(pass.host, pass.executor, slot, &cut.actions, &mut pass.scratch.running);
    if let Some(s) = pass.host.sessions.get_mut(slot) {
        // What was searched behind the last message stays searched only if all of them are gone.
        s.frame = if ran.consumed == cut.actions.len() { cut.frame.clone() } else { FrameState::default() };
        pause_if_full(pass.host, slot);
    }
    ran
}

/// Lets a session's other messages wait for the next pass: its turns fail again and again, or it has
/// had its share.
fn yield_to_others(pass: &mut Pass<'_>, slot: Slot) {
    if !pass.executor.replays_exhausted() {
        pass.host.limits.reached(Limit::TurnsAtOnceMax);
    }
    if let Some(s) = pass.host.sessions.get_mut(slot) {
        s.block(Blocked::ShareUsed, true);
    }
    pass.host.sessions.resume(slot);
}

/// Keeps the rest of a session's input. `begins`: it is not the rest of what was kept before.
fn keep_input(pass: &mut Pass<'_>, slot: Slot, rest: &[u8], begins: bool) {
    let host = &mut *pass.host;
    let Some(s) = host.sessions.get_mut(slot) else { return };
    if rest.is_empty() {
        s.frame_ns = 0;
        if let Some(r) = s.input.take() {
            host.store.delete(r);
        }
        return;
    }
    let room = host.store.reserve([rest.len()]);
    match room.then(|| host.store.put(s.input, Kind::Input, s.id, rest)) {
        Some(Ok(r)) => {
            s.input = Some(r);
            frame_waits(host, slot, begins);
        }
        _ => {
            limit_reached(host, Limit::StoreBytesMax, level::WARN, slot, "closed: no room for its input");
            finish(pass, slot, closed::LIMIT);
        }
    }
}

/// Runs the input that a session kept, behind the actions that wait for it.
pub(super) fn run_kept_input(pass: &mut Pass<'_>, slot: Slot, assembly: &mut Vec<u8>) {
    let Some(s) = pass.host.sessions.get(slot) else { return };
    if s.life != Life::Open || !run_opened_if_due(pass, slot) {
        return;
    }
    run_waiting(pass, slot);
    let Some(s) = pass.host.sessions.get_mut(slot) else { return };
    if let Some(input) = s.input {
        s.frame = FrameState::default();
        assembly.clear();
        pass.host.store.read(input, |b| assembly.extend_from_slice(b));
        pass.host.sessions.touch(slot);
        run_frames(pass, slot, assembly);
    }
    finish_if_peer_done(pass, slot);
}
