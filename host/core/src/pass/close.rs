//! Close: last turn, remaining output, end of stream. The table is in [`crate::session::life`].
//!
//! `finish` is the orderly end: last turn, then the output is flushed, then our end is shut. A
//! session that is over its output limit skips the flush: its peer takes no output. In both
//! cases the session loses at once all that it shares or owns, but for its output, its state
//! and its record.
//!
//! A session has at most one last turn: its life is draining from then on. The last turn and
//! the losses are in one commit, so a death before that commit leaves the session open.
//!
//! Costs: O(what the session owns), and one turn.

use super::Pass;
use crate::command::Command;
use crate::execute::watched::run_batch;
use crate::framing::websocket::farewell::Farewell;
use crate::host_state::end::{drop_owned, flushed, gone, set_deadline};
use crate::host_state::notice::{limit_reached, notice};
use crate::host_state::output::send;
use crate::host_state::state::leave_topics;
use crate::host_state::tls;
use crate::ids::Slot;
use crate::limits::budget::SESSION_NS;
use crate::limits::names::Limit;
use crate::session::blocked::Blocked;
use crate::session::carrier::Carrier;
use crate::session::life::Life;
use crate::session::output::OutputWriter;
use greenroom_state::abi::{Action, Bytes, action, closed, level};
use greenroom_state::address::Peer;

/// Closes an open session: its last turn, then its output, then our end of the stream. `reason`
/// is one of [`closed`]. The caller has made sure that the session is open.
pub(crate) fn finish(pass: &mut Pass<'_>, slot: Slot, reason: u32) {
    let code = match reason {
        closed::HANDLER => 1000,
        closed::STOPPING | closed::OPERATOR => 1001,
        closed::LIMIT => 1008,
        // The peer has ended its side without a word.
        _ => 0,
    };
    finish_with(pass, slot, reason, Farewell { code, reason: "" });
}

/// Closes an open session like [`finish`], and tells its peer why, if its framing has words for
/// that. What the last turn sends comes before.
pub(super) fn finish_with(pass: &mut Pass<'_>, slot: Slot, reason: u32, farewell: Farewell<'_>) {
    let told = farewell_bytes(pass, slot, reason, farewell);
    last_turn(pass, slot, reason);
    let host = &mut *pass.host;
    // Without room the peer sees the end alone.
    if !told.is_empty() && host.store.reserve([OutputWriter::record_bytes(told.len())]) {
        send(host, slot, &told);
    }
    if host.sessions.get(slot).is_some_and(|s| s.over_tls()) {
        tls::close(host, slot);
    }
    let Some(s) = host.sessions.get(slot) else { return };
    if s.carrier == Carrier::TlsDue {
        // Nothing can be told in the middle of a handshake.
        return gone(host, slot);
    }
    // Asked behind the last turn, which may have sent something.
    if s.unsent() == 0 {
        flushed(host, slot);
    } else {
        let limits = host.limits.host();
        let wait_ms = if host.stopping { limits.stop_ms } else { limits.drain_ms };
        set_deadline(host, slot, wait_ms);
    }
}

/// Returns what a peer is told of the end. Asked before the last turn, behind which the state of
/// the framing is gone. Empty for most framings, which costs nothing.
fn farewell_bytes(pass: &mut Pass<'_>, slot: Slot, reason: u32, farewell: Farewell<'_>) -> Vec<u8> {
    let Some(s) = pass.host.sessions.get(slot).filter(|s| s.life == Life::Open) else { return Vec::new() };
    let by_framing = || pass.host.services[s.service].framings.get(s.framing).begins_with_request();
    if s.awaits_carrier() || !s.in_socket() && !by_framing() {
        return Vec::new();
    }
    match pass.executor.close_words().filter(|_| reason == closed::HANDLER) {
        Some((code, reason)) => Farewell { code, reason }.bytes(s.socket_stage()),
        None => farewell.bytes(s.socket_stage()),
    }
}

/// Runs the turn that tells the handler of the end, and drops all that the session shares or
/// owns, but for output and state. The caller then flushes or forgets the session. If the
/// session is not open, nothing changes, and operators are told.
pub(super) fn last_turn(pass: &mut Pass<'_>, slot: Slot, reason: u32) {
    let host = &mut *pass.host;
    let Some(s) = host.sessions.get_mut(slot) else { return };
    if s.life != Life::Open {
        let message = format!("asked to close it in life {:?}", s.life);
        return notice(host, level::ERROR, slot, message);
    }
    // Set before the turn runs: an action that the turn causes for its own session is not
    // delivered.
    s.life = Life::Draining;
    let (by_carrier, never_opened) = (s.awaits_carrier(), s.is_blocked(Blocked::OpenedTurnDue));
    let by_request = host.services[s.service].framings.get(s.framing).begins_with_request();
    host.sessions.touch(slot);
    // A session whose header, handshake or request never came, or was for a page, has no turn of
    // its own.
    if !never_opened || !by_carrier && !by_request {
        let last = Action { detail: reason, ..Action::new(action::CLOSED, Bytes::EMPTY) };
        // The outcome does not matter: a last turn that fails or is blocked does not keep the
        // session.
        run_batch(host, pass.executor, slot, &[last], &mut pass.scratch.running);
    }
    // Topics are left behind the turn, so a broadcast of the last turn still reaches its own
    // session.
    leave_topics(host, slot);
    let Some(s) = host.sessions.get_mut(slot) else { return };
    // Nobody can end a direction of UDP, so there is no end to wait for.
    s.peer_done |= matches!(s.peer, Peer::Udp(_));
    s.drop_input(&mut host.store);
    let keeps_port = s.udp_end().is_some();
    if !keeps_port && let Some(r) = host.sessions.take_framing_record(slot) {
        host.store.delete(r);
    }
    drop_owned(host, slot);
}

/// Closes the sessions whose output grew over its limit. Runs after each input, within one budget
/// for all inputs of a pass: last turns of a thousand sessions must not end the stage of reads for
/// the others. Last turns may make other sessions grow over theirs, which are then closed as well;
/// each round removes a session, so the loop ends. One that a pass leaves may go on if its peer
/// takes enough by the next.
#[inline]
pub(crate) fn close_overflowed(pass: &mut Pass<'_>) {
    if !pass.host.tls.is_empty() || pass.host.send_queue.overflows() {
        close_listed(pass);
    }
}

/// Closes as above. Few inputs need it, and its code would burden the others.
#[inline(never)]
fn close_listed(pass: &mut Pass<'_>) {
    pass.host.swap_close_stage();
    close_spent(pass);
    while pass.host.send_queue.overflows()
        && !pass.host.stage_is_over()
        && let Some(slot) = pass.host.send_queue.pop_overflowed()
    {
        let host = &mut *pass.host;
        // It may have ended meanwhile, and another session may have its slot.
        let Some(s) = host.sessions.get(slot).filter(|s| s.is_blocked(Blocked::OutputOverflows)) else {
            continue;
        };
        let (open, unsent) = (s.life == Life::Open, s.unsent());
        if unsent <= host.limits.of(s.service).output_bytes_max as u64 {
            if let Some(s) = host.sessions.get_mut(slot) {
                s.block(Blocked::OutputOverflows, false);
            }
            host.sessions.resume(slot);
            continue;
        }
        let what = format!("closed: {unsent} bytes of output never taken");
        limit_reached(host, Limit::OutputBytesMax, level::WARN, slot, &what);
        if let Some(s) = host.sessions.get_mut(slot) {
            s.drop_output(&mut host.store, &mut host.shared);
        }
        if open {
            last_turn(pass, slot, closed::LIMIT);
        }
        // Without a reset the kernel would hold the output that it has taken, outside every
        // limit.
        pass.host.commands.push(Command::Reset(slot));
        gone(pass.host, slot);
        close_spent(pass);
    }
    pass.host.swap_close_stage();
}

/// Seals what the input has left to seal, and closes the sessions over TLS that can send nothing
/// more. Each round removes one.
fn close_spent(pass: &mut Pass<'_>) {
    if pass.host.tls.is_empty() {
        return;
    }
    tls::seal_all(pass.host);
    while let Some((slot, may_send)) = pass.host.tls.pop_failed() {
        let open = pass.host.sessions.get(slot).is_some_and(|s| s.life == Life::Open);
        if open && may_send {
            finish(pass, slot, closed::LIMIT);
        } else if !may_send {
            if open {
                last_turn(pass, slot, closed::LIMIT);
            }
            pass.host.commands.push(Command::Reset(slot));
            gone(pass.host, slot);
        }
        tls::seal_all(pass.host);
    }
}

/// Gives every open session its last turn, as the host stops: some now, the others in the passes
/// to come. Until then a session runs no other turn.
///
/// From here on topics reach nobody. Otherwise each last turn that says good-bye would reach
/// all others, which are about to end as well: a cost that is quadratic. O(sessions) for that.
pub(crate) fn stop(pass: &mut Pass<'_>) {
    if pass.host.stopping {
        return;
    }
    // Set before the first turn: the time to flush is `stop_ms` then, and no connection is let
    // in.
    pass.host.stopping = true;
    pass.host.topics.silence();
    pass.host.stopped_to = Some(0);
    go_on_stopping(pass);
}

/// Gives open sessions their last turns, in the order of their numbers, until the stage is over.
pub(super) fn go_on_stopping(pass: &mut Pass<'_>) {
    while let Some(to) = pass.host.stopped_to
        && !pass.host.stage_is_over()
    {
        let next = pass.host.sessions.after(to).next().map(|(slot, s)| (slot, s.id, s.life));
        pass.host.stopped_to = next.map(|(_, id, _)| id);
        pass.host.budget.spend(SESSION_NS);
        if let Some((slot, _, Life::Open)) = next {
            finish(pass, slot, closed::STOPPING);
        }
    }
}

/// Closes a session that an operator names, after its last turn. Fails if there is no such
/// session, or if it is closing already; nothing has changed then.
pub(crate) fn close(pass: &mut Pass<'_>, id: u64) -> Result<(), String> {
    // A service's own turns have a number too, but no connection to close.
    let slot = pass.host.sessions.slot_of(id).filter(|slot| !slot.is_service());
    let slot = slot.ok_or_else(|| format!("no session has number {id}"))?;
    if pass.host.sessions.get(slot).is_none_or(|s| s.life != Life::Open) {
        return Err(format!("session {id} is closing already"));
    }
    finish(pass, slot, closed::OPERATOR);
    Ok(())
}
