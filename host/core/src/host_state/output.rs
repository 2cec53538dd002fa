//! Queues output, and books what the kernel took.

use super::HostState;
use super::end::{flushed, let_go_on};
use crate::ids::Slot;
use crate::limits::names::Limit;
use crate::session::blocked::Blocked;
use crate::session::life::Life;
use crate::session::output::push_shared;
use crate::store::shared::SHARED_FROM_BYTES;

/// Appends bytes to a session's output. Room must be reserved.
pub(crate) fn send(host: &mut HostState, slot: Slot, bytes: &[u8]) {
    let Some(s) = host.sessions.get_mut(slot) else { return };
    if host.output.push(&mut host.store, s, bytes) {
        host.sessions.touch(slot);
    }
}

/// Sends to every session on a topic; to the sender too, unless `others`. Room must be reserved.
/// O(subscribers).
pub(crate) fn broadcast(host: &mut HostState, sender: Slot, topic: &str, data: &[u8], others: bool) {
    let to: Vec<_> = host.topics.subscribers(topic).filter(|to| !(others && *to == sender)).collect();
    // Short data are cheaper to copy than to name.
    let is_shared = to.len() > 1 && data.len() >= SHARED_FROM_BYTES;
    let shared = is_shared.then(|| host.shared.put(&mut host.store, data));
    for to in to {
        match shared {
            Some(number) => send_shared(host, to, number, data.len()),
            None => send(host, to, data),
        }
        note_overflow(host, to);
    }
    if let Some(number) = shared {
        host.shared.release_unused(&mut host.store, number);
    }
}

fn send_shared(host: &mut HostState, slot: Slot, number: u64, len: usize) {
    let Some(s) = host.sessions.get_mut(slot) else { return };
    if push_shared(&mut host.store, &mut host.shared, s, number, len) {
        host.sessions.touch(slot);
    }
}

/// Whether a session's peer leaves so much output untaken that its input waits.
pub(crate) fn is_full(host: &HostState, slot: Slot) -> bool {
    host.sessions.get(slot).is_some_and(|s| s.output_is_full(host.limits.of(s.service)))
}

/// Lets a session's input wait if its peer leaves too much output untaken.
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

/// Notes a session whose output has grown over its limit.
pub(crate) fn note_overflow(host: &mut HostState, slot: Slot) {
    let Some(s) = host.sessions.get(slot) else { return };
    if s.unsent() > host.limits.of(s.service).output_bytes_max as u64 {
        host.send_queue.overflow(slot);
    }
}

/// Lists a session that may have output which the kernel takes.
#[inline]
pub(crate) fn offer(host: &mut HostState, slot: Slot) {
    let Some(s) = host.sessions.get_mut(slot).filter(|s| !s.kernel_full && !s.output.is_empty()) else {
        return;
    };
    let at_once_bytes = host.limits.of(s.service).output_bytes_pause as u64 / 2;
    host.send_queue.offer(slot, s, host.now_ns, at_once_bytes);
}

/// Books bytes of a session's output that the kernel took. `kernel_full`: it takes no more now.
pub(crate) fn sent(host: &mut HostState, slot: Slot, bytes: usize, kernel_full: bool) {
    let Some(s) = host.sessions.get_mut(slot) else { return };
    s.kernel_full = kernel_full;
    s.book_sent(&mut host.store, &mut host.shared, bytes);
    let drained = s.output_has_drained(host.limits.of(s.service));
    let flushes = s.life == Life::Draining && s.unsent() == 0;
    let paused = s.is_blocked(Blocked::OutputFull) || s.is_blocked(Blocked::ShareUsed);
    if drained {
        if paused {
            host.sessions.resume(slot);
        }
        let waiting = host.flow.release(slot);
        let_go_on(host, waiting);
    }
    if flushes {
        flushed(host, slot);
    }
}
