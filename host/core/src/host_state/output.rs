//! Output of sessions: queued as records, offered to the kernel, and booked as sent.
//!
//! Bytes are records before they are sent, and nothing is sent before the commit. A session
//! whose peer takes no output is slowed down first, and closed later:
//!
//! | unsent output of a session | consequence |
//! | --- | --- |
//! | above `output_bytes_pause` | its input waits, unread |
//! | down to half of that | its input goes on, and so do sessions that wait for it |
//! | above `output_bytes_max` | the session is closed, the output dropped |
//!
//! Many small pieces count like many bytes. The gap between the first two lines keeps a session
//! from changing with every send.
//!
//! A relay passes data on as notes, and these become output in turns that come later. So the
//! sessions that wait for another one count the actions that wait for it like its output.

use super::HostState;
use super::end::{flushed, let_go_on};
use super::notice::notice;
use super::tls_due::{ask_if_drained, lend_before_mark};
use crate::ids::{ServiceId, Slot};
use crate::limits::names::Limit;
use crate::service::encoding::Encoding;
use crate::session::blocked::Blocked;
use crate::session::carrier::Carrier;
use crate::session::life::{Life, Session};
use crate::session::output::push_shared;
use crate::store::shared::SHARED_FROM_BYTES;
use crate::turn::datagram_effects::is_within;
use greenroom_state::abi::level;

/// Appends bytes to a session's output. Room must be reserved. A session that lingers or is gone
/// takes none.
pub(crate) fn send(host: &mut HostState, slot: Slot, bytes: &[u8]) {
    let Some(s) = host.sessions.get_mut(slot) else { return };
    if s.over_tls() {
        // Sealed when the turn's effects are applied, or the input is done.
        return host.tls.push(&host.store, slot, bytes);
    }
    if host.output.push(&mut host.store, s, bytes) {
        host.sessions.touch(slot);
    }
}

/// Sends a message to sessions, in the framing of each. The data may be a line, which some framings
/// send as text. Room must be reserved, and `framed` has what libraries have framed for that.
/// O(sessions · framings in use that encode).
pub(crate) fn broadcast(
    host: &mut HostState,
    mut to: Vec<Slot>,
    (data, is_line): (&[u8], bool),
    framed: &dyn Fn(ServiceId) -> Option<Result<Vec<u8>, String>>,
) {
    // The message is encoded once for a framing, and not once for a session.
    for encoding in Encoding::in_use(&host.services, !host.sockets.is_empty()) {
        let is_of =
            |slot: &Slot| host.sessions.get(*slot).map(|s| Encoding::of(&host.services, s)) == Some(encoding);
        let (of_it, rest): (Vec<_>, _) = to.into_iter().partition(is_of);
        to = rest;
        if of_it.is_empty() {
            continue;
        }
        let mut encoded = Vec::new();
        let framed = |service| framed(service).unwrap_or_else(|| Err("it was not framed before".into()));
        match encoding.encode((data, is_line), &mut encoded, framed) {
            Ok(()) => {
                let of_it = within_amplification(host, of_it, encoded.len());
                send_to_all(host, of_it, &encoded);
            }
            Err(why) => leave_out(host, of_it, &why),
        }
    }
    // The rest has framings that send a message as it is.
    send_to_all(host, to, data);
}

/// Leaves sessions over UDP out of a broadcast whose peers may not be sent so much yet.
fn within_amplification(host: &mut HostState, mut slots: Vec<Slot>, len: usize) -> Vec<Slot> {
    let HostState { sessions, limits, .. } = host;
    let before = slots.len();
    let may = |s: &Session| is_within(s, limits.of(s.service), len as u64);
    slots.retain(|slot| sessions.get(*slot).is_none_or(may));
    for _ in slots.len()..before {
        limits.reached(Limit::DatagramAmplificationMax);
    }
    slots
}

/// Tells operators which sessions get no broadcast, because their framing can't express it.
fn leave_out(host: &mut HostState, slots: Vec<Slot>, why: &str) {
    for slot in slots {
        notice(host, level::WARN, slot, format!("a broadcast to it is left out: {why}"));
    }
}

/// Appends the same bytes to the output of sessions, as one shared record if that is cheaper.
/// Sessions whose output is over its limit by that are noted.
fn send_to_all(host: &mut HostState, to: Vec<Slot>, data: &[u8]) {
    // Short data are cheaper to copy than to name.
    let is_shared = to.len() > 1 && data.len() >= SHARED_FROM_BYTES;
    let shared = is_shared.then(|| host.shared.put(&mut host.store, data));
    for to in to {
        // Each stream seals a copy of its own.
        let over_tls = host.sessions.get(to).is_some_and(|s| s.over_tls());
        match shared.filter(|_| !over_tls) {
            Some(number) => send_shared(host, to, number, data.len()),
            None => send(host, to, data),
        }
        note_overflow(host, to);
    }
    // Sessions may have taken no output: then nothing names the record, and it goes.
    if let Some(number) = shared {
        host.shared.release_unused(&mut host.store, number);
    }
}

/// Appends a shared record to a session's output.
fn send_shared(host: &mut HostState, slot: Slot, number: u64, len: usize) {
    let Some(s) = host.sessions.get_mut(slot) else { return };
    if push_shared(&mut host.store, &mut host.shared, s, number, len) {
        host.sessions.touch(slot);
    }
}

/// Lends the first pieces of a session's output that may go out, if any.
pub(crate) fn lend<T>(host: &HostState, slot: Slot, f: impl FnOnce(&[&[u8]]) -> T) -> Option<T> {
    let s = host.sessions.get(slot)?;
    match s.carrier {
        Carrier::TlsDue => lend_before_mark(host, slot, f),
        _ => s.lend_output(&host.store, &host.shared, f),
    }
}

/// Whether a session's peer leaves so much output untaken that its input waits. A session that
/// is gone is not full.
pub(crate) fn is_full(host: &HostState, slot: Slot) -> bool {
    host.sessions.get(slot).is_some_and(|s| s.output_is_full(host.limits.of(s.service)))
}

/// Whether others that pass data to a session should wait: its peer leaves too much output untaken,
/// or too many actions wait for its turns. These are notes on the way to become output, and notes
/// over the limit would be dropped. A session that is gone takes everything.
pub(crate) fn is_backed_up(host: &HostState, slot: Slot) -> bool {
    backlog_is_over(host, slot, 1)
}

/// Whether a session's output and waiting actions are over a part of their limits: 1 for the
/// whole, 2 for half of it.
fn backlog_is_over(host: &HostState, slot: Slot, part: usize) -> bool {
    let Some(s) = host.sessions.get(slot) else { return false };
    let limits = host.limits.of(s.service);
    let (count, bytes) = host.inbox.backlog(slot);
    let output_is_over = match part {
        1 => s.output_is_full(limits),
        _ => !s.output_has_drained(limits),
    };
    // Half of what may wait is left for batches under way, which may be those of several senders.
    output_is_over
        || s.unsent() + bytes as u64 > (limits.output_bytes_pause / part) as u64
        || bytes > limits.actions_pending_bytes_max / 2 / part
        || count > limits.actions_pending_max / 2 / part
}

/// Lets sessions go on that wait for another one, if that has taken enough. Called when the peer
/// took output, and when actions had their turns.
#[inline]
pub(crate) fn release_waiting(host: &mut HostState, slot: Slot) {
    if host.flow.is_empty() || backlog_is_over(host, slot, 2) {
        return;
    }
    let waiting = host.flow.release(&mut host.store, slot);
    let_go_on(host, waiting);
}

/// Lets a session's input wait if its peer leaves too much output untaken. [`sent`] lets it go
/// on. The limit counts once for each time that the input begins to wait.
pub(crate) fn pause_if_full(host: &mut HostState, slot: Slot) {
    if !is_full(host, slot) {
        return;
    }
    let Some(s) = host.sessions.get_mut(slot) else { return };
    let paused = s.block(Blocked::OutputFull, true) || s.is_blocked(Blocked::ShareUsed);
    if !paused {
        host.limits.reached(Limit::OutputBytesPause);
    }
}

/// Notes a session whose output has grown over its limit. The session is closed at the end of
/// the input under way (`crate::pass::close`), not here: closing runs a turn.
pub(crate) fn note_overflow(host: &mut HostState, slot: Slot) {
    let Some(s) = host.sessions.get_mut(slot) else { return };
    if s.unsent() > host.limits.of(s.service).output_bytes_max as u64 {
        host.send_queue.overflow(slot, s);
    }
}

/// Lists a session that may have output which the kernel takes. Called at a commit for each
/// changed session, and when the kernel takes output again. The list is taken after a commit.
#[inline]
pub(crate) fn offer(host: &mut HostState, slot: Slot) {
    let Some(s) = host.sessions.get_mut(slot).filter(|s| !s.kernel_full && !s.output.is_empty()) else {
        return;
    };
    if s.tls_due() && host.tls_due.is_drained(slot, s.bytes_sent) {
        return;
    }
    // A session with this much to send does not wait for others, so that it stays away from its
    // limit.
    let at_once_bytes = host.limits.of(s.service).output_bytes_pause as u64 / 2;
    host.send_queue.offer(slot, s, host.now_ns, at_once_bytes);
}

/// Books bytes of a session's output that the kernel took. `kernel_full`: it takes no more now.
/// Input that waited goes on if enough has drained. A draining session whose output is out is
/// shut.
///
/// Changes count with the next commit. If the worker dies before that, recovery learns from the
/// kernel how much was sent.
pub(crate) fn sent(host: &mut HostState, slot: Slot, bytes: usize, kernel_full: bool) {
    if kernel_full || host.sessions.has_stuck() {
        note_progress(host, slot, bytes > 0, kernel_full);
    }
    let Some(s) = host.sessions.get_mut(slot) else { return };
    s.kernel_full = kernel_full;
    s.book_sent(&mut host.store, &mut host.shared, bytes);
    let drained = s.output_has_drained(host.limits.of(s.service));
    let flushes = s.life == Life::Draining && s.unsent() == 0;
    let paused = s.is_blocked(Blocked::OutputFull) || s.is_blocked(Blocked::ShareUsed);
    let tls_due = s.carrier == Carrier::TlsDue;
    if drained && paused {
        host.sessions.resume(slot);
    }
    if tls_due && bytes > 0 {
        ask_if_drained(host, slot);
    }
    if host.sessions.get(slot).is_some_and(|s| s.unsent() == 0) && host.inbox.drained(slot) {
        host.sessions.resume(slot);
    }
    release_waiting(host, slot);
    if flushes {
        flushed(host, slot);
    }
}

/// Notes whether the kernel takes a session's output, for limit `output_ms`. `took`: it has room
/// since the last note, as the peer took some.
pub(crate) fn note_progress(host: &mut HostState, slot: Slot, took: bool, kernel_full: bool) {
    let since_ns = host.sessions.stuck_ns(slot).filter(|_| !took);
    let since_ns = kernel_full.then(|| since_ns.unwrap_or(host.now_ns));
    host.sessions.set_stuck(slot, since_ns);
    if kernel_full {
        let Some(service) = host.sessions.get(slot).map(|s| s.service) else { return };
        host.sessions.arm_timeout(slot, host.limits.of(service), host.now_ns);
    }
}
