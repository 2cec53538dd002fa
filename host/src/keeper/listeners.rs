//! Ports: bound when a reload asks for them, accepted from once the reload is committed.
//!
//! | state | begins with | ends with |
//! | --- | --- | --- |
//! | opened | `open`, all ports of a request or none | `follow` or `discard` |
//! | accepting | `follow`, with the ports of a commit | `follow`, with ports of a later commit |
//!
//! An opened port listens already, so a commit cannot fail for lack of an address. Clients that
//! connect before the commit wait in the kernel's queue. If the reload is refused, `discard` closes
//! the port, and the queue is reset.
//!
//! A port may move to an address that overlaps its own. Both sockets listen until the commit. If
//! the reload is refused, the old one is as it was. SO_REUSEPORT is set for the time of the bind
//! alone: no other process gets a share of the port.
//!
//! | moves | the old socket |
//! | --- | --- |
//! | from 127.0.0.1 to 0.0.0.0 | stays, and accepts for the new port |
//! | from 0.0.0.0 to 127.0.0.1 | is closed, behind the connections in its queue |
//!
//! The first one can't be closed without a loss. The kernel prefers the more exact address, so
//! handshakes are always under way there, and a close resets them.
//!
//! Requests are repeatable. Ports that a dead worker had opened are reused, or closed once its
//! successor is ready. An address that passes from one service to another keeps its socket, so no
//! connection is refused in between.
//!
//! All lists are short: each call is O(ports), or O(ports of the request x ports).

use crate::config::socket_file::SocketFile;
use crate::keeper::bind::{BoundFile, bind_tcp, bind_unix};
use crate::keeper::peer_watch::PeerWatch;
use crate::protocol::keeper::{EndpointId, HeldPort};
use greenroom_core::reload::ports::{Port, covers, overlap};
use greenroom_state::address::Address;
use greenroom_state::endpoint::over_tls;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SocketFlags, sockopt};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Connections that are taken over from a port that moves, at most.
const MOVED_MAX: usize = 4096;

/// A port that listens.
struct Listener {
    /// The service, and the address that was asked for.
    port: Port,
    socket: OwnedFd,
    /// File of a Unix socket.
    file: Option<BoundFile>,
    /// The address that the kernel gave: another one than asked for, if port 0 was.
    addr: Address,
    /// The number that the worker gave it, once it is accepted from.
    endpoint: EndpointId,
    /// Accepted from. False: opened for a reload that is not committed yet.
    accepts: bool,
    /// Whether connections begin with a handshake of TLS.
    over_tls: bool,
    /// Not a port of its own: it accepts for a port at all addresses, to which it has moved.
    is_moved: bool,
}

/// All ports, by index. An index is never used again, so an event of a closed port names no other
/// one. A closed port costs one empty place for the life of the keeper.
#[derive(Default)]
pub(super) struct Listeners {
    places: Vec<Option<Listener>>,
    /// Times after which silent peers are given up.
    watch: PeerWatch,
    /// Access to the files of Unix sockets, open ones and others.
    files: BTreeMap<Address, SocketFile>,
}

impl Listeners {
    /// Opens ports: all of them, or none. A port that is open already is reused: a worker that died
    /// may have asked for it. Returns the addresses in the order of the request. The error names
    /// the port that cannot be opened.
    pub(super) fn open(&mut self, ports: Vec<Port>) -> Result<Vec<Address>, String> {
        let (mut opened, mut addrs) = (Vec::new(), Vec::new());
        for port in ports {
            let is_it = |l: &&Listener| l.port == port || l.is_moved && l.addr == port.1;
            if let Some(held) = self.places.iter().flatten().find(is_it) {
                addrs.push(held.addr.clone());
                continue;
            }
            // An error drops `opened`, and closes what this call has opened so far.
            let listener = open(&port).or_else(|why| self.open_beside(&port).unwrap_or(Err(why)))?;
            listener.allow(&self.files)?;
            listener.watch(self.watch);
            addrs.push(listener.addr.clone());
            opened.push(Some(listener));
        }
        self.places.append(&mut opened);
        Ok(addrs)
    }

    /// Opens a port whose address overlaps ports that are open. `None`: there are no such ports, so
    /// another try would fail the same way.
    fn open_beside(&self, port: &Port) -> Option<Result<Listener, String>> {
        let open: Vec<_> = self.places.iter().flatten().filter(|l| overlap(&l.addr, &port.1)).collect();
        // An address that is open already is another service's, and stays so.
        if open.is_empty() || open.iter().any(|l| l.addr == port.1) {
            return None;
        }
        let share = |yes| open.iter().for_each(|l| _ = sockopt::set_socket_reuseport(&l.socket, yes));
        share(true);
        let listener = bind_and_listen(port, true);
        share(false);
        if let Ok(listener) = &listener {
            let _ = sockopt::set_socket_reuseport(&listener.socket, false);
        }
        Some(listener)
    }

    /// Sets the times after which silent peers are given up, for connections from now on.
    pub(super) fn watch_peers(&mut self, watch: PeerWatch) {
        self.watch = watch;
        self.places.iter().flatten().for_each(|l| l.watch(watch));
    }

    /// Gives the files of Unix sockets their access: of those that are open, now, and of others
    /// when they are opened. The error names the first one that fails.
    pub(super) fn allow(&mut self, files: Vec<(Address, SocketFile)>) -> Result<(), String> {
        self.files.extend(files);
        self.places.iter().flatten().try_for_each(|l| l.allow(&self.files))
    }

    /// Closes ports that were opened for a reload that is not committed. Ports that are accepted
    /// from stay, whatever is asked.
    pub(super) fn discard(&mut self, addrs: &[Address]) {
        for place in &mut self.places {
            if place.as_ref().is_some_and(|l| !l.accepts && addrs.contains(&l.addr)) {
                *place = None;
            }
        }
    }

    /// Accepts from these ports, and closes the others. `all`: also closes those that were opened
    /// for a reload that is not committed. Returns the indexes that are accepted from for the first
    /// time, and the connections of ports that have moved.
    pub(super) fn follow(
        &mut self,
        registry: &Registry,
        token: impl Fn(usize) -> Token,
        ports: &[HeldPort],
        all: bool,
    ) -> (Vec<usize>, Vec<(OwnedFd, EndpointId)>) {
        let (mut fresh, mut moved) = (Vec::new(), Vec::new());
        for (index, place) in self.places.iter_mut().enumerate() {
            let Some(l) = place else { continue };
            let own = ports.iter().find(|p| p.addr == l.addr);
            let moved_to = || ports.iter().find(|p| l.accepts && covers(&p.addr, &l.addr));
            let serves = own.or_else(moved_to);
            let fd = l.socket.as_raw_fd();
            if let Some(port) = serves {
                (l.port, l.endpoint, l.is_moved) = (port.port.clone(), port.endpoint, own.is_none());
                l.over_tls = over_tls(&port.kind).is_some();
                if l.is_moved {
                    l.port.1 = l.addr.clone();
                }
            }
            if serves.is_some() && !l.accepts {
                match registry.register(&mut SourceFd(&fd), token(index), Interest::READABLE) {
                    Ok(()) => {
                        l.accepts = true;
                        fresh.push(index);
                    }
                    // The port stays opened, and the next commit tries again.
                    Err(e) => tracing::error!("{} can't be polled: {e}", l.addr),
                }
            } else if serves.is_none() && (l.accepts || all) {
                if l.accepts {
                    let _ = registry.deregister(&mut SourceFd(&fd));
                    if let Some(to) = ports.iter().find(|p| overlap(&p.addr, &l.addr)) {
                        // Else the close would reset connections that the new port would serve.
                        let queue = std::iter::from_fn(|| l.accept().ok());
                        moved.extend(queue.take(MOVED_MAX).map(|fd| (fd, to.endpoint)));
                    }
                }
                *place = None;
            }
        }
        (fresh, moved)
    }

    /// Indexes of the ports that are accepted from.
    pub(super) fn accepting(&self) -> Vec<usize> {
        let accepts = |l: &Option<Listener>| l.as_ref().is_some_and(|l| l.accepts);
        (0..self.places.len()).filter(|i| accepts(&self.places[*i])).collect()
    }

    /// Accepts one connection, nonblocking and closed on exec, and tells its endpoint. `None`: the
    /// port is closed.
    pub(super) fn accept(&self, index: usize) -> Option<io::Result<(OwnedFd, EndpointId)>> {
        let l = self.places.get(index)?.as_ref()?;
        Some(l.accept().map(|fd| (fd, l.endpoint)))
    }

    /// Service of a port over TLS; `None`: the port is another one, or closed.
    pub(super) fn tls_service(&self, index: usize) -> Option<String> {
        let l = self.places.get(index)?.as_ref()?;
        l.over_tls.then(|| l.port.0.clone())
    }

    /// Whether a connection waits to be accepted. False: the next one causes an edge. Costs one
    /// system call, and needs no descriptor.
    pub(super) fn has_waiting(&self, index: usize) -> bool {
        let Some(Some(l)) = self.places.get(index) else { return false };
        let mut polled = [PollFd::new(&l.socket, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        !poll(&mut polled, Some(&now)).is_ok_and(|ready| ready == 0)
    }
}

impl Listener {
    /// Sets the times of a TCP socket. A kernel that refuses them has its own.
    fn watch(&self, watch: PeerWatch) {
        if self.file.is_none()
            && let Err(e) = watch.apply(&self.socket)
        {
            tracing::warn!("{}: silent peers are given up late: {e}", self.addr);
        }
    }

    /// Gives the file of a Unix socket its access. The error names service and address.
    fn allow(&self, files: &BTreeMap<Address, SocketFile>) -> Result<(), String> {
        let (Some(file), Some(wanted)) = (&self.file, files.get(&self.addr)) else { return Ok(()) };
        file.allow(wanted)
            .map_err(|why| format!("service {} can't listen on {}: {why}", self.port.0, self.addr))
    }

    /// Accepts one connection, nonblocking and closed on exec.
    fn accept(&self) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        Ok(rustix::net::accept_with(&self.socket, flags)?)
    }
}

/// Binds and listens: both together reserve a port.
fn open(port: &Port) -> Result<Listener, String> {
    bind_and_listen(port, false)
}

/// Binds and listens. `shares`: other sockets of this process may have the address, if they share.
fn bind_and_listen(port: &Port, shares: bool) -> Result<Listener, String> {
    let (service, address) = port;
    let bound = match address {
        Address::Tcp(addr) => {
            bind_tcp(*addr, shares).map(|(socket, addr)| (socket, Address::Tcp(addr), None))
        }
        Address::Unix(path) => bind_unix(path).map(|(socket, file)| (socket, address.clone(), Some(file))),
        Address::Udp(_) => Err(io::Error::other("this version does not listen on UDP")),
    };
    let (socket, addr, file) =
        bound.map_err(|e| format!("service {service} can't listen on {address}: {e}"))?;
    let (port, endpoint) = (port.clone(), EndpointId::NONE);
    Ok(Listener { port, socket, addr, endpoint, file, accepts: false, over_tls: false, is_moved: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_waits_is_seen() {
        let mut listeners = Listeners::default();
        let addr =
            listeners.open(vec![("s".into(), Address::Tcp(([127, 0, 0, 1], 0).into()))]).unwrap().remove(0);
        assert!(!listeners.has_waiting(0));
        let _peer = std::net::TcpStream::connect(addr.socket_addr().unwrap()).unwrap();
        assert!(listeners.has_waiting(0));
        listeners.accept(0).unwrap().unwrap();
        assert!(!listeners.has_waiting(0));
    }

    #[test]
    fn all_ports_are_opened_or_none() {
        let mut listeners = Listeners::default();
        let any = || ("s".to_owned(), Address::Tcp(([127, 0, 0, 1], 0).into()));
        let addr = listeners.open(vec![any()]).unwrap().remove(0);
        let taken = ("other".to_owned(), addr.clone());
        let said = listeners.open(vec![any(), taken.clone()]).unwrap_err();
        assert!(said.contains(&format!("service other can't listen on {addr}")), "{said}");
        assert_eq!(listeners.places.len(), 1);
        // A repeated request gets the same port.
        assert_eq!(listeners.open(vec![any()]), Ok(vec![addr.clone()]));
        assert_eq!(listeners.places.len(), 1);
        listeners.discard(&[addr]);
        listeners.open(vec![taken]).unwrap();
    }

    /// Connections that wait at the old address come to the new port, and nobody else may share it.
    #[test]
    fn a_port_moves_to_an_address_that_overlaps() {
        let registry = mio::Poll::new().unwrap();
        let registry = registry.registry();
        let held = |addr: &Address, endpoint| HeldPort {
            port: ("s".into(), addr.clone()),
            addr: addr.clone(),
            endpoint: EndpointId(endpoint),
            kind: "".into(),
        };
        let mut listeners = Listeners::default();
        let connect = |host: [u8; 4], like: &Address| {
            std::net::TcpStream::connect((std::net::Ipv4Addr::from(host), like.socket_addr().unwrap().port()))
                .unwrap()
        };
        let any = ("s".to_owned(), Address::Tcp(([127, 0, 0, 1], 0).into()));
        let narrow = listeners.open(vec![any]).unwrap().remove(0);
        listeners.follow(registry, Token, &[held(&narrow, 1)], false);
        let wide = Address::Tcp(([0, 0, 0, 0], narrow.socket_addr().unwrap().port()).into());
        let endpoint_of = |listeners: &Listeners, index| listeners.accept(index).unwrap().unwrap().1.0;

        // A move that is refused, and one that is made: the old socket accepts for the new port.
        for (moves, serves) in [(false, 1), (true, 2)] {
            assert_eq!(listeners.open(vec![("s".into(), wide.clone())]), Ok(vec![wide.clone()]));
            let _peers = [connect([127, 0, 0, 1], &narrow), connect([127, 0, 0, 2], &narrow)];
            if moves {
                let (fresh, moved) = listeners.follow(registry, Token, &[held(&wide, 2)], false);
                assert_eq!((fresh.len(), moved.len()), (1, 0));
                assert_eq!(endpoint_of(&listeners, fresh[0]), serves);
            } else {
                listeners.discard(std::slice::from_ref(&wide));
            }
            assert_eq!(endpoint_of(&listeners, 0), serves);
        }
        assert_eq!(listeners.open(vec![("s".into(), wide.clone())]), Ok(vec![wide.clone()]));

        // The way back, for another service: the socket is that port's own again.
        assert_eq!(listeners.open(vec![("t".into(), narrow.clone())]), Ok(vec![narrow.clone()]));
        let _peers = [connect([127, 0, 0, 1], &narrow), connect([127, 0, 0, 2], &narrow)];
        let (fresh, moved) = listeners.follow(registry, Token, &[held(&narrow, 3)], false);
        assert_eq!(
            (fresh.len(), moved.len(), moved[0].1, listeners.accepting()),
            (0, 1, EndpointId(3), vec![0])
        );
        assert_eq!(endpoint_of(&listeners, 0), 3);
        assert!(!sockopt::socket_reuseport(&listeners.places[0].as_ref().unwrap().socket).unwrap());
        listeners.follow(registry, Token, &[], false);
        assert!(listeners.accepting().is_empty());
    }

    #[test]
    fn a_transport_that_is_not_served_is_refused_by_name() {
        let port = ("s".to_owned(), "udp://127.0.0.1:9".parse().unwrap());
        let said = Listeners::default().open(vec![port]).unwrap_err();
        assert_eq!(said, "service s can't listen on udp://127.0.0.1:9: this version does not listen on UDP");
    }
}
