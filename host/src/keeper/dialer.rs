//! Outbound connections that a worker asked for, until they are open or have failed. An open one is
//! held like any other connection.

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Outbound connections, by the number that the worker gave each.
#[derive(Default)]
pub(super) struct Dialer {
    under_way: BTreeMap<u64, Dial>,
    /// Open ones: number of the connection, and number of its request. A successor is told these.
    open: BTreeMap<u64, u64>,
    /// Requests with an open connection: a repeated request is not dialed again.
    opened: HashSet<u64>,
}

struct Dial {
    socket: TcpStream,
    until: Instant,
}

impl Dialer {
    /// Begins a connection, unless this number was dialed before. The error says why it cannot
    /// begin.
    pub(super) fn begin(
        &mut self,
        registry: &Registry,
        token: Token,
        number: u64,
        addr: SocketAddr,
        patience: Duration,
    ) -> Result<(), String> {
        if self.under_way.contains_key(&number) || self.opened.contains(&number) {
            return Ok(());
        }
        let mut socket = begin(addr).map_err(|e| describe(addr, &e))?;
        registry.register(&mut socket, token, Interest::WRITABLE).map_err(|e| describe(addr, &e))?;
        self.under_way.insert(number, Dial { socket, until: Instant::now() + patience });
        Ok(())
    }

    /// Outcome of a connection that the poll reported. `None`: still under way.
    pub(super) fn outcome(&mut self, registry: &Registry, number: u64) -> Option<Result<OwnedFd, String>> {
        let dial = self.under_way.get(&number)?;
        let outcome = match (dial.socket.take_error(), dial.socket.peer_addr()) {
            (Ok(Some(e)) | Err(e), _) => Err(e.to_string()),
            (Ok(None), Ok(_)) => Ok(()),
            (Ok(None), Err(e)) if e.kind() == io::ErrorKind::NotConnected => return None,
            (Ok(None), Err(e)) => Err(e.to_string()),
        };
        let mut dial = self.under_way.remove(&number)?;
        let _ = registry.deregister(&mut dial.socket);
        Some(outcome.map(|()| std::net::TcpStream::from(dial.socket).into()))
    }

    /// Gives up the connections that took too long. Returns their numbers.
    pub(super) fn take_late(&mut self, registry: &Registry, now: Instant) -> Vec<u64> {
        let late: Vec<_> = self.under_way.iter().filter(|(_, d)| d.until <= now).map(|(n, _)| *n).collect();
        for number in &late {
            if let Some(mut dial) = self.under_way.remove(number) {
                let _ = registry.deregister(&mut dial.socket);
            }
        }
        late
    }

    /// Deadline of the next one.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.under_way.values().map(|d| d.until).min()
    }

    /// Notes that a request is open, as this connection.
    pub(super) fn is_open(&mut self, connection: u64, number: u64) {
        self.open.insert(connection, number);
        self.opened.insert(number);
    }

    /// Forgets a connection that is over.
    pub(super) fn forget(&mut self, connection: u64) {
        if let Some(number) = self.open.remove(&connection) {
            self.opened.remove(&number);
        }
    }

    /// The outbound ones among these connections: number of the connection, and number of its
    /// request.
    pub(super) fn among(&self, connections: &[(u32, u64)]) -> Vec<(u64, u64)> {
        if self.open.is_empty() {
            return Vec::new();
        }
        connections.iter().filter_map(|(_, c)| Some((*c, *self.open.get(c)?))).collect()
    }
}

fn describe(addr: SocketAddr, e: &io::Error) -> String {
    format!("{addr} can't be connected to: {e}")
}

/// Begins to connect, with the options that an accepted connection inherits
/// ([`crate::keeper::listeners`]).
fn begin(addr: SocketAddr) -> io::Result<TcpStream> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_socket_oobinline(&socket, true)?;
    match connect(&socket, &addr) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(TcpStream::from_std(socket.into())),
        Err(e) => Err(e.into()),
    }
}
