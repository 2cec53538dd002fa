//! Notices to operators, and counts of limits that are reached.
//!
//! A notice is a command: the shell logs it after the commit. If the worker dies before that,
//! the notice is lost.

use super::HostState;
use crate::command::Command;
use crate::ids::{ServiceId, Slot, public_number};
use crate::limits::names::Limit;
use greenroom_state::abi::level;

/// Tells operators something about a session. `level` is one of [`level`]. If the session is
/// gone, nothing happens.
pub(crate) fn notice(host: &mut HostState, level: u32, slot: Slot, message: String) {
    if let Some(s) = host.sessions.get(slot) {
        let (service, session) = (s.service, public_number(s.id));
        host.commands.push(Command::Notice { level, service, session, message });
    }
}

/// Counts a limit that a session reached, and tells operators. The limit's name follows `what`.
pub(crate) fn limit_reached(host: &mut HostState, limit: Limit, level: u32, slot: Slot, what: &str) {
    host.limits.reached(limit);
    notice(host, level, slot, format!("{what} ({limit})"));
}

/// Counts a limit that refused a connection, and warns operators. `session` is the number that
/// the connection would have had as a session.
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
