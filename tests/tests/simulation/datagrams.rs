//! Datagrams: those of peers that have sessions, and those of the service itself.
//!
//! The network loses none here. A dying process loses what it has read and not committed, and what
//! it has not sent. Nothing is run twice, and nothing is sent twice.

use crate::model::Subject;
use crate::roads::ADDR;
use crate::world::World;
use greenroom_core::effects::datagrams::DatagramsToSend;
use greenroom_core::framing::peer::{self, LocalEnd};
use greenroom_core::input::Input;
use std::collections::{BTreeSet, VecDeque};

/// Port of the service itself.
const END: LocalEnd = LocalEnd { port: 6, ip: None };

/// Datagrams of the service itself: the first word of each is its number.
#[derive(Default)]
pub(crate) struct Datagrams {
    /// Number of the last one.
    sent: u64,
    /// Datagrams that the host did not read yet.
    waiting: VecDeque<String>,
    /// Numbers that were answered.
    answered: BTreeSet<u64>,
}

impl Datagrams {
    /// Whether the turn of a datagram is to fail.
    pub(crate) fn fails(number: u64) -> bool {
        number.is_multiple_of(5)
    }
}

impl World {
    /// Sends up to nine datagrams to the service itself.
    pub(crate) fn somebody_sends_datagrams(&mut self) {
        // The others have no turn for them.
        if self.subject != Subject::Script {
            return self.time_passes();
        }
        for _ in 0..self.rng.usize(1..10) {
            self.datagrams.sent += 1;
            let number = self.datagrams.sent;
            let verb = if Datagrams::fails(number) { "fail" } else { "answer" };
            self.datagrams.waiting.push_back(format!("{number} {verb}"));
        }
    }

    /// Reads some of the datagrams to the service itself, or all.
    pub(crate) fn read_datagrams(&mut self, whole: bool) {
        let waiting = self.datagrams.waiting.len();
        let n = if whole { waiting } else { self.rng.usize(0..=waiting) };
        if n == 0 {
            return;
        }
        let read: Vec<String> = self.datagrams.waiting.drain(..n).collect();
        let from = ADDR.parse().expect("an address");
        let datagrams: Vec<_> = read.iter().map(|d| (from, d.as_bytes())).collect();
        let service = self.host.service;
        self.host.core.handle(Input::Datagrams { service, end: END, datagrams: &datagrams });
    }

    /// Sends the answers to datagrams, and checks that their turns were committed once.
    pub(crate) fn send_datagrams(&mut self) {
        let mut to_send = DatagramsToSend::default();
        self.host.core.take_datagrams(&mut to_send);
        for d in to_send.iter() {
            self.trace.note("datagram", &[u64::from(d.from.port)], d.bytes);
            assert_eq!((d.from, &*d.to.to_string()), (END, ADDR), "answers go where it came from");
            let number = String::from_utf8_lossy(d.bytes).parse().expect("a number");
            assert_eq!(self.counter(&format!("once:datagram {number}")), 1, "datagram {number} ran once");
            assert!(self.datagrams.answered.insert(number), "datagram {number} is answered twice");
            self.counts.datagrams_answered += 1;
        }
    }

    /// Reads some datagrams of a peer that has a session, or all. The host drops one that the
    /// session does not want now, and the others come later.
    pub(crate) fn read_datagrams_of(&mut self, at: usize, whole: bool) {
        let waiting = self.network.peers[at].datagrams.len();
        let n = if whole { waiting } else { self.rng.usize(0..=waiting) };
        for _ in 0..n {
            let peer = &mut self.network.peers[at];
            let Some(line) = peer.datagrams.pop_front() else { return };
            let slot = peer.slot;
            if !self.host.core.wants_input(slot) {
                self.counts.datagrams_lost += 1;
                return;
            }
            let mut bytes = (line.len() as u16).to_be_bytes().to_vec();
            bytes.extend(line.as_bytes());
            peer.fresh.push(line);
            self.host.core.handle(Input::Received { slot, bytes: &bytes });
        }
    }

    /// Sends a peer the output of its session, a datagram for each message. The kernel drops all of
    /// it if it has no room.
    pub(crate) fn send_datagrams_to(&mut self, at: usize) {
        let peer = &self.network.peers[at];
        let (slot, is_full) = (peer.slot, peer.from_host.len() > 4 * peer.room);
        while let Some(output) = self.host.core.output(slot, |pieces| pieces.concat()) {
            let Some(at) = self.network.peer_in(slot) else { return };
            let peer = &mut self.network.peers[at];
            let mut rest = &output[..];
            while let Some((datagram, behind)) = peer::take(rest) {
                let bytes = &rest[..rest.len() - behind.len()];
                self.trace.note("sent", &[peer.id], datagram);
                if is_full {
                    peer.lossy = true;
                    self.counts.datagrams_lost += 1;
                } else {
                    peer.from_host.extend(bytes);
                }
                rest = behind;
            }
            assert_eq!(rest, b"", "output holds whole datagrams");
            self.host.core.handle(Input::Sent { slot, bytes: output.len(), blocked: false });
        }
    }

    /// Checks that datagrams whose turns failed left nothing.
    pub(crate) fn check_datagrams(&self) {
        for number in (1..=self.datagrams.sent).filter(|n| Datagrams::fails(*n)) {
            assert_eq!(self.counter(&format!("once:datagram {number}")), 0, "datagram {number} failed");
        }
    }
}
