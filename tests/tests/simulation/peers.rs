//! Peers and their connections: both directions, as the kernel would keep them.

use crate::framings;
use crate::model::Subject;
use crate::verbs;
use crate::world::World;
use greenroom_core::ids::Slot;
use std::collections::{BTreeMap, VecDeque};

/// Peers at once.
pub(crate) const PEERS_MAX: usize = 12;

/// A peer, and both directions of its connection.
pub(crate) struct Peer {
    /// Number of its session.
    pub(crate) id: u64,
    /// Slot of its session.
    pub(crate) slot: Slot,
    /// Lines that it wrote.
    pub(crate) lines: Vec<String>,
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
    fn new(id: u64, slot: Slot, room: usize, dialed: Option<u64>) -> Peer {
        Peer {
            id,
            slot,
            lines: Vec::new(),
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
            heard: BTreeMap::new(),
            read: 0,
            sent: 0,
            uncommitted: Vec::new(),
            unborn: true,
            dialed,
        }
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
    /// Adds a peer, and returns its session's number and slot.
    pub(crate) fn arrive(&mut self, dialed: Option<u64>) -> (u64, Slot) {
        let slot = self.network.slots.take();
        self.network.opened += 1;
        let (id, room) = (self.network.opened, self.rng.usize(50..2000));
        self.network.peers.push(Peer::new(id, slot, room, dialed));
        (id, slot)
    }

    /// Has a peer write up to 39 lines.
    pub(crate) fn write_lines(&mut self, at: usize) {
        if self.network.peers[at].done {
            return;
        }
        let id = self.network.peers[at].id;
        let others: Vec<u64> = self.network.peers.iter().map(|p| p.id).filter(|other| *other != id).collect();
        for _ in 0..self.rng.usize(1..40) {
            let line = self.random_line(&others);
            let bytes = framings::written(self.builds.serving.framing, &line, &mut self.rng);
            let peer = &mut self.network.peers[at];
            peer.to_host.extend(bytes);
            peer.lines.push(line);
        }
    }

    /// Draws a line. Verbs that need another session name one of `others`.
    fn random_line(&mut self, others: &[u64]) -> String {
        let verbs: &[&str] = match self.subject {
            Subject::Script => verbs::VERBS,
            Subject::Tally => &["any"],
        };
        let verb = match self.rng.choice(verbs) {
            // Rarely: it ends the conversation.
            Some(&"bye") if self.rng.u8(..) > 10 => "add",
            Some(&verb) => verb,
            None => "add",
        };
        let to_another = verb == "tell" || verb == "wait";
        match self.rng.choice(others).filter(|_| to_another) {
            Some(other) => format!("{verb} {other}"),
            None if to_another => "add 1".into(),
            None => format!("{verb} {}", self.rng.u8(..20)),
        }
    }

    /// Has a peer read some of its input, or all.
    pub(crate) fn read(&mut self, at: usize, all: bool) {
        let peer = &mut self.network.peers[at];
        let n = if all { peer.from_host.len() } else { self.rng.usize(0..=peer.from_host.len()) };
        peer.raw.extend(peer.from_host.drain(..n));
        framings::read(self.builds.serving.framing, &mut peer.raw, &mut peer.received);
        self.check_received(at);
    }

    /// Takes a peer away that saw the end of its session.
    pub(crate) fn closed(&mut self, at: usize) {
        self.read(at, true);
        let peer = self.network.peers.swap_remove(at);
        self.check_closed(&peer);
    }

    /// Takes a peer away that left too much untaken. What it got so far is what it was to get.
    pub(crate) fn reset_by_host(&mut self, at: usize) {
        self.read(at, true);
        self.network.peers.swap_remove(at);
    }
}
