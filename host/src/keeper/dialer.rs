//! Outbound connections that a worker asked for, until they are open or have failed.
//!
//! | state | ends with |
//! | --- | --- |
//! | under way | `outcome`: connected or failed; `take_late`: failed (limit `connect_ms`) |
//! | connected, to be over TLS | `is_open`, or `handshake_failed` |
//! | under way | `give_up`: its owner is gone; `give_up_unasked`: a successor does not want it |
//! | open | `forget`: the connection is over |
//!
//! The keeper makes these connections, so that they outlive a worker like accepted ones. The worker
//! numbers each request and keeps a record of it until it has the outcome. A successor repeats the
//! requests of all records. So a number that is under way or open is dialed once, and a failed one
//! again. An open connection is announced to each process with its number, which answers the
//! repeated request.
//!
//! The worker's limit `connects_max` bounds the requests under way: it counts each one until its
//! outcome is told.

use crate::keeper::peer_watch::PeerWatch;
use crate::protocol::keeper::ClientTls;
use greenroom_state::address::Address;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Outbound connections, by the number that the worker gave each.
#[derive(Default)]
pub(super) struct Dialer {
    /// Connections under way, by the number of the request.
    under_way: BTreeMap<u64, Dial>,
    /// Times after which silent peers are given up.
    pub(super) watch: PeerWatch,
    /// Deadlines of those under way, each with its number.
    deadlines: BTreeSet<(Instant, u64)>,
    /// Those in their handshake of TLS: whether the worker's present process has asked for it.
    shaking: BTreeMap<u64, bool>,
    /// Open ones: number of the connection, and number of its request. A successor is told these.
    open: BTreeMap<u64, u64>,
    /// Requests with an open connection: a repeated request is not dialed again.
    opened: HashSet<u64>,
}

/// Outcome of connecting: the descriptor, and the handshake that follows; or why it failed.
pub(super) type Connected = Result<(OwnedFd, Option<ClientTls>), String>;

/// A connection under way. Dropping it gives it up.
struct Dial {
    socket: TcpStream,
    /// Time when the connection has failed.
    until: Instant,
    /// The worker's present process has asked for it.
    is_asked: bool,
    /// Handshake that follows; `None`: it is not over TLS.
    over_tls: Option<ClientTls>,
}

impl Dialer {
    /// Begins a connection, unless this number is under way or open. The error says why it cannot
    /// begin, and nothing has changed then. Never blocks.
    pub(super) fn begin(
        &mut self,
        registry: &Registry,
        token: Token,
        number: u64,
        (addr, over_tls): (Address, Option<ClientTls>),
        patience: Duration,
    ) -> Result<(), String> {
        if let Some(is_asked) = self.shaking.get_mut(&number) {
            *is_asked = true;
            return Ok(());
        }
        if let Some(dial) = self.under_way.get_mut(&number) {
            dial.is_asked = true;
            return Ok(());
        }
        if self.opened.contains(&number) {
            return Ok(());
        }
        let Address::Tcp(to) = &addr else {
            return Err(format!("{addr} can't be connected to: this version connects over TCP alone"));
        };
        let mut socket = begin(*to, self.watch).map_err(|e| describe(&addr, &e))?;
        registry.register(&mut socket, token, Interest::WRITABLE).map_err(|e| describe(&addr, &e))?;
        let until = Instant::now() + patience;
        self.under_way.insert(number, Dial { socket, until, is_asked: true, over_tls });
        self.deadlines.insert((until, number));
        Ok(())
    }

    /// Outcome of a connection that the poll reported. `None`: still under way, or not known any
    /// more. An outcome is told once, and the number may be dialed again. One that is to be over
    /// TLS is in its handshake from here on.
    pub(super) fn outcome(&mut self, registry: &Registry, number: u64) -> Option<Connected> {
        let dial = self.under_way.get(&number)?;
        let outcome = match (dial.socket.take_error(), dial.socket.peer_addr()) {
            (Ok(Some(e)) | Err(e), _) => Err(e.to_string()),
            (Ok(None), Ok(_)) => Ok(()),
            // No error and no peer: the event was spurious.
            (Ok(None), Err(e)) if e.kind() == io::ErrorKind::NotConnected => return None,
            (Ok(None), Err(e)) => Err(e.to_string()),
        };
        // The descriptor goes to the worker. The keeper must not hear of its input.
        let Dial { socket, is_asked, over_tls, .. } = self.remove(registry, number)?;
        Some(outcome.map(|()| {
            if over_tls.is_some() {
                self.shaking.insert(number, is_asked);
            }
            (std::net::TcpStream::from(socket).into(), over_tls)
        }))
    }

    /// Notes that the handshake of a connection has failed, or is given up. False: there is none.
    pub(super) fn handshake_failed(&mut self, number: u64) -> bool {
        self.shaking.remove(&number).is_some()
    }

    /// Takes a connection off those under way, and no longer polls it.
    fn remove(&mut self, registry: &Registry, number: u64) -> Option<Dial> {
        let mut dial = self.under_way.remove(&number)?;
        self.deadlines.remove(&(dial.until, number));
        let _ = registry.deregister(&mut dial.socket);
        Some(dial)
    }

    /// Gives up a connection. False: it is not under way.
    pub(super) fn give_up(&mut self, registry: &Registry, number: u64) -> bool {
        self.remove(registry, number).is_some()
    }

    /// Notes that another process of the worker begins: it repeats the requests that it wants.
    pub(super) fn forget_who_asked(&mut self) {
        self.under_way.values_mut().for_each(|dial| dial.is_asked = false);
        self.shaking.values_mut().for_each(|is_asked| *is_asked = false);
    }

    /// Gives up the connections that the worker's present process has not asked for: their owners
    /// ended before the death of a predecessor. Returns those whose handshake is to be given up.
    /// O(under way).
    pub(super) fn give_up_unasked(&mut self, registry: &Registry) -> Vec<u64> {
        let unasked: Vec<_> = self.under_way.iter().filter(|(_, d)| !d.is_asked).map(|(n, _)| *n).collect();
        for number in unasked {
            self.give_up(registry, number);
        }
        let shaking: Vec<_> =
            self.shaking.iter().filter(|(_, is_asked)| !**is_asked).map(|(n, _)| *n).collect();
        shaking.iter().for_each(|number| _ = self.shaking.remove(number));
        shaking
    }

    /// Gives up the connections that took too long. Returns their numbers. O(log n) for each.
    pub(super) fn take_late(&mut self, registry: &Registry, now: Instant) -> Vec<u64> {
        let mut late = Vec::new();
        while let Some(&(until, number)) = self.deadlines.first()
            && until <= now
        {
            self.deadlines.pop_first();
            self.give_up(registry, number);
            late.push(number);
        }
        late
    }

    /// Deadline of the next connection under way.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(until, _)| *until)
    }

    /// Notes that a request is open, as this connection.
    pub(super) fn is_open(&mut self, connection: u64, number: u64) {
        self.shaking.remove(&number);
        self.open.insert(connection, number);
        self.opened.insert(number);
    }

    /// Forgets a connection that is over, whether accepted or outbound.
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

fn describe(addr: &Address, e: &io::Error) -> String {
    format!("{} can't be connected to: {e}", addr.stored_text())
}

/// Begins to connect, with the options that an accepted connection inherits
/// ([`crate::keeper::listeners`]).
fn begin(addr: SocketAddr, watch: PeerWatch) -> io::Result<TcpStream> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    sockopt::set_socket_keepalive(&socket, true)?;
    watch.apply(&socket)?;
    sockopt::set_socket_oobinline(&socket, true)?;
    match connect(&socket, &addr) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(TcpStream::from_std(socket.into())),
        Err(e) => Err(e.into()),
    }
}
