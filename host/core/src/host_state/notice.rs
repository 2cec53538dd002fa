//! Tells operators, and counts limits that are reached.

use super::HostState;
use crate::command::Command;
use crate::ids::{ServiceId, Slot, public_number};
use crate::limits::names::Limit;
use greenroom_state::abi::level;

/// Tells operators something about a session. `level` is one of [`level`].
pub(crate) fn notice(host: &mut HostState, level: u32, slot: Slot, message: String) {
    if let Some(s) = host.sessions.get(slot) {
        let (service, session) = (s.service, public_number(s.id));
        host.commands.push(Command::Notice { level, service, session, message });
    }
}

/// Counts a limit that a session reached, and tells operators.
pub(crate) fn limit_reached(host: &mut HostState, limit: Limit, level: u32, slot: Slot, what: &str) {
    host.limits.reached(limit);
    notice(host, level, slot, format!("{what} ({limit})"));
}

/// Counts a limit that a connection reached which is no session, and tells operators.
pub(crate) fn connection_refused(
    host: &mut HostState,
    limit: Limit,
    service: ServiceId,
    session: u64,
    what: &str,
) {
    host.limits.reached(limit);
    let message = format!("{what} ({limit})");
    host.commands.push(Command::Notice { level: level::WARN, service, session, message });
}
