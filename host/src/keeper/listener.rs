//! Port that listens: its socket, its file, and what connections get from it.

use crate::config::socket_file::SocketFile;
use crate::keeper::bind::{BoundFile, bind_tcp, bind_udp, bind_unix, set_tcp_options, why_not};
use crate::keeper::given::GivenSocket;
use crate::keeper::peer_watch::PeerWatch;
use crate::protocol::keeper::EndpointId;
use greenroom_core::reload::ports::Port;
use greenroom_state::address::Address;
use rustix::net::SocketFlags;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// A port that listens.
pub(super) struct Listener {
    /// The service, and the address that was asked for.
    pub(super) port: Port,
    pub(super) socket: OwnedFd,
    /// File of a Unix socket that was bound here.
    pub(super) file: Option<BoundFile>,
    /// The same socket, as systemd gave it.
    pub(super) given: Option<GivenSocket>,
    /// The address that the kernel gave: another one than asked for, if port 0 was.
    pub(super) addr: Address,
    /// Kind of its endpoint; empty: the service's first, or not told.
    pub(super) kind: Box<str>,
    /// The number that the worker gave it, once it is accepted from.
    pub(super) endpoint: EndpointId,
    /// Accepted from. False: opened for a reload that is not committed yet.
    pub(super) accepts: bool,
    /// Whether connections begin with a handshake of TLS.
    pub(super) over_tls: bool,
    /// Not a port of its own: it accepts for a port at all addresses, to which it has moved.
    pub(super) is_moved: bool,
}

impl Listener {
    /// Whether the socket is one of UDP, which accepts nothing.
    pub(super) fn is_udp(&self) -> bool {
        matches!(self.addr, Address::Udp(_))
    }

    /// Listener at a socket that systemd gave. Costs a second descriptor.
    pub(super) fn of_given(port: &Port, given: GivenSocket) -> Result<Listener, String> {
        let socket = given.socket.try_clone();
        let socket = socket.map_err(|e| format!("service {} can't listen on {}: {e}", port.0, port.1))?;
        let addr = given.addr.clone().unwrap_or_else(|| port.1.clone());
        let (kind, endpoint) = ("".into(), EndpointId::NONE);
        let (port, given) = (port.clone(), Some(given));
        Ok(Listener {
            port,
            socket,
            given,
            addr,
            kind,
            endpoint,
            file: None,
            accepts: false,
            over_tls: false,
            is_moved: false,
        })
    }

    /// Sets the times of a TCP socket. A kernel that refuses them has its own.
    pub(super) fn watch(&self, watch: PeerWatch) {
        self.watch_on(&self.socket, watch);
    }

    /// Sets the times of the port's socket, or of a connection to it.
    pub(super) fn watch_on(&self, socket: impl AsFd, watch: PeerWatch) {
        if matches!(self.addr, Address::Tcp(_))
            && let Err(e) = watch.apply(socket)
        {
            tracing::warn!("{}: silent peers are given up late: {e}", self.addr);
        }
    }

    /// Gives the file of a Unix socket its access. The error names service and address.
    pub(super) fn allow(&self, files: &BTreeMap<Address, SocketFile>) -> Result<(), String> {
        let (Some(file), Some(wanted)) = (&self.file, files.get(&self.addr)) else { return Ok(()) };
        file.allow(wanted)
            .map_err(|why| format!("service {} can't listen on {}: {why}", self.port.0, self.addr))
    }

    /// Accepts one connection, nonblocking and closed on exec.
    pub(super) fn accept(&self, watch: PeerWatch) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let connection = rustix::net::accept_with(&self.socket, flags)?;
        if self.given.is_some() && matches!(self.addr, Address::Tcp(_)) {
            // It may be older than the options of the listener.
            set_tcp_options(&connection)?;
            self.watch_on(&connection, watch);
        }
        Ok(connection)
    }
}

/// Binds and listens: both together reserve a port.
pub(super) fn open(port: &Port) -> Result<Listener, String> {
    bind_and_listen(port, false)
}

/// Binds and listens. `shares`: other sockets of this process may have the address, if they share.
pub(super) fn bind_and_listen(port: &Port, shares: bool) -> Result<Listener, String> {
    let (service, address) = port;
    let bound = match address {
        Address::Tcp(addr) => {
            bind_tcp(*addr, shares).map(|(socket, addr)| (socket, Address::Tcp(addr), None))
        }
        Address::Unix(path) => bind_unix(path).map(|(socket, file)| (socket, address.clone(), Some(file))),
        Address::Udp(addr) => {
            bind_udp(*addr, shares).map(|(socket, addr)| (socket, Address::Udp(addr), None))
        }
    };
    let (socket, addr, file) = bound
        .map_err(|e| format!("service {service} can't listen on {address}: {}", why_not(address, &e)))?;
    let (port, kind, endpoint) = (port.clone(), "".into(), EndpointId::NONE);
    let (accepts, over_tls, is_moved) = (false, false, false);
    Ok(Listener { port, socket, given: None, addr, kind, endpoint, file, accepts, over_tls, is_moved })
}
