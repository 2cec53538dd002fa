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
use crate::keeper::bind::MadeFile;
use crate::keeper::given::GivenSockets;
use crate::keeper::listener::{Listener, bind_and_listen, open};
use crate::keeper::peer_watch::PeerWatch;
use crate::protocol::keeper::{EndpointId, HeldPort};
use crate::sys::activation::GivenDescriptor;
use greenroom_core::reload::ports::{Port, covers, is_any, overlap};
use greenroom_state::address::Address;
use greenroom_state::endpoint::over_tls;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

/// Connections that are taken over from a port that moves, at most.
const MOVED_MAX: usize = 4096;

/// Connections that were accepted from a socket that is closed, with their endpoints.
pub(super) type Queue = Vec<(OwnedFd, EndpointId)>;

/// All ports, by index. An index is never used again, so an event of a closed port names no other
/// one. A closed port costs one empty place for the life of the keeper.
#[derive(Default)]
pub(super) struct Listeners {
    places: Vec<Option<Listener>>,
    /// Times after which silent peers are given up.
    watch: PeerWatch,
    /// Kinds of the ports that are opened next.
    kinds: Vec<Box<str>>,
    /// Sockets of systemd that no port has.
    given: GivenSockets,
    /// Access to the files of Unix sockets, open ones and others.
    files: BTreeMap<Address, SocketFile>,
}

impl Listeners {
    /// Opens ports: all of them, or none. A port that is open already is reused: a worker that died
    /// may have asked for it. Returns the addresses in the order of the request. The error names
    /// the port that cannot be opened.
    ///
    /// Where the kernel chooses the port, the service and the address do not name one: its kind
    /// does, and each port of a request gets one of its own.
    pub(super) fn open(&mut self, ports: Vec<Port>) -> Result<Vec<Address>, String> {
        let mut opened = Vec::new();
        let addrs = self.open_into(&ports, &mut opened);
        match addrs.is_ok() {
            true => self.places.extend(opened.into_iter().map(Some)),
            // Closes what this call has opened so far.
            false => opened.into_iter().for_each(|l| self.close(l)),
        }
        addrs
    }

    /// Opens ports like [`Listeners::open`]. New ones are in `opened`, also after a failure.
    fn open_into(&mut self, ports: &[Port], opened: &mut Vec<Listener>) -> Result<Vec<Address>, String> {
        let mut addrs = Vec::new();
        let mut kinds = std::mem::take(&mut self.kinds).into_iter();
        for port in ports {
            let kind = kinds.next();
            let may_be = |l: &Listener| {
                !is_any(&port.1) || kind.as_ref().is_none_or(|k| *k == l.kind) && !addrs.contains(&l.addr)
            };
            let is_it = |l: &&Listener| l.port == *port && may_be(l) || l.is_moved && l.addr == port.1;
            if let Some(held) = self.places.iter().flatten().find(is_it) {
                addrs.push(held.addr.clone());
                continue;
            }
            let mut listener = match self.given.take(port, ports) {
                Some(given) => Listener::of_given(port, given?)?,
                None => open(port)
                    .or_else(|why| self.open_beside(port).unwrap_or(Err(why)))
                    .map_err(|why| self.with_dual(port, opened, why))?,
            };
            listener.kind = kind.unwrap_or_default();
            let allowed = listener.allow(&self.files);
            listener.watch(self.watch);
            addrs.push(listener.addr.clone());
            opened.push(listener);
            allowed?;
        }
        Ok(addrs)
    }

    /// Reason why a port can't be opened, with the socket of systemd that has its IPv4 part, if one
    /// has.
    fn with_dual(&self, port: &Port, opened: &[Listener], why: String) -> String {
        let Some(at) = port.1.socket_addr().filter(SocketAddr::is_ipv4) else { return why };
        let takes_it = |l: &&Listener| {
            let is_there = l.addr.socket_addr().is_some_and(|a| a.is_ipv6() && a.port() == at.port());
            is_there && sockopt::ipv6_v6only(&l.socket).is_ok_and(|only| !only)
        };
        match self.places.iter().flatten().chain(opened).find(takes_it) {
            Some(l) => format!("{why}; systemd's socket at {} takes IPv4, too (BindIPv6Only=)", l.addr),
            None => why,
        }
    }

    /// Closes a port. A socket of systemd stays open, for a later port.
    fn close(&mut self, listener: Listener) {
        listener.given.into_iter().for_each(|given| self.given.put_back(given));
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

    /// Another descriptor of the socket at an address, for the observer: its service is about to
    /// give the address up, or the worker refuses what asks for it. `None`: no port is there. The
    /// error names the port that the address overlaps, or that cannot be lent.
    pub(super) fn lend(&self, at: SocketAddr) -> Option<Result<OwnedFd, String>> {
        let at = Address::Tcp(at);
        let is_it = |l: &&Listener| l.addr == at && !is_any(&at);
        let overlapping = || self.places.iter().flatten().find(|l| overlap(&l.addr, &at));
        let l = self.places.iter().flatten().find(is_it).or_else(overlapping)?;
        let refuse = |why: String| Err(format!("service {} listens on {} now{why}", l.port.0, l.addr));
        Some(match &l.given {
            Some(_) => refuse(", at a socket of systemd, which stays its own".into()),
            None if l.addr != at => refuse(": free that port first, in a change of its own".into()),
            None => l.socket.try_clone().or_else(|e| refuse(format!(": {e}"))),
        })
    }

    /// Takes the descriptors that systemd gave.
    pub(super) fn take_given(&mut self, given: Vec<GivenDescriptor>) {
        self.given = given.into();
    }

    /// Names the descriptors of systemd that no port has.
    pub(super) fn name_unused(&self) {
        for label in self.given.labels() {
            tracing::warn!("{label} serves no endpoint; it stays open for one that comes later");
        }
    }

    /// Notes the kinds of the ports that are opened next, in their order.
    pub(super) fn kinds_of_next(&mut self, kinds: Vec<Box<str>>) {
        self.kinds = kinds;
    }

    /// Whether the socket at an IPv6 address takes IPv4, too.
    pub(super) fn takes_ipv4(&self, addr: &Address) -> bool {
        let at = self.places.iter().flatten().find(|l| l.addr == *addr);
        at.is_some_and(|l| sockopt::ipv6_v6only(&l.socket).is_ok_and(|only| !only))
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
        let failed = self.places.iter().flatten().map(|l| l.allow(&self.files));
        // All have their turn.
        failed.fold(Ok(()), Result::and)
    }

    /// Files of the Unix sockets that are accepted from.
    pub(super) fn files_made(&self) -> Vec<MadeFile> {
        let accepting = self.places.iter().flatten().filter(|l| l.accepts);
        accepting.filter_map(|l| l.file.as_ref()).map(|file| file.made().clone()).collect()
    }

    /// Binds a Unix socket anew whose file is gone, so that clients find it again. Returns its
    /// index, and the connections that wait at the old one. `None`: no port has this file any more.
    pub(super) fn bind_anew(
        &mut self,
        registry: &Registry,
        token: impl Fn(usize) -> Token,
        gone: &MadeFile,
    ) -> Result<Option<(usize, Queue)>, String> {
        let is_it = |l: &Listener| l.accepts && l.file.as_ref().is_some_and(|file| file.made() == gone);
        let found =
            self.places.iter_mut().enumerate().find_map(|(i, l)| Some((i, l.as_mut().filter(|l| is_it(l))?)));
        let Some((index, l)) = found else { return Ok(None) };
        gone.make_dir().map_err(|e| format!("its directory can't be made anew: {e}"))?;
        let fresh = open(&l.port)?;
        fresh.allow(&self.files)?;
        let fd = fresh.socket.as_raw_fd();
        let polled = registry.register(&mut SourceFd(&fd), token(index), Interest::READABLE);
        polled.map_err(|e| format!("{} can't be polled: {e}", l.addr))?;
        let _ = registry.deregister(&mut SourceFd(&l.socket.as_raw_fd()));
        let queue = std::iter::from_fn(|| l.accept(self.watch).ok().map(|fd| (fd, l.endpoint)));
        let waiting = queue.take(MOVED_MAX).collect();
        (l.socket, l.file) = (fresh.socket, fresh.file);
        Ok(Some((index, waiting)))
    }

    /// Closes ports that were opened for a reload that is not committed. Ports that are accepted
    /// from stay, whatever is asked.
    pub(super) fn discard(&mut self, addrs: &[Address]) {
        let is_it = |place: &mut Option<Listener>| place.take_if(|l| !l.accepts && addrs.contains(&l.addr));
        let closed: Vec<_> = self.places.iter_mut().filter_map(is_it).collect();
        closed.into_iter().for_each(|l| self.close(l));
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
    ) -> (Vec<usize>, Queue) {
        let (mut fresh, mut moved, mut closed) = (Vec::new(), Vec::new(), Vec::new());
        for (index, place) in self.places.iter_mut().enumerate() {
            let Some(l) = place else { continue };
            let own = ports.iter().find(|p| p.addr == l.addr);
            // Datagrams may be lost, so a UDP port that moves is closed.
            let may_stay = l.accepts && !l.is_udp();
            let moved_to = || ports.iter().find(|p| may_stay && covers(&p.addr, &l.addr));
            let serves = own.or_else(moved_to);
            let fd = l.socket.as_raw_fd();
            if let Some(port) = serves {
                (l.port, l.endpoint, l.is_moved) = (port.port.clone(), port.endpoint, own.is_none());
                l.kind.clone_from(&port.kind);
                l.over_tls = over_tls(&port.kind).is_some();
                if l.is_moved {
                    l.port.1 = l.addr.clone();
                }
            }
            if serves.is_some() && !l.accepts && l.is_udp() {
                l.accepts = true;
                fresh.push(index);
            } else if serves.is_some() && !l.accepts {
                match registry.register(&mut SourceFd(&fd), token(index), Interest::READABLE) {
                    Ok(()) => {
                        l.accepts = true;
                        fresh.push(index);
                    }
                    // The port stays opened, and the next commit tries again.
                    Err(e) => tracing::error!("{} can't be polled: {e}", l.addr),
                }
            } else if serves.is_none() && (l.accepts || all) {
                if l.accepts && !l.is_udp() {
                    let _ = registry.deregister(&mut SourceFd(&fd));
                    if let Some(to) = ports.iter().find(|p| overlap(&p.addr, &l.addr)) {
                        // Else the close would reset connections that the new port would serve.
                        let queue = std::iter::from_fn(|| l.accept(self.watch).ok());
                        moved.extend(queue.take(MOVED_MAX).map(|fd| (fd, to.endpoint)));
                    }
                }
                closed.extend(place.take());
            }
        }
        closed.into_iter().for_each(|l| self.close(l));
        (fresh, moved)
    }

    /// Indexes of the ports that are accepted from.
    pub(super) fn accepting(&self) -> Vec<usize> {
        let accepts = |l: &Option<Listener>| l.as_ref().is_some_and(|l| l.accepts && !l.is_udp());
        (0..self.places.len()).filter(|i| accepts(&self.places[*i])).collect()
    }

    /// Another descriptor of a UDP port, with its endpoint: the worker reads it. `None`: the index
    /// is of no UDP port.
    pub(super) fn udp_port(&self, index: usize) -> Option<io::Result<(OwnedFd, EndpointId)>> {
        let l = self.places.get(index)?.as_ref().filter(|l| l.is_udp())?;
        Some(l.socket.try_clone().map(|fd| (fd, l.endpoint)))
    }

    /// Accepts one connection, nonblocking and closed on exec, and tells its endpoint. `None`: the
    /// port is closed.
    pub(super) fn accept(&self, index: usize) -> Option<io::Result<(OwnedFd, EndpointId)>> {
        let l = self.places.get(index)?.as_ref()?;
        Some(l.accept(self.watch).map(|fd| (fd, l.endpoint)))
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

    /// The worker reads a UDP port, so the keeper neither polls nor accepts from it.
    #[test]
    fn a_udp_port_is_handed_out_once_it_counts() {
        let registry = mio::Poll::new().unwrap();
        let mut listeners = Listeners::default();
        let any = ("s".to_owned(), "udp://127.0.0.1:0".parse().unwrap());
        let addr = listeners.open(vec![any.clone()]).unwrap().remove(0);
        let ports =
            [HeldPort { port: any, addr: addr.clone(), endpoint: EndpointId(4), kind: "peer".into() }];
        let (fresh, _) = listeners.follow(registry.registry(), Token, &ports, false);
        assert_eq!((fresh.len(), listeners.accepting().len()), (1, 0));
        let (fd, endpoint) = listeners.udp_port(fresh[0]).unwrap().unwrap();
        let local: std::net::SocketAddr = rustix::net::getsockname(&fd).unwrap().try_into().unwrap();
        assert_eq!((endpoint, Some(local)), (EndpointId(4), addr.socket_addr()));
        // Told once: the connection that stands for it is handed to each worker.
        assert!(listeners.follow(registry.registry(), Token, &ports, true).0.is_empty());
        listeners.follow(registry.registry(), Token, &[], false);
        assert!(listeners.udp_port(0).is_none());
    }
}
