//! Peers and their connections: both directions, as the kernel would keep them.

use crate::dialogues::Heard;
use crate::framings;
use crate::model::{Model, Subject};
use crate::roads::{Road, TlsClient, proxy_header};
use crate::verbs;
use crate::world::World;
use greenroom_core::framing::Framing;
use greenroom_core::framing::peer::LocalEnd;
use greenroom_core::ids::Slot;
use greenroom_core::input::Input;
use std::collections::{BTreeMap, VecDeque};

/// Peers at once.
pub(crate) const PEERS_MAX: usize = 12;

/// Port that peers over UDP send to.
const END: LocalEnd = LocalEnd { port: 5, ip: None };

/// A peer, and both directions of its connection.
pub(crate) struct Peer {
    /// Number of its session.
    pub(crate) id: u64,
    /// Road of its bytes.
    pub(crate) road: Road,
    /// Framing of its messages, in both directions.
    pub(crate) framing: Framing,
    /// End of TLS that it has.
    pub(crate) tls: Option<Box<TlsClient>>,
    /// Bytes of frames that it read in part, if WebSocket carries its stream.
    pub(crate) carried: Option<Vec<u8>>,
    /// Slot of its session.
    pub(crate) slot: Slot,
    /// Lines that it wrote. Over UDP: those that reached the host, by the last commit.
    pub(crate) lines: Vec<String>,
    /// Model of the session behind those.
    pub(crate) promised: Model,
    /// Model of the session behind those whose turns ran.
    pub(crate) run: Model,
    /// Lines under way in datagrams.
    pub(crate) datagrams: VecDeque<String>,
    /// Lines whose datagrams the host read since the last commit.
    pub(crate) fresh: Vec<String>,
    /// Answers may be lost: it is a peer over UDP, and the process died or its room was full.
    pub(crate) lossy: bool,
    /// Says nothing any more, and its session ends by that.
    pub(crate) silent: bool,
    /// Bytes that it wrote and is to read again: its stream is raw.
    pub(crate) wrote: Vec<u8>,
    /// Bytes of those that came back.
    pub(crate) echoed: usize,
    /// Whether it told the host of its end, by its framing or by TLS.
    pub(crate) goodbye: bool,
    /// Whether it read the last word of the host's framing.
    pub(crate) told: bool,
    /// Bytes that it wrote and the host did not read yet.
    pub(crate) to_host: VecDeque<u8>,
    /// The last line is written.
    pub(crate) done: bool,
    /// The host read the end of its stream.
    pub(crate) done_read: bool,
    /// Bytes that the kernel took and the peer did not read yet.
    pub(crate) from_host: VecDeque<u8>,
    /// Size of the kernel's send buffer, in bytes.
    pub(crate) room: usize,
    /// The kernel took less than it was offered, and announces when it takes more.
    pub(crate) blocked: bool,
    /// The host ended its side of the stream.
    pub(crate) shut: bool,
    /// Bytes read that are no whole message yet.
    pub(crate) raw: Vec<u8>,
    /// Text of the messages that it read, without the lines that were checked.
    pub(crate) received: Vec<u8>,
    /// Replies that were checked.
    pub(crate) replies: usize,
    /// Generation that the last reply named.
    pub(crate) last_generation: u64,
    /// Dialogues of its session, as it hears them.
    pub(crate) heard_of: Heard,
    /// Number of the last shout that it heard on each topic, since it joined the topic.
    pub(crate) heard: BTreeMap<String, u64>,
    /// Bytes that the host read in all, as the kernel counts.
    pub(crate) read: u64,
    /// Bytes that the kernel took in all.
    pub(crate) sent: u64,
    /// Bytes that the host read since the last commit.
    pub(crate) uncommitted: Vec<u8>,
    /// No commit covers its connection yet.
    pub(crate) unborn: bool,
    /// Number of the request, if the host connected to the peer.
    pub(crate) dialed: Option<u64>,
}

impl Peer {
    fn new(id: u64, slot: Slot, room: usize, (road, framing): (Road, Framing)) -> Peer {
        Peer {
            id,
            slot,
            road,
            framing,
            tls: None,
            carried: None,
            lines: Vec::new(),
            promised: Model::default(),
            run: Model::default(),
            datagrams: VecDeque::new(),
            fresh: Vec::new(),
            lossy: false,
            silent: false,
            wrote: Vec::new(),
            echoed: 0,
            goodbye: false,
            told: false,
            to_host: VecDeque::new(),
            done: false,
            done_read: false,
            from_host: VecDeque::new(),
            room,
            blocked: false,
            shut: false,
            raw: Vec::new(),
            received: Vec::new(),
            replies: 0,
            last_generation: 0,
            heard_of: Heard::default(),
            heard: BTreeMap::new(),
            read: 0,
            sent: 0,
            uncommitted: Vec::new(),
            unborn: true,
            dialed: None,
        }
    }

    /// Kind of the endpoint that it came to.
    fn kind(&self) -> String {
        let proxy = if self.road == Road::Proxied { "proxy+" } else { "" };
        let carrier = if self.carried.is_some() { "ws+" } else { "" };
        format!("{proxy}{carrier}{}", self.framing.kind())
    }

    /// Writes bytes of its stream, which WebSocket may carry.
    fn write(&mut self, bytes: &[u8], rng: &mut fastrand::Rng) {
        match self.carried {
            Some(_) if !bytes.is_empty() => self.write_as_they_are(&framings::in_fragments(bytes, rng)),
            _ => self.write_as_they_are(bytes),
        }
    }

    /// Writes bytes that no frame is around.
    fn write_as_they_are(&mut self, bytes: &[u8]) {
        match &mut self.tls {
            Some(tls) => self.to_host.extend(tls.seal(bytes)),
            None => self.to_host.extend(bytes),
        }
    }

    /// Writes no more. `tells`: the host is told before the stream ends, if there are words for it.
    /// A peer over UDP has no end, and asks the handler for one.
    pub(crate) fn end(&mut self, tells: bool, rng: &mut fastrand::Rng) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        if tells && self.speaks_websocket() {
            self.write_as_they_are(&framings::client_frame(0x88, b"\x03\xe8bye", rng));
            self.goodbye = true;
        }
        if let Framing::Peer { .. } = self.framing {
            self.datagrams.push_back("bye 0".into());
        }
        if let Some(tls) = self.tls.as_mut().filter(|_| tells) {
            self.to_host.extend(tls.close());
            self.goodbye = true;
        }
    }

    /// Whether WebSocket is its framing, or around that.
    pub(crate) fn speaks_websocket(&self) -> bool {
        self.carried.is_some() || matches!(self.framing, Framing::WebSocket { .. })
    }

    /// Reads bytes that the kernel took.
    fn take(&mut self, bytes: &[u8]) {
        let raw = self.carried.as_mut().unwrap_or(&mut self.raw);
        match &mut self.tls {
            Some(tls) => {
                let answer = tls.open(bytes, raw);
                assert!(answer.is_empty(), "the host asks for no other keys");
            }
            None => raw.extend(bytes),
        }
        assert!(!self.told || raw.is_empty(), "nothing follows on the host's last word");
        if let Some(frames) = &mut self.carried {
            self.told |= framings::read_websocket(frames, &mut self.raw);
        }
        self.told |= framings::read(self.framing, &mut self.raw, &mut self.received);
    }
}

/// Connections of the host, in every phase of their lives.
#[derive(Default)]
pub(crate) struct Network {
    /// Peers that have a session.
    pub(crate) peers: Vec<Peer>,
    /// Number of the last connection.
    pub(crate) opened: u64,
    /// Slots of the host's connections.
    pub(crate) slots: Slots,
    /// Slots whose peer is gone before the host closes them: turned away, or reset.
    pub(crate) ghosts: Vec<Slot>,
    /// Numbers of the connections that are being made.
    pub(crate) dialing: Vec<u64>,
}

impl Network {
    /// Index of the peer in a slot. O(peers).
    pub(crate) fn peer_in(&self, slot: Slot) -> Option<usize> {
        self.peers.iter().position(|p| p.slot == slot)
    }

    /// Index of the peer in a slot; `None` for a ghost. Panics for a slot that nobody knows.
    pub(crate) fn peer_or_ghost(&self, slot: Slot) -> Option<usize> {
        let at = self.peer_in(slot);
        assert!(at.is_some() || self.ghosts.contains(&slot), "a peer");
        at
    }

    /// Takes a peer away whose connection is no session.
    pub(crate) fn turn_away(&mut self, slot: Slot) {
        let at = self.peer_in(slot).expect("a peer");
        self.peers.swap_remove(at);
        self.ghosts.push(slot);
    }
}

/// Slots of connections. A slot that is closed is free from the next pass on.
#[derive(Default)]
pub(crate) struct Slots {
    count: u32,
    free: Vec<Slot>,
    freed: Vec<Slot>,
}

impl Slots {
    /// Slots of a worker that begins with so many connections.
    pub(crate) fn in_use(count: u32) -> Slots {
        Slots { count, ..Slots::default() }
    }

    /// A free slot, the one that was freed last, or a new one.
    pub(crate) fn take(&mut self) -> Slot {
        self.free.pop().unwrap_or_else(|| {
            self.count += 1;
            Slot(self.count - 1)
        })
    }

    /// Gives a slot back. It is not used in this pass.
    pub(crate) fn release(&mut self, slot: Slot) {
        self.freed.push(slot);
    }

    /// Frees the slots that were given back in this pass.
    pub(crate) fn pass_ended(&mut self) {
        self.free.append(&mut self.freed);
    }
}

impl World {
    /// Adds a peer on any road and in any framing that serves.
    pub(crate) fn arrive(&mut self) -> usize {
        let road = match self.rng.u8(0..6) {
            // The others close no session, and such a peer can't.
            0 if self.subject == Subject::Script => Road::Udp,
            _ => Road::draw(&mut self.rng),
        };
        let framing = match road {
            Road::Udp => self.builds.over_udp(),
            _ => {
                let framings = self.builds.of_streams(self.subject);
                framings[self.rng.usize(0..framings.len())]
            }
        };
        let at = self.add_peer((road, framing));
        let peer = &mut self.network.peers[at];
        if road == Road::Proxied {
            peer.to_host.extend(proxy_header(peer.id));
        }
        if road == Road::Tls {
            let tls = TlsClient::new(&mut self.rng);
            (peer.read, peer.sent) = tls.handshake_bytes();
            peer.tls = Some(Box::new(tls));
        }
        if self.rng.u8(0..4) == 0 && framing.may_be_inside() && road != Road::Udp {
            peer.carried = Some(Vec::new());
            self.counts.carried += 1;
        }
        let request = Framing::WebSocket { bytes_max: 0 };
        peer.write_as_they_are(framings::greeting(if peer.carried.is_some() { request } else { framing }));
        if self.rng.u8(..) < 12 && !peer.to_host.is_empty() {
            // It gives up in the middle of its header, or of its request.
            let most = self.rng.usize(0..peer.to_host.len());
            peer.to_host.truncate(most);
            peer.end(false, &mut self.rng);
        }
        at
    }

    /// Adds a peer that the host connects to.
    pub(crate) fn arrive_dialed(&mut self, number: u64) -> usize {
        let at = self.add_peer((Road::Tcp, self.builds.first_framing()));
        self.network.peers[at].dialed = Some(number);
        at
    }

    fn add_peer(&mut self, form: (Road, Framing)) -> usize {
        let slot = self.network.slots.take();
        self.network.opened += 1;
        let (id, room) = (self.network.opened, self.rng.usize(50..2000));
        self.network.peers.push(Peer::new(id, slot, room, form));
        self.network.peers.len() - 1
    }

    /// Tells the host of a peer's connection, which becomes a session if no limit is in the way.
    pub(crate) fn open(&mut self, at: usize) {
        let peer = &self.network.peers[at];
        let (slot, id, service) = (peer.slot, peer.id, self.host.service);
        let (kind, address) = (peer.kind(), peer.road.address());
        let tls = peer.tls.as_ref().map(|tls| tls.begin());
        self.host.core.handle(match (peer.dialed, peer.road) {
            (Some(number), _) => Input::Connected { number, slot, id, peer: address, at_ms: 0, tls: None },
            (None, Road::Udp) => Input::PeerHeard { slot, id, service, end: END, peer: address, at_ms: 0 },
            (None, _) => {
                let (kind, tls) = (&*kind, tls.as_ref());
                Input::Opened { slot, id, service, kind, peer: address, at_ms: 0, tls }
            }
        });
    }

    /// Has a peer write up to 39 lines.
    pub(crate) fn write_lines(&mut self, at: usize) {
        if self.network.peers[at].done {
            return;
        }
        let id = self.network.peers[at].id;
        let others: Vec<u64> = self.network.peers.iter().map(|p| p.id).filter(|other| *other != id).collect();
        let mut bytes = Vec::new();
        for _ in 0..self.rng.usize(1..40) {
            let line = self.random_line(&others);
            let peer = &mut self.network.peers[at];
            match peer.framing {
                Framing::Peer { .. } => peer.datagrams.push_back(line),
                Framing::Raw { .. } => {
                    let begin = bytes.len();
                    bytes.resize_with(begin + line.len(), || self.rng.u8(1..framings::RAW_BELOW));
                    peer.wrote.extend(&bytes[begin..]);
                }
                framing => {
                    bytes.extend(framings::written(framing, &line, &mut self.rng));
                    peer.lines.push(line);
                }
            }
        }
        self.network.peers[at].write(&bytes, &mut self.rng);
    }

    /// Draws a line. Verbs that need another session name one of `others`.
    fn random_line(&mut self, others: &[u64]) -> String {
        let verbs: &[&str] = match self.subject {
            Subject::Script => verbs::VERBS,
            Subject::Tally => &["any"],
            Subject::Asks => &["yes", "no", "well", "trip"],
        };
        let verb = match self.rng.choice(verbs) {
            // Rarely: it ends the conversation.
            Some(&("bye" | "limit")) if self.rng.u8(..) > 10 => "add",
            Some(&verb) => verb,
            None => "add",
        };
        let to_another = ["tell", "wait", "wake", "pass", "flood"].contains(&verb);
        // A raw stream holds no line, so its peer could not tell a passed one.
        let is_raw = |id: u64| {
            self.network.peers.iter().any(|p| p.id == id && matches!(p.framing, Framing::Raw { .. }))
        };
        let others: Vec<_> = others.iter().filter(|id| verb != "pass" || !is_raw(**id)).collect();
        match self.rng.choice(others).filter(|_| to_another) {
            Some(other) => format!("{verb} {other}"),
            None if to_another => "add 1".into(),
            None if verb == "long" => verbs::long_line(),
            // No two answers are alike.
            None if self.subject == Subject::Asks => format!("{verb} {}", self.rng.u32(..)),
            None => format!("{verb} {}", self.rng.u8(..20)),
        }
    }

    /// Has a peer read some of its input, or all.
    pub(crate) fn read(&mut self, at: usize, all: bool) {
        let peer = &mut self.network.peers[at];
        let n = if all { peer.from_host.len() } else { self.rng.usize(0..=peer.from_host.len()) };
        let bytes: Vec<u8> = peer.from_host.drain(..n).collect();
        peer.take(&bytes);
        self.check_received(at);
    }

    /// Takes a peer away that saw the end of its session.
    pub(crate) fn closed(&mut self, at: usize) {
        self.read(at, true);
        let mut peer = self.network.peers.swap_remove(at);
        self.check_closed(&mut peer);
        self.count_dialogues(&peer);
    }

    /// Takes a peer away that left too much untaken. What it got so far is what it was to get.
    pub(crate) fn reset_by_host(&mut self, at: usize) {
        self.read(at, true);
        self.network.peers.swap_remove(at);
    }
}
