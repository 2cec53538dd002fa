//! Start of TLS on a stream that is in use: output before it goes out, output behind it is kept.
//!
//! [`crate::tls::due`] has the table. *Invariant*: no byte behind the mark goes out as it is. So
//! [`lend_before_mark`] ends there, and whoever closes the session drops the rest.

use super::HostState;
use super::state::kept_input;
use crate::command::Command;
use crate::ids::Slot;
use crate::session::carrier::Carrier;
use crate::session::life::Life;
use crate::tls::due::HandshakeDue;

/// Lets TLS be due for a session, behind all that its output has. Room must be reserved. If the
/// session is not one of a plain stream any more, nothing happens. Not called for a session that
/// the same batch closes: its last words go out as they are.
pub(crate) fn start(host: &mut HostState, slot: Slot, server_name: &str) {
    let Some(s) = host.sessions.get_mut(slot).filter(|s| s.life == Life::Open && s.may_start_tls()) else {
        return;
    };
    let at = (slot, s.id);
    host.tls_due.begin(&mut host.store, at, s.bytes_out, server_name).expect("room was reserved before");
    // What comes next is no part of a piece that goes out.
    s.end_piece();
    wait(host, slot);
}

/// Lets a session wait for its handshake, which begins once its output is out.
pub(crate) fn wait(host: &mut HostState, slot: Slot) {
    let Some(s) = host.sessions.get_mut(slot) else { return };
    s.carrier = Carrier::TlsDue;
    s.frame_ns = 0;
    host.sessions.touch(slot);
    ask_if_drained(host, slot);
}

/// Has the shell begin the handshake of a session, if all output before its mark is out. The shell
/// does so behind the commit that holds this.
pub(crate) fn ask_if_drained(host: &mut HostState, slot: Slot) {
    let Some(s) = host.sessions.get_mut(slot) else { return };
    if s.tls_due() && host.tls_due.is_drained(slot, s.bytes_sent) {
        // The time of the handshake counts from here.
        s.frame_ns = host.now_ns.max(1);
        let (id, service) = (s.id, s.service);
        host.commands.push(Command::StartTls { slot, id });
        host.sessions.touch(slot);
        host.sessions.arm_timeout(slot, host.limits.of(service), host.now_ns);
    }
}

/// Returns what the handshake of a session needs. `None`: none is due.
pub(crate) fn handshake_of(host: &HostState, slot: Slot) -> Option<HandshakeDue<'_>> {
    let (s, due) = (host.sessions.get(slot).filter(|s| s.tls_due())?, host.tls_due.of(slot)?);
    let service = &*host.services[s.service].offer.name;
    Some(HandshakeDue { service, server_name: &due.server_name, input: kept_input(host, slot) })
}

/// Lends a copy of the output before a session's mark. `None`: all of it is out. O(bytes).
pub(crate) fn lend_before_mark<T>(host: &HostState, slot: Slot, f: impl FnOnce(&[&[u8]]) -> T) -> Option<T> {
    let (s, due) = (host.sessions.get(slot)?, host.tls_due.of(slot)?);
    let mut bytes = s.copy_output(&host.store, &host.shared);
    bytes.truncate(due.mark.saturating_sub(s.bytes_sent) as usize);
    (!bytes.is_empty()).then(|| f(&[&bytes]))
}
