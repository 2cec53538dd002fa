//! Connections: accepted from listeners, made on request, and held until the worker releases them.
//!
//! Listeners are polled edge-triggered. So a listener whose queue may not be empty is remembered in
//! `accept_again`, whatever the reason to stop. A forgotten one would starve its clients until the
//! next connection.
//!
//! Accepting stops for three reasons:
//!
//! | reason | goes on |
//! | --- | --- |
//! | the caller may not accept: no worker takes connections | when it may |
//! | [`ACCEPTS_AT_ONCE`] connections came from one port | in the next round of the loop |
//! | few descriptors are left ([`FileTable`]), or accepting fails | after [`ACCEPT_REST`] at most |
//!
//! Connections that are not accepted wait in the kernel's queue, so their clients see a slow host
//! and no error.
//!
//! The type joins three parts that do not know each other: [`Listeners`], [`Dialer`] and
//! [`Connections`]. Both accepted and outbound connections get their number here.

use crate::admin::time::rfc3339;
use crate::clock::unix_ms;
use crate::config::socket_file::SocketFile;
use crate::keeper::bind::MadeFile;
use crate::keeper::connections::{Batch, Connections};
use crate::keeper::dialer::Dialer;
use crate::keeper::handshakes::HandshakesUnderWay;
use crate::keeper::listeners::{Listeners, Queue};
use crate::keeper::peer_watch::PeerWatch;
use crate::keeper::table::FileTable;
use crate::protocol::keeper::HeldPort;
use crate::protocol::status::Failing;
use crate::sys::activation::GivenDescriptor;
use greenroom_core::reload::ports::Port;
use greenroom_state::address::Address;
use greenroom_state::endpoint::over_tls;
use mio::{Registry, Token};
use std::collections::{BTreeSet, VecDeque};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Token of the first listener; those below are the keeper's own.
const LISTENERS: usize = 16;
/// Token of the outbound connection 0.
pub(super) const DIALED: usize = 1 << 32;
/// Connections accepted from one port before the others have their turn, and before the worker is
/// handed any.
const ACCEPTS_AT_ONCE: usize = 64;
/// Pause of accepting, on all ports, after descriptors or memory ran out. A connection that is over
/// ends it before.
const ACCEPT_REST: Duration = Duration::from_secs(1);

/// Source of a poll event.
pub(super) enum AcceptorEvent {
    /// The listener of this index.
    Listener(usize),
    /// The outbound connection of this number.
    Dialed(u64),
}

/// The source that a token names. `None`: one of the keeper's own tokens.
pub(super) fn source(token: Token) -> Option<AcceptorEvent> {
    match token.0 {
        n if n >= DIALED => Some(AcceptorEvent::Dialed((n - DIALED) as u64)),
        n if n >= LISTENERS => Some(AcceptorEvent::Listener(n - LISTENERS)),
        _ => None,
    }
}

/// Result of accepting.
#[derive(Default)]
pub(super) struct Accepted {
    /// Keys of the new connections.
    pub(super) keys: Vec<u32>,
    /// Accepting has stopped for lack of descriptors. Counted once until it goes on.
    pub(super) out_of_files: bool,
}

/// Listeners, dialer, and the connections that they brought.
#[derive(Default)]
pub(super) struct Acceptor {
    listeners: Listeners,
    pub(super) connections: Connections,
    pub(super) dialer: Dialer,
    /// Handshakes of TLS, and connections that wait for theirs.
    pub(super) handshakes: HandshakesUnderWay,
    pub(super) table: FileTable,
    /// Listeners that may have more connections, by index. May hold indexes of closed ports.
    accept_again: BTreeSet<usize>,
    /// Those of TLS that go on once the handshaker takes more.
    after_handshakes: BTreeSet<usize>,
    /// Time until which accepting rests, unless one of the sockets that were held when it began is
    /// given back. [`Acceptor::accept_again`] alone ends the rest.
    rests_until: Option<(Instant, usize)>,
    /// Time and reason of the first failure in a row, so that only the first one is logged.
    failed: Option<(Instant, Failing)>,
    /// Connections accepted so far.
    accepts: u64,
}

impl Acceptor {
    /// Accepts from a listener that the poll reported. Unless it `may` accept now, the listener is
    /// remembered.
    pub(super) fn accept(&mut self, index: usize, may: bool) -> Accepted {
        let mut accepted = Accepted::default();
        self.accept_into(index, may, &mut accepted);
        accepted
    }

    /// Accepts from the remembered listeners, if it `may` and accepting does not rest. O(remembered
    /// listeners), at most [`ACCEPTS_AT_ONCE`] connections of each.
    pub(super) fn accept_again(&mut self, may: bool, now: Instant) -> Accepted {
        let mut accepted = Accepted::default();
        if self.handshakes.takes_more() {
            self.accept_again.append(&mut self.after_handshakes);
        }
        let rests = self.rests_until.is_some_and(|rest| now < self.rest_ends(rest, now));
        if may && !rests && !self.accept_again.is_empty() {
            self.rests_until = None;
            for index in std::mem::take(&mut self.accept_again) {
                self.accept_into(index, may, &mut accepted);
            }
            // One that leaves while others wait is no end of the lack.
            if self.accept_again.is_empty()
                && let Some((at, _)) = self.failed.take()
            {
                tracing::info!("connections are accepted again, after {:.1?}", at.elapsed());
            }
        }
        accepted
    }

    /// Accepts up to [`ACCEPTS_AT_ONCE`] connections of one listener, or remembers the listener.
    fn accept_into(&mut self, index: usize, may: bool, accepted: &mut Accepted) {
        if !may || self.rests_until.is_some() {
            self.accept_again.insert(index);
            return;
        }
        let tls = self.listeners.tls_service(index);
        if tls.is_some() && !self.handshakes.takes_more() {
            // Not due by itself: the handshaker's socket, or its next start, says when it goes on.
            self.after_handshakes.insert(index);
            return;
        }
        let room = match self.table.room(self.sockets()) {
            Ok(room) => room,
            Err(why) => return self.rest(index, why, accepted),
        };
        match self.listeners.udp_port(index) {
            None => {}
            // The port itself is handed to the worker as a connection is, once for its life.
            Some(Ok((fd, endpoint))) => return accepted.keys.push(self.connections.add_port(fd, endpoint)),
            Some(Err(e)) => return self.rest(index, e.to_string(), accepted),
        }
        for _ in 0..ACCEPTS_AT_ONCE.min(room) {
            match self.listeners.accept(index) {
                // The port was closed after the event.
                None => return,
                Some(Ok((fd, endpoint))) => {
                    self.accepts += 1;
                    match &tls {
                        Some(service) => self.handshakes.begin(fd, endpoint, service.clone()),
                        None => accepted.keys.push(self.connections.add(fd, endpoint).0),
                    }
                }
                Some(Err(e)) => match e.kind() {
                    // The queue is empty: the next connection causes an edge.
                    ErrorKind::WouldBlock => return,
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                    _ => return self.rest(index, e.to_string(), accepted),
                },
            }
        }
        self.accept_again.insert(index);
    }

    /// Rests after a failure, or before one. Descriptors of other threads become free without an
    /// event, so accepting is repeated. If nobody waits, there is nothing to rest from.
    fn rest(&mut self, index: usize, why: String, accepted: &mut Accepted) {
        if !self.listeners.has_waiting(index) {
            return;
        }
        if self.failed.is_none() {
            let connections = self.connections.len();
            tracing::warn!(
                connections,
                "connections can't be accepted ({why}); they wait until descriptors are free"
            );
            let since = rfc3339(unix_ms());
            let failing = Failing { what: "connections".into(), why, since, times: 1 };
            self.failed = Some((Instant::now(), failing));
            accepted.out_of_files = true;
        }
        self.accept_again.insert(index);
        self.rests_until = Some((Instant::now() + ACCEPT_REST, self.sockets()));
    }

    /// Sockets of peers that are held.
    fn sockets(&self) -> usize {
        self.connections.len() + self.handshakes.len()
    }

    /// End of a rest, which is `now` if there is room since.
    fn rest_ends(&self, (at, held): (Instant, usize), now: Instant) -> Instant {
        if self.sockets() < held { now } else { at }
    }

    /// Connections accepted so far.
    pub(super) fn accepts(&self) -> u64 {
        self.accepts
    }

    /// Reason why connections are not accepted. `None`: they are.
    pub(super) fn failing(&self) -> Option<Failing> {
        self.failed.as_ref().map(|(_, failing)| failing.clone())
    }

    /// Time of the next thing to do, if it `may` accept. Remembered listeners are due at once; if
    /// it may not, only outbound connections have a deadline.
    pub(super) fn deadline(&self, may: bool, now: Instant) -> Option<Instant> {
        let goes_on = !self.after_handshakes.is_empty() && self.handshakes.takes_more();
        let accepts = match self.rests_until {
            Some(rest) => Some(self.rest_ends(rest, now)),
            None => (goes_on || !self.accept_again.is_empty()).then_some(now),
        };
        let others = self.dialer.deadline().into_iter().chain(self.handshakes.deadline());
        accepts.filter(|_| may).into_iter().chain(others).min()
    }

    /// Opens ports, all or none, without accepting yet. See [`Listeners::open`].
    pub(super) fn open(&mut self, ports: Vec<Port>) -> Result<Vec<Address>, String> {
        self.listeners.open(ports)
    }

    /// Another descriptor of the socket at an address. See [`Listeners::lend`].
    pub(super) fn lend(&self, at: SocketAddr) -> Option<Result<OwnedFd, String>> {
        self.listeners.lend(at)
    }

    /// Takes the descriptors that systemd gave, for the ports that are opened.
    pub(super) fn take_given(&mut self, given: Vec<GivenDescriptor>) {
        self.listeners.take_given(given);
    }

    /// Names the descriptors of systemd that no port has.
    pub(super) fn name_unused(&self) {
        self.listeners.name_unused();
    }

    /// Notes the kinds of the ports that are opened next. See [`Listeners::open`].
    pub(super) fn kinds_of_next(&mut self, kinds: Vec<Box<str>>) {
        self.listeners.kinds_of_next(kinds);
    }

    /// Sets the times after which silent peers are given up, for connections from now on.
    pub(super) fn watch_peers(&mut self, watch: PeerWatch) {
        self.listeners.watch_peers(watch);
        self.dialer.watch = watch;
    }

    /// Whether the socket at an IPv6 address takes IPv4, too.
    pub(super) fn takes_ipv4(&self, addr: &Address) -> bool {
        self.listeners.takes_ipv4(addr)
    }

    /// Gives files of Unix sockets their access. See [`Listeners::allow`].
    pub(super) fn allow(&mut self, files: Vec<(Address, SocketFile)>) -> Result<(), String> {
        self.listeners.allow(files)
    }

    /// Closes ports that were opened for a reload that is not committed.
    pub(super) fn discard(&mut self, addrs: &[Address]) {
        self.listeners.discard(addrs);
    }

    /// Follows the ports of a worker that has become ready: accepts from these, closes all others.
    /// Returns the connections of ports that have moved.
    pub(super) fn follow_all(&mut self, registry: &Registry, ports: &[HeldPort]) -> Accepted {
        let (fresh, moved) = self.listeners.follow(registry, listener_token, ports, true);
        self.accept_again.extend(fresh);
        // Connections that came while no worker served have caused their edge already.
        self.accept_again.extend(self.listeners.accepting());
        self.take_in(moved, ports)
    }

    /// Follows a commit: accepts from these ports, closes the others, keeps those opened since.
    /// Returns the connections of ports that have moved.
    pub(super) fn follow(&mut self, registry: &Registry, ports: &[HeldPort]) -> Accepted {
        let (fresh, moved) = self.listeners.follow(registry, listener_token, ports, false);
        self.accept_again.extend(fresh);
        self.take_in(moved, ports)
    }

    /// Files of the Unix sockets that are accepted from.
    pub(super) fn socket_files(&self) -> Vec<MadeFile> {
        self.listeners.files_made()
    }

    /// Makes the file of a Unix socket anew. `None`: no port has it any more.
    pub(super) fn listen_anew(
        &mut self,
        registry: &Registry,
        gone: &MadeFile,
        ports: &[HeldPort],
    ) -> Result<Option<Accepted>, String> {
        let Some((index, waiting)) = self.listeners.bind_anew(registry, listener_token, gone)? else {
            return Ok(None);
        };
        self.accept_again.insert(index);
        Ok(Some(self.take_in(waiting, ports)))
    }

    /// Takes in connections that were accepted from ports that are closed by now.
    fn take_in(&mut self, moved: Queue, ports: &[HeldPort]) -> Accepted {
        let mut accepted = Accepted::default();
        for (fd, endpoint) in moved {
            let port = ports.iter().find(|p| p.endpoint == endpoint);
            match port.filter(|p| over_tls(&p.kind).is_some()) {
                Some(port) => self.handshakes.begin(fd, endpoint, port.port.0.clone()),
                None => accepted.keys.push(self.connections.add(fd, endpoint).0),
            }
        }
        accepted
    }

    /// Drops connections that are over: key and number of each. The last descriptor goes with them,
    /// so the kernel closes the connection. Repeatable: a key that holds another number stays.
    pub(super) fn drop(&mut self, connections: &[(u32, u64)]) {
        for &(key, number) in connections {
            self.connections.drop(key, number);
            self.dialer.forget(number);
            self.handshakes.forget(number);
        }
        // A descriptor is free.
        self.rests_until = self.rests_until.map(|_| (Instant::now(), 0));
    }

    /// Drops the connections whose peers have left. Returns their number. O(connections).
    pub(super) fn drop_left(&mut self) -> usize {
        let left = self.connections.left();
        self.drop(&left);
        left.len()
    }

    /// Number of connections whose peers have left, as the kernel knows. O(connections).
    pub(super) fn left(&self) -> usize {
        self.connections.left().len()
    }

    /// Number of connections.
    pub(super) fn connections(&self) -> usize {
        self.connections.without_ports()
    }

    /// Continues the numbers of connections above this one.
    pub(super) fn number_above(&mut self, number: u64) {
        self.connections.number_above(number);
    }

    /// Skips so many numbers of connections, and returns the first of them.
    pub(super) fn number_block(&mut self, count: u32) -> u64 {
        self.connections.number_block(count)
    }

    /// Keys of all connections, in the order of their numbers.
    pub(super) fn keys(&self) -> VecDeque<u32> {
        self.connections.keys()
    }

    /// The connections of these keys.
    pub(super) fn batch(&self, keys: impl Iterator<Item = u32>) -> Batch<'_> {
        self.connections.batch(keys)
    }
}

/// Token of a listener. Indexes stay far below 2^32, so tokens do not reach [`DIALED`].
fn listener_token(index: usize) -> Token {
    Token(LISTENERS + index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::keeper::EndpointId;
    use mio::Poll;
    use std::net::TcpStream;

    /// A port of this service, with this endpoint.
    fn held(service: &str, addr: &Address, endpoint: u32) -> HeldPort {
        HeldPort {
            port: (service.into(), addr.clone()),
            addr: addr.clone(),
            endpoint: EndpointId(endpoint),
            kind: "".into(),
        }
    }

    fn connect(addr: &Address) -> TcpStream {
        TcpStream::connect(addr.socket_addr().unwrap()).unwrap()
    }

    #[test]
    fn a_listener_that_may_not_be_accepted_from_is_remembered() {
        let poll = Poll::new().unwrap();
        let mut acceptor = Acceptor::default();
        let addr =
            acceptor.open(vec![("s".into(), Address::Tcp(([127, 0, 0, 1], 0).into()))]).unwrap().remove(0);
        acceptor.follow(poll.registry(), &[held("s", &addr, 1)]);
        let now = Instant::now();
        assert!(acceptor.accept_again(true, now).keys.is_empty());
        let _peer = connect(&addr);
        assert!(acceptor.accept(0, false).keys.is_empty());
        assert_eq!((acceptor.deadline(true, now), acceptor.deadline(false, now)), (Some(now), None));
        assert!(acceptor.accept_again(false, now).keys.is_empty());
        assert_eq!(acceptor.accept_again(true, now).keys, [0]);
        assert_eq!((acceptor.connections(), acceptor.deadline(true, now)), (1, None));
    }

    #[test]
    fn a_connection_keeps_the_endpoint_that_accepted_it() {
        let poll = Poll::new().unwrap();
        let mut acceptor = Acceptor::default();
        let any = || ("a".to_owned(), Address::Tcp(([127, 0, 0, 1], 0).into()));
        let first = acceptor.open(vec![any()]).unwrap().remove(0);
        acceptor.follow(poll.registry(), &[held("a", &first, 4)]);
        let _peers = [connect(&first), connect(&first)];
        let mut keys = acceptor.accept(0, true).keys;
        // The port goes over to another service, then closes; another service opens its address.
        acceptor.follow(poll.registry(), &[held("b", &first, 4)]);
        let _third = connect(&first);
        keys.extend(acceptor.accept(0, true).keys);
        acceptor.follow(poll.registry(), &[]);
        assert_eq!(acceptor.open(vec![("c".into(), first.clone())]), Ok(vec![first.clone()]));
        acceptor.follow(poll.registry(), &[held("c", &first, 5)]);
        let _fourth = connect(&first);
        keys.extend(acceptor.accept(1, true).keys);
        let batch = acceptor.batch(keys.into_iter());
        assert_eq!(batch.connections, [(0, 1), (1, 2), (2, 3), (3, 4)]);
        assert_eq!(batch.endpoints, [(EndpointId(4), 3), (EndpointId(5), 1)]);
    }
}
