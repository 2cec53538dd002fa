//! Reply of a fault: what a failed turn has for its peer.
//!
//! The effects of the turn are dropped, so a line that it has for the peer is an effect of its
//! own, staged and applied like a turn's, in the same pass. If there is no room for it, it is left
//! out. The close is not.

use super::Executor;
use super::apply::apply;
use super::call::{Call, Callee, call};
use super::reserve::reserve;
use crate::effects::running_batch::RunningBatch;
use crate::host_state::HostState;
use crate::ids::Slot;
use crate::service::registry::Writer;
use crate::turn::code::{Batch, Code};
use crate::turn::fault::FaultReply;
use crate::turn::staging::Staging;
use greenroom_state::abi::{Action, status};

/// Code whose one turn sends the line.
struct Line<'a> {
    line: &'a [u8],
    /// The line in a framing of the service's own, if it has one.
    framed: Result<Vec<u8>, String>,
}

impl Code for Line<'_> {
    fn run(&self, _: &Batch<'_>, staging: &mut Staging<'_>) -> u32 {
        if staging.send_line(self.line) == status::OK {
            staging.turn_ok();
        }
        0
    }

    fn encode(&self, _: &[u8]) -> Result<Vec<u8>, String> {
        self.framed.clone()
    }
}

/// Sends the line of a reply to the peer of the session whose turn over an action failed.
/// Returns whether the session is to be closed. The buffers are used for it.
pub(super) fn send_fault_reply(
    host: &mut HostState,
    executor: &mut Executor,
    (slot, failed): (Slot, &Action<'_>),
    fault_reply: &FaultReply,
    running: &mut RunningBatch,
) -> bool {
    if !fault_reply.line.is_empty() {
        // Without room the line is left out. The close is not.
        let _ = send_line(host, executor, (slot, failed), &fault_reply.line, running);
    }
    fault_reply.closes
}

/// Sends a line to a session's peer, as `send_line` of a turn over an action would: in the framing
/// of the session. Nothing else of the turn happens, and no code of the service runs but a framing
/// of its own. Fails with the limit that it would break, or with the framing's words. O(line).
pub(crate) fn send_line(
    host: &mut HostState,
    executor: &mut Executor,
    (slot, action): (Slot, &Action<'_>),
    line: &[u8],
    running: &mut RunningBatch,
) -> Result<(), String> {
    let Some(id) = host.sessions.get(slot).map(|s| s.service) else { return Ok(()) };
    let service = &host.services[id];
    // The message that `send_line` makes of it.
    let framed = service.code.encode(&[line, &b"\n"[..]].concat());
    let code = Line { line, framed };
    let convert = |_: &str, _: u32, _: &[u8]| Ok(None);
    let callee = Callee { code: &code, generation: service.generation(), convert: &convert };
    let of = Call { slot, actions: std::slice::from_ref(action), running };
    call(host, &callee, of, None, &mut executor.buffers);
    if executor.buffers.effects.is_empty() {
        return Err("its framing can't express the message, or it is over limit turn_bytes_max".into());
    }
    if let Some(limit) = reserve(host, slot, &mut executor.buffers) {
        return Err(format!("limit {}", limit.name()));
    }
    apply(host, slot, &executor.buffers, Writer::Serving, running);
    Ok(())
}
