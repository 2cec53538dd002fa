//! Connections that the worker asked for, until they are open or have failed. Then the keeper holds them like any other.

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// See the module. Each has the number that the worker gave it.
#[derive(Default)]
pub(super) struct Dialing {
    all: BTreeMap<u64, Dial>,
    /// Connections that are open, by the number that they have as such: a successor is to be told what they are.
    open: BTreeMap<u64, u64>,
    /// The same numbers, to know what was done before.
    done: HashSet<u64>,
}

struct Dial {
    socket: TcpStream,
    until: Instant,
}

impl Dialing {
    /// Begins one, unless that was done before. The error says why it can't be.
    pub(super) fn begin(
        &mut self,
        registry: &Registry,
        token: Token,
        number: u64,
        addr: SocketAddr,
        patience: Duration,
    ) -> Result<(), String> {
        if self.all.contains_key(&number) || self.done.contains(&number) {
            return Ok(());
        }
        let mut socket = begin(addr).map_err(|e| describe(addr, &e))?;
        registry.register(&mut socket, token, Interest::WRITABLE).map_err(|e| describe(addr, &e))?;
        self.all.insert(number, Dial { socket, until: Instant::now() + patience });
        Ok(())
    }

    /// The poll has something to say of one: `None`, it goes on.
    pub(super) fn look(&mut self, registry: &Registry, number: u64) -> Option<Result<OwnedFd, String>> {
        let dial = self.all.get(&number)?;
        let outcome = match (dial.socket.take_error(), dial.socket.peer_addr()) {
            (Ok(Some(e)) | Err(e), _) => Err(e.to_string()),
            (Ok(None), Ok(_)) => Ok(()),
            (Ok(None), Err(e)) if e.kind() == io::ErrorKind::NotConnected => return None,
            (Ok(None), Err(e)) => Err(e.to_string()),
        };
        let mut dial = self.all.remove(&number)?;
        let _ = registry.deregister(&mut dial.socket);
        Some(outcome.map(|()| std::net::TcpStream::from(dial.socket).into()))
    }

    /// Those that have taken too long.
    pub(super) fn late(&mut self, registry: &Registry, now: Instant) -> Vec<u64> {
        let late: Vec<_> = self.all.iter().filter(|(_, d)| d.until <= now).map(|(n, _)| *n).collect();
        for number in &late {
            if let Some(mut dial) = self.all.remove(number) {
                let _ = registry.deregister(&mut dial.socket);
            }
        }
        late
    }

    /// When the next one has taken too long.
    pub(super) fn next_late(&self) -> Option<Instant> {
        self.all.values().map(|d| d.until).min()
    }

    /// One is held now, as this connection.
    pub(super) fn opened(&mut self, connection: u64, number: u64) {
        self.open.insert(connection, number);
        self.done.insert(number);
    }

    /// A connection is over.
    pub(super) fn dropped(&mut self, connection: u64) {
        if let Some(number) = self.open.remove(&connection) {
            self.done.remove(&number);
        }
    }

    /// Which of these connections were asked for, and by which number.
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

/// With the options that an accepted connection inherits; see [`crate::keeper::listeners`].
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
