//! TLS of sessions: data are sealed into the output, and states are written.
//!
//! *Invariant*: records that are put into the output and the state behind them are written in one
//! pass. Without room for both, nothing of the session is sent any more, and it is closed.

use super::HostState;
use super::end::gone;
use super::notice::limit_reached;
use super::output::{note_overflow, pause_if_full};
use crate::command::Command;
use crate::ids::Slot;
use crate::limits::names::Limit;
use greenroom_state::abi::level;

/// Seals what waits, of all sessions, and writes their states.
#[inline]
pub(crate) fn seal_all(host: &mut HostState) {
    while let Some(slot) = host.tls.pop_changed() {
        seal(host, slot);
    }
}

/// Seals what waits of one session, and writes its state. A session that can send nothing more is
/// noted: it is closed before the commit.
fn seal(host: &mut HostState, slot: Slot) {
    let Some(s) = host.sessions.get_mut(slot) else { return };
    let id = s.id;
    let (sealed, is_spent) = host.tls.seal(slot, host.limits.host().tls_records_max);
    let put = host.output.push_sealed(&mut host.store, s, sealed);
    host.tls.sent(slot);
    // In this order: a state that counts further than the output does no harm.
    let written = host.tls.write(&mut host.store, slot, id);
    host.sessions.touch(slot);
    if put.is_err() || written.is_err() {
        host.tls.fail(slot);
        let what = "closed: no room for what TLS sends";
        return limit_reached(host, Limit::StoreBytesMax, level::WARN, slot, what);
    }
    if is_spent {
        let what = "closed: its key has sealed as many records as it may, and TLS 1.2 has no other";
        limit_reached(host, Limit::TlsRecordsMax, level::INFO, slot, what);
    }
    pause_if_full(host, slot);
    note_overflow(host, slot);
}

/// Tells a session's peer of the end, behind all that was sent. Nothing follows.
pub(crate) fn close(host: &mut HostState, slot: Slot) {
    // Data first: the alert seals under the next number.
    seal(host, slot);
    let records_max = host.limits.host().tls_records_max;
    let mut out = Vec::new();
    let Some((stage, ciphers)) = host.tls.stage(&host.store, slot) else { return };
    if stage.close(ciphers, records_max, &mut out).is_ok() {
        host.tls.change(slot, &out);
        seal(host, slot);
    }
}

/// Returns whether the peer of a session over TLS has not ended its side by an alert. An end of the
/// stream is then a cut: somebody else may have made it.
pub(crate) fn is_cut(host: &HostState, slot: Slot) -> bool {
    let closed = host.tls.read(&host.store, slot, |state| state.peer_closed);
    closed == Some(false)
}

/// Ends a pass, before its commit: nothing is left to seal, and no key stays in memory. A session
/// that can send nothing more is gone, without a turn: inputs close it before, but for changes
/// between two passes.
pub(crate) fn end_pass(host: &mut HostState) {
    if host.tls.is_empty() {
        return;
    }
    seal_all(host);
    while let Some((slot, _)) = host.tls.pop_failed() {
        host.commands.push(Command::Reset(slot));
        gone(host, slot);
    }
    host.tls.end_pass();
}
