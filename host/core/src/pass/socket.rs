//! Stream of WebSocket: what is around a session's own stream.
//!
//! The data of its frames are taken out as they come, also of a session whose input waits: what is
//! kept is data, and a part of a header or of a control frame. Costs O(bytes), and a copy of them.

use crate::framing::websocket::stream::StreamEvent;
use crate::host_state::HostState;
use crate::ids::Slot;
use crate::session::socket_streams::Socket;
use crate::store::layout::Full;

/// Takes bytes of a peer out of their frames, up to a ping or the end. `slot` has an open stream.
/// Appends them to `content`. Returns the bytes taken, and the event behind them. Fails if the
/// place there has no room.
pub(super) fn take(
    host: &mut HostState,
    slot: Slot,
    bytes: &[u8],
    content: &mut Vec<u8>,
) -> Result<(usize, Option<StreamEvent>), Full> {
    let id = host.sessions.get(slot).map_or(0, |s| s.id);
    host.sockets.take(&mut host.store, (slot, id), bytes, content)
}

/// Begins the stream of a session behind its request, which is consumed: the framing inside takes
/// the place of WebSocket's. False: the session is in no stream. Fails without room.
pub(super) fn open(host: &mut HostState, slot: Slot) -> Result<bool, Full> {
    let HostState { store, sessions, services, sockets, .. } = host;
    let Some(s) = sessions.get_mut(slot) else { return Ok(false) };
    let Socket::Asked { inside } = s.socket else { return Ok(false) };
    sockets.open(store, (slot, s.id))?;
    // The framing inside was counted from the beginning.
    services[s.service].framings.leave(s.framing);
    (s.framing, s.socket, s.frame_ns) = (inside, Socket::Open, 0);
    s.drop_input(store);
    sessions.drop_input_tail(store, slot);
    if let Some(r) = sessions.take_framing_record(slot) {
        store.delete(r);
    }
    sessions.touch(slot);
    Ok(true)
}

/// Notes that the peer has closed the stream by a frame. The connection has not ended: its end is
/// waited for, behind our own frame.
pub(super) fn close(host: &mut HostState, slot: Slot) {
    if let Some(s) = host.sessions.get_mut(slot) {
        s.socket = Socket::Closed;
        host.sessions.touch(slot);
    }
}
