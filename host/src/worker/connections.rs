//! Connections that the keeper has accepted or made, taken in by the worker.
//!
//! The keeper owns a descriptor of each connection until the worker releases it by key and number.
//! The worker has another descriptor of the same connection. If the worker dies, the keeper hands
//! the connection to the successor.
//!
//! *Invariant*: each connection becomes a session, or is released. Numbers grow, and the highest
//! one that was taken in is a record. So a connection at or below it was served before, and one
//! above it is new.
//!
//! Taking in is part of the pass: the session's first turn runs at once, and is committed with it.

use crate::clock::unix_ms;
use crate::net::stream::Stream;
use crate::protocol::keeper::{EndpointId, ToKeeper};
use crate::worker::datagrams::is_udp;
use crate::worker::handshakes::{Waiting, check_counts};
use crate::worker::shell::Shell;
use crate::worker::start_tls;
use crate::worker::udp_ports;
use greenroom_core::input::{Input, TlsBegin};
use greenroom_state::endpoint::over_tls;
use std::os::fd::OwnedFd;

/// Takes connections in: the keeper's key and the number of each, with its descriptor. The keeper
/// is to release those that a predecessor served and closed. O(connections), with a few system
/// calls and one turn for each.
pub(super) fn take(shell: &mut Shell, connections: &[(u32, u64)], fds: Vec<OwnedFd>) {
    let endpoints = shell.ports.take_endpoints(connections.len());
    // Descriptors arrive in order, so those that are missing belong to the last connections.
    let taken = if shell.keeper.leaves_connections() { 0 } else { fds.len().min(connections.len()) };
    if taken < connections.len() {
        leave(shell, &connections[taken..]);
    }
    for ((&(key, number), fd), endpoint) in connections[..taken].iter().zip(fds).zip(endpoints) {
        if shell.core.sessions().slot_of(number).is_some() {
            // The keeper has handed the connection over twice.
            continue;
        }
        if shell.handshakes.of(number).is_some_and(|handshake| shell.handshakes.waits(handshake)) {
            continue;
        }
        if number <= shell.core.connection_number() {
            refuse(shell, key, number, "the connection is over");
        } else {
            take_in(shell, key, number, endpoint, fd);
        }
    }
}

/// Leaves connections, and all that come after them, to a fresh process: this one has no descriptor
/// to spare, as a handler may have opened files and closed none. Later ones must wait with them, as
/// a number below one that was taken in counts as served. The keeper has a descriptor of each. A
/// worker that stops has no successor, and releases them.
fn leave(shell: &mut Shell, connections: &[(u32, u64)]) {
    const WHY: &str = "the process is at its limit of open files";
    if shell.lifecycle.is_stopping() {
        return connections.iter().for_each(|&(key, number)| refuse(shell, key, number, WHY));
    }
    if !shell.keeper.leaves_connections() {
        tracing::warn!("connections from number {} on wait for a fresh process: {WHY}", connections[0].1);
        shell.keeper.leave_connections(WHY.into());
    }
}

/// Releases a connection that becomes no session. If a session asked for it, that session is told
/// `why`: each outcome that is owed is told here, or by the core with the session.
pub(super) fn refuse(shell: &mut Shell, key: u32, number: u64, why: &str) {
    if let Some(number) = shell.keeper.take_dialed(number) {
        shell.core.handle(Input::ConnectFailed { number, why });
    }
    if let Some(handshake) = shell.handshakes.of(number) {
        shell.handshakes.is_over(number, handshake);
    }
    shell.keeper.release(key, number);
}

/// Takes in a UDP port, or opens a session for a connection.
pub(super) fn take_in(shell: &mut Shell, key: u32, number: u64, endpoint: EndpointId, fd: OwnedFd) {
    match is_udp(&fd) {
        true => udp_ports::take(shell, key, number, endpoint, fd),
        false => open(shell, key, number, endpoint, fd),
    }
}

/// Takes the socket to another handshaker. Connections whose secrets were with the one before are
/// released.
pub(super) fn join_handshaker(shell: &mut Shell, fds: Vec<OwnedFd>, first: u64) {
    // What the one before has sent is still in its socket.
    receive_secrets(shell);
    // Without a descriptor to spare, connections wait for the next one.
    let Some(socket) = fds.into_iter().next() else {
        return shell.keeper.send(&ToKeeper::LacksHandshaker);
    };
    if let Err(e) = shell.handshakes.join(shell.sockets.registry(), socket, first) {
        tracing::error!("the handshaker's socket can't be polled: {e}");
        return shell.keeper.send(&ToKeeper::LacksHandshaker);
    }
    for (_, waiting) in shell.handshakes.take_lost() {
        refuse(shell, waiting.key, waiting.number, "the handshaker has ended");
    }
    start_tls::give_up_lost(shell);
    receive_secrets(shell);
}

/// Receives secrets, and opens sessions for the connections that waited for them.
pub(super) fn receive_secrets(shell: &mut Shell) {
    for (_, Waiting { key, number, endpoint, fd }) in shell.handshakes.receive(shell.sockets.registry()) {
        open(shell, key, number, endpoint, fd);
    }
    start_tls::settle(shell);
}

/// Opens a session for a connection, or refuses it: the peer is gone, the port of its endpoint is
/// closed, or the poll cannot watch it. If a limit is reached, the core orders the close.
fn open(shell: &mut Shell, key: u32, number: u64, endpoint: EndpointId, fd: OwnedFd) {
    let asked = shell.keeper.dialed(number);
    if let Some(handshake) = shell.handshakes.of(number) {
        return match shell.handshakes.take(handshake) {
            None => shell.handshakes.wait(handshake, Waiting { key, number, endpoint, fd }),
            Some(begin) => {
                if let Err(why) = open_over_tls(shell, (key, number), (endpoint, asked), fd, &begin) {
                    tracing::debug!("a connection over TLS is released: {why}");
                    return refuse(shell, key, number, &why);
                }
                shell.handshakes.is_over(number, handshake);
                shell.keeper.take_dialed(number);
            }
        };
    }
    match open_asked(shell, key, number, endpoint, fd, asked) {
        Ok(()) => _ = shell.keeper.take_dialed(number),
        Err(why) => refuse(shell, key, number, &why),
    }
}

/// Opens a session like [`open`]. `asked`: number of the request for an outbound connection. Such a
/// connection belongs to the service that its request names, and has no endpoint.
fn open_asked(
    shell: &mut Shell,
    key: u32,
    number: u64,
    endpoint: EndpointId,
    fd: OwnedFd,
    asked: Option<u64>,
) -> Result<(), String> {
    let socket = Stream::from(fd);
    let gone = |e| format!("the peer is gone: {e}");
    let (peer, local) = (socket.peer().map_err(gone)?, socket.local().map_err(gone)?);
    let port = shell.ports.of_connection(endpoint, local);
    // An endpoint over TLS takes no connection without a handshake.
    let port = port.filter(|port| over_tls(&port.kind).is_none());
    let service = port.and_then(|port| Some((shell.core.service_named(&port.port.0)?, &*port.kind)));
    if asked.is_none() && service.is_none() {
        return Err("the port is closed".into());
    }
    let slot = shell.sockets.add(socket, key).map_err(|e| {
        tracing::warn!(%peer, "a connection cannot be taken in: {e}");
        format!("the connection cannot be taken in: {e}")
    })?;
    let at_ms = unix_ms();
    match (asked, service) {
        (Some(asked), _) => {
            shell.core.handle(Input::Connected { number: asked, slot, id: number, peer, at_ms, tls: None });
        }
        (None, Some((service, kind))) => {
            shell.core.handle(Input::Opened { slot, id: number, service, kind, peer, at_ms, tls: None });
        }
        // Excluded above.
        (None, None) => {}
    }
    Ok(())
}

/// Opens a session for a connection whose handshake is done, like [`open_asked`]. Fails if more
/// of the stream was used: then a session had it before, and its keys must not be used again.
fn open_over_tls(
    shell: &mut Shell,
    (key, number): (u32, u64),
    (endpoint, asked): (EndpointId, Option<u64>),
    fd: OwnedFd,
    begin: &TlsBegin,
) -> Result<(), String> {
    // On an outbound connection the host's own SYN counts as a byte.
    let written = begin.state.written + u64::from(asked.is_some());
    check_counts(&fd, begin.state.read, written)?;
    let socket = Stream::from(fd);
    let gone = |e| format!("the peer is gone: {e}");
    let (peer, local) = (socket.peer().map_err(gone)?, socket.local().map_err(gone)?);
    let port = shell.ports.of_connection(endpoint, local);
    let served =
        port.and_then(|p| Some((shell.core.service_named(&p.port.0)?, over_tls(&p.kind)?.to_owned())));
    if asked.is_none() && served.is_none() {
        return Err("the port is closed".into());
    }
    let taken_in = shell.sockets.add(socket, key);
    let slot = taken_in.map_err(|e| format!("the connection cannot be taken in: {e}"))?;
    let (id, at_ms, tls) = (number, unix_ms(), Some(begin));
    match (asked, served) {
        (Some(number), _) => {
            shell.core.handle(Input::Connected { number, slot, id, peer, at_ms, tls });
        }
        (None, Some((service, kind))) => {
            shell.core.handle(Input::Opened { slot, id, service, kind: &kind, peer, at_ms, tls });
        }
        // Excluded above.
        (None, None) => {}
    }
    Ok(())
}
