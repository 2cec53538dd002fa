//! Receive: bytes become frames, frames become batches, the rest is kept.
//!
//! After each call the bytes were consumed by turns or by the framing, dropped with the
//! session, or kept in its record of input. So a successor finds the rest of a message, and an
//! idle session has no buffer. Bytes of a pass that was never committed are the shell's: its input
//! memory gives them to the core again.
//!
//! Waiting actions run before frames: they are older. A session runs at most
//! `turns_at_once_max` messages in one call, and ends earlier if the stage is over, then the others
//! have their turns.
//!
//! TLS and a stream of WebSocket stand before the framing, and give it their data as they come.
//!
//! Costs: O(bytes) for new bytes. Turns run in here, so the time is theirs.
//!
//! If a frame is too long, breaks its framing, or has no room in the store, the session is
//! closed with [`closed::LIMIT`]. Operators are told.

use super::Pass;
use super::between::{Between, between_messages};
use super::close::{finish, finish_with};
use super::cut::{Cut, End};
use super::deliver::{finish_if_peer_done, run_waiting};
use super::ends::{broken, peer_done};
use super::framing::{calls_code, refused};
use super::keep::{append_input, keep_input};
use super::open::{awaits_peer, run_opened_if_due};
use super::proxied::{Start, begin};
use super::reply::send_framing;
use super::socket;
use super::timeout::{frame_waits, speaks_again};
use super::tls::{self, TlsInput};
use crate::execute::batch::{Ran, may_cut};
use crate::execute::watched::{is_watched, run_batch};
use crate::framing::websocket::farewell::Farewell;
use crate::framing::websocket::stream::StreamEvent;
use crate::host_state::HostState;
use crate::host_state::notice::{limit_reached, notice};
use crate::host_state::output::pause_if_full;
use crate::host_state::state::{input_len, kept_input};
use crate::ids::Slot;
use crate::limits::budget::READ_NS;
use crate::limits::host::BATCH_ACTIONS_MAX;
use crate::limits::names::Limit;
use crate::session::blocked::Blocked;
use crate::session::life::Life;
use crate::session::socket_streams::Socket;
use crate::store::layout::Full;
use crate::tls::stage::TlsEnd;
use greenroom_state::abi::{closed, level};

/// Bytes of kept input from which a quarantined session's peer is no longer read. The last read
/// may go beyond this number.
const QUARANTINE_INPUT_BYTES_MAX: usize = 64 * 1024;
/// Takes bytes from a peer and runs the whole messages in them. `assembly` is memory for kept
/// input and the bytes that follow it. A session that is closing, or gone, drops the bytes.
pub(crate) fn received(pass: &mut Pass<'_>, slot: Slot, bytes: &[u8], assembly: &mut Vec<u8>) {
    let host = &mut *pass.host;
    let Some(s) = host.sessions.get_mut(slot) else { return };
    // Behind its last turn a session is read only to notice the peer's end.
    if s.life != Life::Open {
        return;
    }
    // Counted before the bytes run: the commit holds them as effects or as kept input. Recovery
    // compares this number with the kernel's.
    s.bytes_in += bytes.len() as u64;
    host.services[s.service].traffic.bytes_in += bytes.len() as u64;
    if s.has_heard_all() {
        // Behind the end that an alert or a close frame told, bytes are of no meaning.
        return host.sessions.touch(slot);
    }
    let (was_told, over_tls) = (s.hears(host.now_ns), s.over_tls());
    host.budget.spend(READ_NS);
    host.sessions.touch(slot);
    if was_told {
        speaks_again(host, slot);
    }
    match over_tls {
        false => take_data(pass, slot, bytes, assembly),
        true => received_over_tls(pass, slot, bytes, assembly),
    }
}

/// Opens bytes from the peer of an open session over TLS, and takes the data. If the peer ends its
/// side by an alert, that is the end of its input. Bytes that are no records of the stream end the
/// session, behind an alert.
#[inline(never)]
fn received_over_tls(pass: &mut Pass<'_>, slot: Slot, bytes: &[u8], assembly: &mut Vec<u8>) {
    let mut buffers = std::mem::take(&mut pass.scratch.tls);
    let opened = tls::open(pass.host, slot, bytes, &mut buffers);
    if !buffers.content.is_empty() {
        take_data(pass, slot, &buffers.content, assembly);
    }
    let spoke = !buffers.content.is_empty();
    pass.scratch.tls = buffers;
    let is_cut = !pass.host.tls.kept(&pass.host.store, slot).is_empty();
    part_waits(pass.host, slot, is_cut, spoke);
    // The turns of its data may have closed the session.
    if pass.host.sessions.get(slot).is_none_or(|s| s.life != Life::Open) {
        return;
    }
    match opened {
        TlsInput::Opened(None) => {}
        TlsInput::Opened(Some(TlsEnd::Closed)) => peer_done(pass, slot),
        TlsInput::Opened(Some(TlsEnd::Failed(alert))) => {
            notice(pass.host, level::INFO, slot, format!("closed: its peer has sent alert {alert} of TLS"));
            broken(pass, slot);
        }
        TlsInput::Opened(Some(TlsEnd::Refused(alert))) => {
            let what = format!("closed: its peer breaks TLS: {} (alert {alert})", tls::describe(alert));
            notice(pass.host, level::INFO, slot, what);
            finish(pass, slot, closed::BROKEN);
        }
        TlsInput::NoRoom => {
            let what = "closed: no room for its input";
            limit_reached(pass.host, Limit::StoreBytesMax, level::WARN, slot, what);
            finish(pass, slot, closed::LIMIT);
        }
        TlsInput::NoCiphers => {
            notice(pass.host, level::ERROR, slot, "closed: this process has no ciphers for it".into());
            broken(pass, slot);
        }
    }
}

/// Counts the time of what came in part around the framing, as that of a frame: a peer that drips
/// has no more time than others. `spoke`: something whole came before it.
fn part_waits(host: &mut HostState, slot: Slot, is_cut: bool, spoke: bool) {
    let Some(s) = host.sessions.get_mut(slot) else { return };
    match (is_cut, s.input) {
        // The frame is the older one.
        (_, Some(_)) => {}
        (true, None) => frame_waits(host, slot, spoke),
        (false, None) => s.frame_ns = 0,
    }
}

/// Takes data of an open session, which may be frames that carry its stream.
#[inline(always)]
fn take_data(pass: &mut Pass<'_>, slot: Slot, bytes: &[u8], assembly: &mut Vec<u8>) {
    match pass.host.sessions.get(slot).map(|s| s.socket) {
        Some(Socket::Open) => take_frames(pass, slot, bytes, assembly),
        _ => take_bytes(pass, slot, bytes, assembly),
    }
}

/// Takes frames of WebSocket that carry the stream of an open session. The data before a ping run
/// before it is answered. The peer's close is the end of its input; frames that break the rules end
/// the session.
#[inline(never)]
fn take_frames(pass: &mut Pass<'_>, slot: Slot, bytes: &[u8], assembly: &mut Vec<u8>) {
    let (mut at, mut content, mut spoke) = (0, Vec::new(), false);
    while at < bytes.len() {
        content.clear();
        let taken = socket::take(pass.host, slot, &bytes[at..], &mut content);
        if !content.is_empty() {
            spoke = true;
            take_bytes(pass, slot, &content, assembly);
        }
        // The turns of its data may have closed the session.
        if pass.host.sessions.get(slot).is_none_or(|s| s.life != Life::Open) {
            return;
        }
        match taken {
            Ok((_, None)) => break,
            Ok((bytes, Some(StreamEvent::Pinged(pong)))) => {
                at += bytes;
                if !send_framing(pass, slot, &pong) {
                    return;
                }
            }
            Ok((_, Some(StreamEvent::Closed))) => {
                socket::close(pass.host, slot);
                return finish_if_peer_done(pass, slot);
            }
            Ok((_, Some(StreamEvent::Invalid(why)))) => {
                refused(pass, slot, why);
                return finish_with(pass, slot, closed::LIMIT, Farewell::invalid(why));
            }
            Err(Full) => {
                let what = "closed: no room for its input";
                limit_reached(pass.host, Limit::StoreBytesMax, level::WARN, slot, what);
                return finish(pass, slot, closed::LIMIT);
            }
        }
    }
    let is_cut = pass.host.sockets.is_cut(slot);
    part_waits(pass.host, slot, is_cut, spoke);
}

/// Takes data that the framing cuts, and runs the whole messages in them.
#[inline(always)]
fn take_bytes(pass: &mut Pass<'_>, slot: Slot, bytes: &[u8], assembly: &mut Vec<u8>) {
    let Some(input) = pass.host.sessions.get(slot).map(|s| s.input) else { return };
    match input {
        None => run_frames(pass, slot, bytes),
        Some(_) if append_input(pass, slot, bytes) => {}
        Some(_) => {
            assembly.clear();
            assembly.extend_from_slice(kept_input(pass.host, slot));
            assembly.extend_from_slice(bytes);
            run_frames(pass, slot, assembly);
        }
    }
}

/// Returns whether the shell should read a session's connection. The shell asks before each
/// read.
pub(crate) fn wants_input(host: &HostState, slot: Slot) -> bool {
    host.sessions.get(slot).is_some_and(|s| match s.life {
        // The handshake is read by another process.
        Life::Open if s.tls_due() => false,
        Life::Open if s.is_blocked(Blocked::Quarantined) => {
            input_len(host, slot) < QUARANTINE_INPUT_BYTES_MAX
        }
        // Its last turn is next.
        Life::Open if host.stopping => false,
        Life::Open => s.may_be_read(),
        // To notice the peer's end.
        Life::Draining | Life::Lingering => true,
    })
}

/// Runs the whole messages in `input`, and keeps the rest. Ends early if the session is closed,
/// waits, or has had its share.
fn run_frames(pass: &mut Pass<'_>, slot: Slot, input: &[u8]) {
    let (mut at, mut turns, mut is_first) = match begin(pass, slot, input) {
        Start::At(at) => (at, 0, true),
        Start::Waits => return keep_input(pass, slot, input, false),
        Start::Ended => return,
    };
    let share = pass.host.limits_of(slot).turns_at_once_max;
    while at < input.len() {
        let Some(s) = pass.host.sessions.get(slot) else { return };
        if s.life != Life::Open {
            return;
        }
        if !s.may_run_frames() {
            break;
        }
        // Batches that fail and are run again cost time without counting as turns, so they end
        // the share too. The first batch runs: its bytes were read already.
        let is_over = !is_first && pass.host.stage_is_over();
        if pass.executor.replays_exhausted() || turns >= share || is_over {
            yield_to_others(pass, slot, turns >= share);
            break;
        }
        is_first = false;
        // Actions that the last batch caused for its own session come before its next frame. Those
        // that others caused before its first turn wait for that, which the next frame brings.
        if pass.host.inbox.has_queued(slot) && !awaits_peer(pass.host, slot) {
            run_waiting(pass, slot);
            let goes_on = !pass.executor.replays_exhausted() && !pass.host.stage_is_over();
            if pass.host.inbox.has_queued(slot) && goes_on {
                // The frames come behind the actions that wait.
                break;
            }
            continue;
        }
        let Some(batch) = run_batch_at(pass, slot, input, at, share - turns) else { return };
        if batch.cut == 0 {
            match between_messages(pass, slot, batch.end, &input[at..]) {
                Between::Consumed(bytes, events) => (at, turns) = (at + bytes, turns + events),
                Between::Kept => break,
                Between::Ended => return,
                Between::Carried(bytes) => {
                    // What is behind the request are frames. The input that held it is gone.
                    let frames = input[at + bytes..].to_vec();
                    return take_data(pass, slot, &frames, &mut Vec::new());
                }
            }
            continue;
        }
        // The share may have cut the batch short: then the input can hold more whole messages.
        let share_used = turns + batch.cut >= share || batch.one_by_one;
        (at, turns) = (batch.at, turns + batch.ran.consumed);
        if pass.host.sessions.get(slot).is_none() {
            return;
        }
        if batch.ran.close {
            return finish(pass, slot, closed::HANDLER);
        }
        // The cut has seen the end of the input, so another search would find no whole message.
        let whole = batch.ran.consumed == batch.cut && batch.cut < BATCH_ACTIONS_MAX;
        if whole && batch.end == End::More && !share_used {
            break;
        }
    }
    keep_input(pass, slot, &input[at..], at > 0);
}

/// Outcome of one batch of frames.
struct BatchResult {
    /// Messages that were cut, at most [`BATCH_ACTIONS_MAX`].
    cut: usize,
    /// Whether one message was to be cut, though there may be more.
    one_by_one: bool,
    /// Reason why no more were cut.
    end: End,
    /// Outcome of the turns; fewer may have run than were cut.
    ran: Ran,
    /// End of the last message that ran.
    at: usize,
}

/// Cuts at most `max` messages, and runs them. `max` is at least 1. If some have to wait, the
/// session's framing goes back to its state before them. `None`: there is no such session.
#[inline]
fn run_batch_at(pass: &mut Pass<'_>, slot: Slot, input: &[u8], at: usize, max: usize) -> Option<BatchResult> {
    let Pass { host, executor, scratch } = pass;
    // While actions are blocked, the code that cuts is asked for one message at a time: a message
    // whose cut has killed the process must be the next one when it is found.
    let one_by_one = host.quarantines.blocks_actions() && calls_code(host, slot);
    if one_by_one && !may_cut(host, slot) {
        return Some(BatchResult { cut: 0, one_by_one, end: End::More, ran: Ran::default(), at });
    }
    // Messages of a session that is watched run one by one.
    let one_by_one = one_by_one || is_watched(host, slot);
    let max = if one_by_one { 1 } else { max };
    let mut cut = Cut::new();
    cut.fill(host, slot, (input, at), max, &mut scratch.cut)?;
    if cut.actions.is_empty() {
        return Some(BatchResult { cut: 0, one_by_one, end: cut.end, ran: Ran::default(), at });
    }
    let ran = run_batch(host, executor, slot, &cut.actions, &mut scratch.running);
    if let Some(s) = host.sessions.get_mut(slot) {
        // The stored state must be that of the input that is kept, or a successor would cut it
        // differently.
        if ran.consumed < cut.actions.len() {
            let framing = host.services[s.service].framings.get(s.framing);
            s.frame = framing.at_place(cut.state_behind(ran.consumed), &s.frame);
        }
        pause_if_full(host, slot);
    }
    let at = if ran.consumed > 0 { cut.ends[ran.consumed - 1] } else { at };
    Some(BatchResult { cut: cut.actions.len(), one_by_one, end: cut.end, ran, at })
}

/// Lets a session's other messages wait for the next pass. The reason is one of three: its turns
/// fail again and again, the stage is over, or it has had its share of turns. Only the last counts
/// here as a limit that was reached.
#[inline(never)]
fn yield_to_others(pass: &mut Pass<'_>, slot: Slot, share_is_used: bool) {
    if share_is_used && !pass.executor.replays_exhausted() {
        pass.host.limits.reached(Limit::TurnsAtOnceMax);
    }
    if let Some(s) = pass.host.sessions.get_mut(slot) {
        // Blocks reading too: the next read would only add to the record of kept input.
        s.block(Blocked::ShareUsed, true);
    }
    pass.host.sessions.resume(slot);
}

/// Runs the input that a session kept, behind its first turn and the actions that wait for it.
/// A session that is still blocked keeps its input.
pub(super) fn run_kept_input(pass: &mut Pass<'_>, slot: Slot, assembly: &mut Vec<u8>) {
    // Each round looks again: the turns of the round before may have closed or blocked the
    // session.
    let Some(s) = pass.host.sessions.get(slot) else { return };
    if s.life != Life::Open || !run_opened_if_due(pass, slot) {
        return;
    }
    run_waiting(pass, slot);
    let Some(s) = pass.host.sessions.get_mut(slot) else { return };
    if s.input.is_some() {
        // After a takeover an earlier version may have searched it by another framing. A second
        // search is always right.
        s.frame.set_searched(0);
        assembly.clear();
        assembly.extend_from_slice(kept_input(pass.host, slot));
        pass.host.sessions.touch(slot);
        run_frames(pass, slot, assembly);
    }
    // The peer's end may have waited for exactly this input.
    finish_if_peer_done(pass, slot);
}
