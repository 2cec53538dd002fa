//! Send: picks the sessions to send to, and books what the kernel took.
//!
//! The shell sends after a commit, and books in the pass that follows. After a death before
//! that pass is committed, recovery asks the kernel how much it took, so no byte is sent twice
//! or left out.

use crate::host_state::HostState;
use crate::host_state::output::{self, offer};
use crate::ids::Slot;
use crate::limits::budget::SENT_BYTES_PER_US;
use crate::limits::names::Limit;

/// Appends the sessions that have output to send to `into`, after a commit. If more wait, the
/// next pass is due at once. O(sessions appended).
pub(crate) fn take_sendable(host: &mut HostState, into: &mut Vec<Slot>) {
    let limits = host.limits.host();
    let share = (limits.pass_us * SENT_BYTES_PER_US, limits.sends_at_once_max);
    if !host.send_queue.take(&mut host.sessions, share, into) {
        host.limits.reached(Limit::SendsAtOnceMax);
    }
}

/// Books bytes of a session's output that the kernel took. `blocked`: it takes no more now. A
/// session that was waiting for this goes on with the next pass; a draining one may be gone.
pub(crate) fn sent(host: &mut HostState, slot: Slot, bytes: usize, blocked: bool) {
    // Here, and not for a recovery: the board had counted what a predecessor sent.
    if let Some(s) = host.sessions.get(slot) {
        host.services[s.service].traffic.bytes_out += bytes as u64;
    }
    output::sent(host, slot, bytes, blocked);
}

/// Notes that the kernel takes output of a session again, and lists the session if it has any.
pub(crate) fn writable(host: &mut HostState, slot: Slot) {
    let Some(s) = host.sessions.get_mut(slot) else { return };
    if std::mem::replace(&mut s.kernel_full, false) {
        output::note_progress(host, slot, true, false);
        offer(host, slot);
    }
}
