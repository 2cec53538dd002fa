//! Replies: bytes that the host itself sends to a session's peer, for its framing.

use super::Pass;
use super::close::finish;
use crate::host_state::notice::limit_reached;
use crate::host_state::output::{note_overflow, pause_if_full, send};
use crate::ids::Slot;
use crate::limits::names::Limit;
use crate::session::output::OutputWriter;
use greenroom_state::abi::{closed, level};

/// Sends what a framing answers. It is output like any other: sent after the commit, and counted
/// against the output limits. False: there is no room for it, and the session is closed.
pub(super) fn send_framing(pass: &mut Pass<'_>, slot: Slot, bytes: &[u8]) -> bool {
    let host = &mut *pass.host;
    if !host.store.reserve([OutputWriter::record_bytes(bytes.len())]) {
        let what = "closed: no room for a reply of its framing";
        limit_reached(host, Limit::StoreBytesMax, level::WARN, slot, what);
        finish(pass, slot, closed::LIMIT);
        return false;
    }
    send(host, slot, bytes);
    pause_if_full(host, slot);
    note_overflow(host, slot);
    true
}
