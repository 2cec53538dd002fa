//! Datagrams of a worker: those that were read, those to send, and the peers that have sessions.
//!
//! The keeper holds each port, and hands it to a worker like a connection that lasts as long as the
//! port. A worker that dies leaves what the kernel has queued to its successor.
//!
//! | kind of the port | a datagram | its answers |
//! | --- | --- | --- |
//! | `datagram` | an action of the service itself | datagrams of the turn |
//! | `peer` | a message of its peer's session, which opens with the first one | output of the
//! session |
//!
//! *Invariant*: datagrams go each way at most once. What was read and not committed is lost with a
//! worker, and so is what was committed and not sent. What the kernel does not take at once is
//! dropped: nobody waits for room that a network does not promise.
//!
//! Up to [`AT_ONCE`] datagrams are one system call, each way. Datagrams that a pass has no time for
//! stay in the buffer for the next one. The buffer is made with the first port: 4 MiB of addresses,
//! of which datagrams touch what they need.

use crate::net::sockets::datagrams_token;
use crate::protocol::keeper::{EndpointId, HeldPort, ToKeeper};
use crate::worker::keeper_link::KeeperLink;
use crate::worker::reload::ports::Ports;
use crate::worker::transfer::Sockets;
use crate::worker::udp_socket::{AT_ONCE, HeardDatagram, Outgoing, UdpSocket};
use greenroom_core::core::Core;
use greenroom_core::effects::datagrams::DatagramsToSend;
use greenroom_core::framing::Framing;
use greenroom_core::framing::peer::{self, DATAGRAM_BYTES_MAX, LENGTH_BYTES, LocalEnd};
use greenroom_core::ids::Slot;
use greenroom_core::input::Input;
use greenroom_state::address::Peer;
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::net::{SocketType, sockopt};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};

/// Bytes of a place in the buffer: the longest datagram behind its length.
const PLACE_BYTES: usize = LENGTH_BYTES + (1 << 16);
/// Datagrams that one call asks for, at least. Each costs a header, whether it comes or not.
const ASKED_MIN: usize = 8;
/// Numbers that are asked for at a time, for sessions of peers.
const NUMBERS: u32 = 1024;

/// UDP port, as the keeper has handed it over.
struct UdpPort {
    endpoint: EndpointId,
    /// Key and number by which the keeper releases it.
    held: (u32, u64),
    socket: UdpSocket,
}

/// Peer that has a session.
struct KnownPeer {
    end: LocalEnd,
    addr: SocketAddr,
}

/// Numbers for sessions, as the keeper gave them.
#[derive(Default)]
struct Numbers {
    next: u64,
    left: u32,
    /// Asked for, and not answered.
    asked: bool,
}

/// UDP ports, peers with sessions, and the memory of reads and sends.
#[derive(Default)]
pub(super) struct Datagrams {
    /// Ports by place. An index is never used again, so an event names no later port.
    ports: Vec<Option<UdpPort>>,
    /// Sessions by the two ends of their datagrams. A peer that sends to two addresses of a port
    /// has two: each answers from its own.
    sessions: HashMap<(LocalEnd, SocketAddr), Slot>,
    /// Peers by slot: the other direction.
    peers: HashMap<Slot, KnownPeer>,
    numbers: Numbers,
    /// Ports that may have datagrams, by place, each once. The first one was read the longest ago.
    ready: VecDeque<usize>,
    /// Those that wait for numbers. The kernel keeps their datagrams meanwhile.
    waiting: BTreeSet<usize>,
    /// Datagrams that were read. Those before `run` are done with.
    heard: Vec<HeardDatagram>,
    run: usize,
    /// Endpoint that they came to.
    heard_by: EndpointId,
    /// Datagrams of the last call: the next one asks for twice as many.
    came: usize,
    /// Places of the datagrams. Empty until there is a port.
    buffer: Vec<u8>,
    /// Datagrams run one at a time, as a predecessor was killed by its own work.
    pub(super) one_by_one: bool,
    /// Scratch of sends.
    to_send: DatagramsToSend,
    without: Vec<Slot>,
    output: Vec<u8>,
}

/// Whether a descriptor is a UDP port.
pub(super) fn is_udp(fd: &OwnedFd) -> bool {
    sockopt::socket_type(fd).is_ok_and(|t| t == SocketType::DGRAM)
}

/// Whether the peers of a port have sessions.
pub(super) fn is_of_peers(port: &HeldPort) -> bool {
    &*port.kind == Framing::Peer { bytes_max: 0 }.kind()
}

impl Numbers {
    /// Takes the next number. `None`: the keeper has not given any yet.
    fn take(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        self.next += 1;
        Some(self.next - 1)
    }
}

impl Datagrams {
    /// Takes numbers for sessions. Those of an earlier block that are left are not used.
    pub(super) fn add_numbers(&mut self, first: u64, count: u32) {
        self.numbers = Numbers { next: first, left: count, asked: false };
        std::mem::take(&mut self.waiting).into_iter().for_each(|place| self.is_ready(place));
    }

    /// Notes that a port has datagrams. O(ports).
    pub(super) fn is_ready(&mut self, place: usize) {
        if !self.ready.contains(&place) {
            self.ready.push_back(place);
        }
    }

    /// Number of ports that may have datagrams.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Whether the next pass must not sleep.
    pub(super) fn read_again(&self) -> bool {
        self.is_left() || !self.ready.is_empty()
    }

    /// Forgets the peer of a session that has ended. False: the slot is of no such session.
    pub(super) fn forget(&mut self, slot: Slot) -> bool {
        let Some(KnownPeer { end, addr }) = self.peers.remove(&slot) else { return false };
        self.sessions.remove(&(end, addr));
        true
    }

    /// Knows the peer of a session that a predecessor has left.
    pub(super) fn take_over(&mut self, core: &Core, slot: Slot) {
        let Some(session) = core.sessions().get(slot) else { return };
        if let (Peer::Udp(addr), Some(end)) = (&session.peer, session.udp_end()) {
            self.know(slot, end, **addr);
        }
    }

    /// Knows a peer.
    pub(super) fn know(&mut self, slot: Slot, end: LocalEnd, addr: SocketAddr) {
        self.sessions.insert((end, addr), slot);
        self.peers.insert(slot, KnownPeer { end, addr });
    }

    /// Adds a port, and has the poll watch it.
    pub(super) fn add(
        &mut self,
        registry: &Registry,
        held: (u32, u64),
        endpoint: EndpointId,
        socket: OwnedFd,
    ) -> std::io::Result<()> {
        let (socket, place) = (UdpSocket::new(socket)?, self.ports.len());
        registry.register(&mut SourceFd(&socket.as_raw_fd()), datagrams_token(place), Interest::READABLE)?;
        self.ports.push(Some(UdpPort { endpoint, held, socket }));
        // What came before is no edge for this poll.
        self.is_ready(place);
        if self.buffer.is_empty() {
            // Zeros of the kernel: nothing is touched before a datagram is.
            self.buffer = vec![0; AT_ONCE * PLACE_BYTES];
        }
        Ok(())
    }

    /// Place of an endpoint's port.
    pub(super) fn place_of(&self, endpoint: EndpointId) -> Option<usize> {
        self.ports.iter().position(|p| p.as_ref().is_some_and(|p| p.endpoint == endpoint))
    }

    /// Has the keeper release ports that do not count any more, and asks it for numbers if a port
    /// needs them. O(ports).
    pub(super) fn follow(&mut self, ports: &Ports, keeper: &mut KeeperLink, registry: &Registry) {
        if self.ports.is_empty() {
            return;
        }
        for place in &mut self.ports {
            let Some(port) = place else { continue };
            if ports.held().iter().any(|p| p.endpoint == port.endpoint) {
                continue;
            }
            let _ = registry.deregister(&mut SourceFd(&port.socket.as_raw_fd()));
            keeper.release(port.held.0, port.held.1);
            *place = None;
        }
        if self.numbers.left < NUMBERS / 4 && !self.numbers.asked && ports.held().iter().any(is_of_peers) {
            self.numbers.asked = true;
            keeper.send(&ToKeeper::Number(NUMBERS));
        }
    }

    /// Takes the next datagrams that were read, at most `most`: the endpoint that they came to, and
    /// their places. A predecessor may have been killed by one: then they come one at a time, and
    /// the next death names its datagram. `None`: all have been taken.
    pub(super) fn take_heard(&mut self, most: usize) -> Option<(EndpointId, Range<usize>)> {
        let (from, most) = (self.run, if self.one_by_one { 1 } else { most });
        self.run = self.heard.len().min(from + most);
        (from < self.run).then_some((self.heard_by, from..self.run))
    }

    /// End at the host that a datagram came to.
    pub(super) fn end(&self, at: usize) -> LocalEnd {
        LocalEnd { port: self.heard_by.0, ip: self.heard[at].to }
    }

    /// Session of the peer that a datagram came from. A session that an older binary has left knows
    /// no address of the host, and takes this one.
    pub(super) fn session(&mut self, at: usize, from: SocketAddr) -> Option<Slot> {
        let end = self.end(at);
        let known = self.sessions.get(&(end, from)).copied();
        if known.is_some() || end.ip.is_none() {
            return known;
        }
        let slot = self.sessions.remove(&(LocalEnd { ip: None, ..end }, from))?;
        self.know(slot, end, from);
        Some(slot)
    }

    /// Takes a number for the session of a new peer. `None`: the keeper has not given any.
    pub(super) fn take_number(&mut self) -> Option<u64> {
        self.numbers.take()
    }

    /// Whether datagrams that were read wait for their turns.
    pub(super) fn is_left(&self) -> bool {
        self.run < self.heard.len()
    }

    /// Receives datagrams of one port. False: no port has any.
    pub(super) fn receive(&mut self, ports: &Ports) -> bool {
        while let Some(place) = self.ready.pop_front() {
            let Some(Some(port)) = self.ports.get_mut(place) else { continue };
            let held = ports.held().iter().find(|p| p.endpoint == port.endpoint);
            if held.is_some_and(is_of_peers) && (self.numbers.left as usize) < AT_ONCE {
                self.waiting.insert(place);
                continue;
            }
            (self.heard_by, self.run) = (port.endpoint, 0);
            self.heard.clear();
            let most = (2 * self.came).clamp(ASKED_MIN, AT_ONCE);
            let places = self.buffer.chunks_exact_mut(PLACE_BYTES).map(|p| &mut p[LENGTH_BYTES..]);
            match port.socket.receive(places.take(most), &mut self.heard) {
                Ok(()) => {}
                Err(nix::Error::EINTR) => self.is_ready(place),
                // Empty, or an error of an earlier send: the next datagram is reported.
                Err(_) => continue,
            }
            self.came = self.heard.len();
            // Fewer than asked for: the port is empty, and the poll reports the next one.
            if self.came == most {
                self.is_ready(place);
            }
            return true;
        }
        false
    }

    /// Datagram that was read, with its address. `None`: that is of no known family.
    pub(super) fn datagram(&self, at: usize) -> Option<(SocketAddr, &[u8])> {
        let begin = at * PLACE_BYTES + LENGTH_BYTES;
        Some((self.heard[at].from?, &self.buffer[begin..begin + self.heard[at].len]))
    }

    /// Datagram that was read, behind its length.
    pub(super) fn framed(&mut self, at: usize) -> &[u8] {
        let len = self.heard[at].len;
        let place = &mut self.buffer[at * PLACE_BYTES..][..LENGTH_BYTES + len];
        // At most the longest datagram, so it fits.
        place[..LENGTH_BYTES].copy_from_slice(&(len as u16).to_be_bytes());
        place
    }

    /// Sends the datagrams of the pass, and the output of peers' sessions. All that is sent or
    /// dropped is booked in the core. The caller has committed.
    pub(super) fn send(&mut self, core: &mut Core, sockets: &mut Sockets, ports: &Ports) {
        if self.ports.is_empty() {
            return;
        }
        sockets.take_without(&mut self.without);
        for slot in std::mem::take(&mut self.without) {
            self.send_output(core, slot);
        }
        let mut to_send = std::mem::take(&mut self.to_send);
        core.take_datagrams(&mut to_send);
        if !to_send.is_empty() {
            let mut all = Vec::with_capacity(to_send.len());
            all.extend(to_send.iter().filter_map(|d| {
                let name = &core.services()[usize::from(d.service.0)].offer.name;
                let place = self.port_for(ports, name, EndpointId(d.from.port), d.to)?;
                Some((place, Outgoing { from: d.from.ip, to: d.to, bytes: d.bytes }))
            }));
            // Stable: datagrams of a port stay in their order. Mostly all are of one.
            all.sort_by_key(|(place, _)| *place);
            for of_port in all.chunk_by(|(a, _), (b, _)| a == b) {
                let datagrams: Vec<_> = of_port.iter().map(|(_, d)| *d).collect();
                self.transmit(of_port[0].0, &datagrams);
            }
        }
        to_send.clear();
        self.to_send = to_send;
    }

    /// Port to send from: the named one, or the service's first one of the address's family.
    fn port_for(&self, ports: &Ports, service: &str, named: EndpointId, to: SocketAddr) -> Option<usize> {
        if !named.is_none() {
            return self.place_of(named);
        }
        let mut own = ports.of_service(service).filter_map(|p| self.place_of(p.endpoint));
        own.find(|place| self.ports[*place].as_ref().is_some_and(|p| p.socket.is_v4() == to.is_ipv4()))
    }

    /// Sends the output of a peer's session, a datagram for each message. Output of a port that is
    /// closed is dropped.
    fn send_output(&mut self, core: &mut Core, slot: Slot) {
        let Some(KnownPeer { end, addr: to }) = self.peers.get(&slot) else { return };
        let (place, from, to) = (self.place_of(EndpointId(end.port)), end.ip, *to);
        let mut output = std::mem::take(&mut self.output);
        output.clear();
        // Pieces hold whole datagrams, but one may be in two of them.
        while core.output(slot, |pieces| pieces.iter().for_each(|p| output.extend_from_slice(p))).is_some() {
            let mut datagrams = Vec::new();
            let mut rest = &output[..];
            while let Some((bytes, behind)) = peer::take(rest) {
                datagrams.push(Outgoing { from, to, bytes });
                rest = behind;
            }
            // Output that is no datagrams is damage, and goes nowhere.
            let bytes = if datagrams.is_empty() { output.len() } else { output.len() - rest.len() };
            if let Some(place) = place {
                self.transmit(place, &datagrams);
            }
            core.handle(Input::Sent { slot, bytes, blocked: false });
            output.clear();
        }
        self.output = output;
    }

    /// Sends datagrams from a port.
    fn transmit(&mut self, place: usize, datagrams: &[Outgoing<'_>]) {
        if let Some(Some(port)) = self.ports.get_mut(place) {
            port.socket.send(datagrams);
        }
    }
}

const _: () = assert!(DATAGRAM_BYTES_MAX < 1 << 16);
