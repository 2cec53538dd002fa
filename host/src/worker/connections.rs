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
use crate::protocol::keeper::EndpointId;
use crate::worker::datagrams::is_udp;
use crate::worker::shell::Shell;
use crate::worker::udp_ports;
use greenroom_core::input::Input;
use std::os::fd::OwnedFd;

/// Takes connections in: the keeper's key and the number of each, with its descriptor. The keeper
/// is to release those that a predecessor served and closed. O(connections), with a few system
/// calls and one turn for each.
pub(super) fn take(shell: &mut Shell, connections: &[(u32, u64)], fds: Vec<OwnedFd>) {
    if fds.len() < connections.len() {
        // Descriptors arrive in order, so those that are missing belong to the last connections.
        let lost = connections.len() - fds.len();
        tracing::warn!("{lost} connections closed: the process is at its limit of open files");
        for &(key, number) in &connections[fds.len()..] {
            refuse(shell, key, number, "the process is at its limit of open files");
        }
    }
    let endpoints = shell.ports.take_endpoints(connections.len());
    for ((&(key, number), fd), endpoint) in connections.iter().zip(fds).zip(endpoints) {
        if shell.core.sessions().slot_of(number).is_some() {
            // The keeper has handed the connection over twice.
            continue;
        }
        if number <= shell.core.connection_number() {
            refuse(shell, key, number, "the connection is over");
        } else {
            take_in(shell, key, number, endpoint, fd);
        }
    }
}

/// Releases a connection that becomes no session. If a session asked for it, that session is told
/// `why`: each outcome that is owed is told here, or by the core with the session.
pub(super) fn refuse(shell: &mut Shell, key: u32, number: u64, why: &str) {
    if let Some(number) = shell.keeper.take_dialed(number) {
        shell.core.handle(Input::ConnectFailed { number, why });
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

/// Opens a session for a connection, or refuses it: the peer is gone, the port of its endpoint is
/// closed, or the poll cannot watch it. If a limit is reached, the core orders the close.
fn open(shell: &mut Shell, key: u32, number: u64, endpoint: EndpointId, fd: OwnedFd) {
    let asked = shell.keeper.dialed(number);
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
            shell.core.handle(Input::Connected { number: asked, slot, id: number, peer, at_ms });
        }
        (None, Some((service, kind))) => {
            shell.core.handle(Input::Opened { slot, id: number, service, kind, peer, at_ms });
        }
        // Excluded above.
        (None, None) => {}
    }
    Ok(())
}
