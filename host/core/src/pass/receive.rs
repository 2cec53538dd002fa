//! Receive: bytes become frames, frames become batches, the rest is kept.

use super::Pass;
use super::close::{finish, last_turn};
use super::cut::{Cut, End};
use super::deliver::{finish_if_peer_done, run_waiting};
use super::open::run_opened_if_due;
use super::timeout::frame_waits;
use crate::execute::batch::{Ran, run_batch};
use crate::framing::frame::FrameState;
use crate::host_state::HostState;
use crate::host_state::end::gone;
use crate::host_state::notice::{limit_reached, notice};
use crate::host_state::output::{note_overflow, pause_if_full, send};
use crate::host_state::state::input_len;
use crate::ids::Slot;
use crate::limits::host::BATCH_ACTIONS_MAX;
use crate::limits::names::Limit;
use crate::session::blocked::Blocked;
use crate::session::life::Life;
use crate::session::output::OutputWriter;
use crate::store::kind::Kind;
use greenroom_state::abi::{closed, level};

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
    if input.is_some() || !s.frame.stored().is_empty() {
        follow_framing(host, slot);
    }
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
        let Some(batch) = run_batch_at(pass, slot, input, at, share - turns) else { return };
        if batch.cut == 0 {
            match batch.end {
                End::More => break,
                End::Reply(_) if !send_reply(pass, slot) => return,
                End::Reply(consumed) => at += consumed,
                End::TooLong => {
                    let what = "closed: a frame was longer than its service takes";
                    limit_reached(pass.host, Limit::FrameBytesMax, level::INFO, slot, what);
                    return finish(pass, slot, closed::LIMIT);
                }
                End::Invalid(why) => {
                    notice(pass.host, level::INFO, slot, format!("closed: {why}"));
                    return finish(pass, slot, closed::LIMIT);
                }
            }
            continue;
        }
        let share_used = turns + batch.cut >= share;
        (at, turns) = (batch.at, turns + batch.ran.consumed);
        if pass.host.sessions.get(slot).is_none() {
            return;
        }
        if batch.ran.close {
            return finish(pass, slot, closed::HANDLER);
        }
        let whole = batch.ran.consumed == batch.cut && batch.cut < BATCH_ACTIONS_MAX;
        if whole && batch.end == End::More && !share_used {
            break;
        }
    }
    keep_input(pass, slot, &input[at..], at > 0);
}

/// Messages that were cut and run.
struct BatchResult {
    /// Messages that were cut.
    cut: usize,
    /// Reason why no more were cut.
    end: End,
    ran: Ran,
    /// End of the last message that ran.
    at: usize,
}

/// Cuts at most `max` messages, and runs them. If some have to wait, the session's framing goes
/// back to its state before them. `None`: there is no such session.
#[inline]
fn run_batch_at(pass: &mut Pass<'_>, slot: Slot, input: &[u8], at: usize, max: usize) -> Option<BatchResult> {
    let Pass { host, executor, scratch } = pass;
    let mut cut = Cut::new();
    cut.fill(host, slot, (input, at), max, &mut scratch.cut)?;
    if cut.actions.is_empty() {
        return Some(BatchResult { cut: 0, end: cut.end, ran: Ran::default(), at });
    }
    let ran = run_batch(host, executor, slot, &cut.actions, &mut scratch.running);
    if let Some(s) = host.sessions.get_mut(slot) {
        if ran.consumed < cut.actions.len() {
            s.frame = cut.state_behind(ran.consumed);
        }
        pause_if_full(host, slot);
    }
    let at = if ran.consumed > 0 { cut.ends[ran.consumed - 1] } else { at };
    Some(BatchResult { cut: cut.actions.len(), end: cut.end, ran, at })
}

/// Sends what the session's framing answers by itself. False: there is no room for it, and the
/// session is closed.
fn send_reply(pass: &mut Pass<'_>, slot: Slot) -> bool {
    let (host, reply) = (&mut *pass.host, pass.scratch.cut.reply());
    if !host.store.reserve([OutputWriter::record_bytes(reply.len())]) {
        let what = "closed: no room for a reply of its framing";
        limit_reached(host, Limit::StoreBytesMax, level::WARN, slot, what);
        finish(pass, slot, closed::LIMIT);
        return false;
    }
    send(host, slot, reply);
    pause_if_full(host, slot);
    note_overflow(host, slot);
    true
}

/// Begins a session's framing anew if its service has another framing than the one that left the
/// state. A successor knows only that a framing which stores nothing did not leave stored bytes.
fn follow_framing(host: &mut HostState, slot: Slot) {
    let Some(s) = host.sessions.get_mut(slot) else { return };
    let service = &host.services[s.service];
    let is_same = std::mem::replace(&mut s.framings, service.framings) == service.framings;
    if !is_same || (service.offer.framing.cuts_slices() && !s.frame.stored().is_empty()) {
        s.frame = FrameState::default();
    }
}

/// Lets a session's other messages wait for the next pass: its turns fail again and again, or it
/// has had its share.
fn yield_to_others(pass: &mut Pass<'_>, slot: Slot) {
    if !pass.executor.replays_exhausted() {
        pass.host.limits.reached(Limit::TurnsAtOnceMax);
    }
    if let Some(s) = pass.host.sessions.get_mut(slot) {
        s.block(Blocked::ShareUsed, true);
    }
    pass.host.sessions.resume(slot);
}

/// Keeps the rest of a session's input, and the state of its framing. `begins`: the rest is not
/// what was kept before.
fn keep_input(pass: &mut Pass<'_>, slot: Slot, rest: &[u8], begins: bool) {
    let host = &mut *pass.host;
    let is_kept = keep_framing(host, slot);
    let Some(s) = host.sessions.get_mut(slot) else { return };
    s.framings = host.services[s.service].framings;
    if rest.is_empty() && is_kept {
        s.frame_ns = 0;
        if let Some(r) = s.input.take() {
            host.store.delete(r);
        }
        return;
    }
    let room = is_kept && host.store.reserve([rest.len()]);
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

/// Keeps what a session's framing stores; most store nothing. False: there is no room for it.
fn keep_framing(host: &mut HostState, slot: Slot) -> bool {
    let HostState { sessions, store, .. } = host;
    let Some(s) = sessions.get(slot) else { return true };
    let stored = s.frame.stored();
    if stored.is_empty() {
        if let Some(r) = sessions.take_framing_record(slot) {
            store.delete(r);
        }
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

/// Runs the input that a session kept, behind the actions that wait for it.
pub(super) fn run_kept_input(pass: &mut Pass<'_>, slot: Slot, assembly: &mut Vec<u8>) {
    let Some(s) = pass.host.sessions.get(slot) else { return };
    if s.life != Life::Open || !run_opened_if_due(pass, slot) {
        return;
    }
    run_waiting(pass, slot);
    let Some(s) = pass.host.sessions.get_mut(slot) else { return };
    if let Some(input) = s.input {
        s.frame.searched = 0;
        follow_framing(pass.host, slot);
        assembly.clear();
        pass.host.store.read(input, |b| assembly.extend_from_slice(b));
        pass.host.sessions.touch(slot);
        run_frames(pass, slot, assembly);
    }
    finish_if_peer_done(pass, slot);
}
