//! Messages of operators to the peers of sessions.
//!
//! A message is output of the session, in its framing, behind what it has sent. Its handler does
//! not learn of it: a service need not know messages of operators, and none can refuse them. The
//! message counts with the commit of the pass, like a turn's output.

use crate::effects::running_batch::RunningBatch;
use crate::execute::Executor;
use crate::execute::fault_reply::send_line;
use crate::host_state::HostState;
use crate::host_state::output::{is_full, note_overflow, pause_if_full};
use crate::operate::check::restorable;
use crate::session::blocked::Blocked;
use greenroom_state::abi::{Action, Bytes, action};

/// Sends a line to a session's peer. Fails, and sends nothing, if the session is not open, if its
/// peer takes no output, or if a limit or its framing refuses the line.
pub(crate) fn send_message(
    host: &mut HostState,
    executor: &mut Executor,
    id: u64,
    line: &[u8],
) -> Result<(), String> {
    let (slot, _) = restorable(host, id).ok_or_else(|| format!("no open session has number {id}"))?;
    let begins =
        host.sessions.get(slot).is_some_and(|s| s.awaits_carrier() || s.is_blocked(Blocked::OpenedTurnDue));
    if begins {
        return Err(format!("session {id} waits for its handshake"));
    }
    // The message would be what closes it.
    if is_full(host, slot) {
        return Err(format!("the peer of session {id} takes no output"));
    }
    let action = Action::new(action::NOTE, Bytes::EMPTY);
    let sent = send_line(host, executor, (slot, &action), line, &mut RunningBatch::default());
    sent.map_err(|why| format!("session {id}: {why}"))?;
    pause_if_full(host, slot);
    note_overflow(host, slot);
    Ok(())
}
