//! Outbound connections: asked for by a turn, made by the shell, and then sessions like any other.
//!
//! A connection is asked for with the commit of the turn that wants it, and its record stays until it is open or has failed: whatever
//! process serves then, the one that asked is told once. If the process dies meanwhile, it may be tried again.

use crate::command::Command;
use crate::core::Core;
use crate::effects::asked::{ACTION_HEAD, ADDR_BYTES_MAX, CONNECT_HEAD, Connect};
use crate::ids::{ServiceId, Slot};
use crate::limits::names::Limit;
use crate::operate::inspect::ConnectView;
use crate::pass::deliver::{Data, PendingAction};
use crate::session::life::Life;
use crate::store::kind::Kind;
use crate::store::layout::Ref;
use greenroom_state::abi::{action, connect, level};
use std::net::SocketAddr;

/// A pass can't ask for as many connections as these bits count.
const CONNECTS_PER_PASS_BITS: u32 = 20;

/// A connection to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dial {
    /// By this number its outcome is told.
    pub number: u64,
    /// Where to.
    pub addr: SocketAddr,
}

/// A connect's record: its number (u64, little-endian), service and length of the address (u16 each), four bytes of nothing, the
/// address, the context.
fn encode(number: u64, service: ServiceId, addr: SocketAddr, context: &[u8]) -> Vec<u8> {
    let addr = addr.to_string();
    let mut bytes = Vec::with_capacity(CONNECT_HEAD + addr.len() + context.len());
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&service.0.to_le_bytes());
    bytes.extend_from_slice(&(addr.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(addr.as_bytes());
    bytes.extend_from_slice(context);
    bytes
}

fn decode(bytes: &[u8]) -> Option<(u64, ServiceId, SocketAddr, &[u8])> {
    let (head, rest) = bytes.split_at_checked(CONNECT_HEAD)?;
    let short = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    let (addr, context) = rest.split_at_checked(usize::from(short(10)))?;
    let addr = std::str::from_utf8(addr).ok()?.parse().ok()?;
    Some((u64::from_le_bytes(head[..8].try_into().ok()?), ServiceId(short(8)), addr, context))
}

impl Core {
    /// Asks for a connection. There must be room.
    pub(crate) fn connect(
        &mut self,
        slot: Slot,
        number: u64,
        service: ServiceId,
        addr: SocketAddr,
        context: &[u8],
    ) {
        let Some(owner) = self.sessions.get(slot).map(|s| s.id) else { return };
        let put = self.store.put(None, Kind::Connect, owner, &encode(number, service, addr, context));
        let record = put.expect("room was made sure of before");
        self.connects.last = self.connects.last.max(number);
        self.connects.all.insert(number, Connect { owner, service, addr, record });
        self.connects.begun.push(number);
    }

    /// The connections to make, after a commit.
    pub fn take_connects(&mut self) -> Vec<Dial> {
        let begun = std::mem::take(&mut self.connects.begun);
        let all = &self.connects.all;
        begun.into_iter().filter_map(|number| Some(Dial { number, addr: all.get(&number)?.addr })).collect()
    }

    /// Those that are being made for a session, or for a service's own turns.
    pub(crate) fn connects_of(&self, owner: u64) -> Vec<ConnectView> {
        let own = self.connects.all.iter().filter(|(_, c)| c.owner == owner);
        let view = |(&number, c): (&u64, &Connect)| {
            let service = self.services[usize::from(c.service.0)].offer.name.clone();
            ConnectView { number, service, addr: c.addr }
        };
        own.map(view).collect()
    }

    /// A session ends, and wants no connection any more.
    pub(crate) fn drop_connects(&mut self, slot: Slot) {
        if let Some(waiting) = self.connects.held.remove(&slot) {
            self.let_go_on(waiting);
        }
        let Some(id) = self.sessions.get(slot).map(|s| s.id) else { return };
        if self.connects.all.is_empty() {
            return;
        }
        let own: Vec<u64> =
            self.connects.all.iter().filter(|(_, c)| c.owner == id).map(|(n, _)| *n).collect();
        for number in own {
            if let Some(c) = self.connects.all.remove(&number) {
                self.store.delete(c.record);
            }
        }
    }

    /// A connection is open: it becomes a session, unless nobody wants it any more.
    pub(crate) fn connected(&mut self, number: u64, slot: Slot, id: u64, peer: SocketAddr, at_ms: u64) {
        let Some(Connect { owner, service, record, .. }) = self.connects.all.remove(&number) else {
            self.note_served(id);
            self.effects.push(Command::Close { slot, id });
            return;
        };
        let context = self.store.read(record, |b| decode(b).map(|(.., c)| c.to_vec())).unwrap_or_default();
        self.store.delete(record);
        if let Err(why) = self.admit(slot, id, service, peer, at_ms, true) {
            self.tell_of_connect(owner, number, connect::FAILED, why.as_bytes());
            return;
        }
        let room = self.store.reserve([ACTION_HEAD + context.len()]);
        if room {
            let data = Data::Own(&context);
            let from = crate::ids::told(owner);
            self.cause(
                slot,
                &PendingAction { kind: action::DIALED, detail: 0, from, depth: 0, name: "", data },
            );
        } else {
            self.say_reached(Limit::StoreBytesMax, level::ERROR, slot, "what it was opened for is lost");
        }
        self.tell_of_connect(owner, number, connect::OPEN, id.to_string().as_bytes());
    }

    /// A connection can't be made.
    pub(crate) fn connect_failed(&mut self, number: u64, why: &str) {
        let Some(c) = self.connects.all.remove(&number) else { return };
        self.store.delete(c.record);
        self.tell_of_connect(c.owner, number, connect::FAILED, why.as_bytes());
    }

    fn tell_of_connect(&mut self, owner: u64, number: u64, detail: u32, data: &[u8]) {
        let Some(slot) = self.sessions.slot_of(owner) else { return };
        // A reserve is kept for what must not fail; this is short.
        let data = Data::Own(&data[..data.len().min(ADDR_BYTES_MAX * 4)]);
        let (kind, detail) = (action::CONNECT, detail as u16);
        self.cause(slot, &PendingAction { kind, detail, from: number, depth: 0, name: "", data });
    }

    /// Takes a connect that recovery found into the index. It is asked for again.
    pub(crate) fn recover_connect(&mut self, owner: u64, record: Ref) {
        let read = self.store.read(record, |b| decode(b).map(|(n, s, a, _)| (n, s, a)));
        let alive = self.sessions.slot_of(owner).is_some();
        let services = self.services.len();
        match read
            .filter(|(n, s, _)| alive && usize::from(s.0) < services && !self.connects.all.contains_key(n))
        {
            Some((number, service, addr)) => {
                self.connects.last = self.connects.last.max(number);
                self.connects.all.insert(number, Connect { owner, service, addr, record });
                self.connects.begun.push(number);
            }
            None => self.store.delete(record),
        }
    }

    /// No number is used again, as whoever makes the connections remembers some.
    pub(crate) fn number_connects(&mut self) {
        self.connects.last = self.connects.last.max(self.store.epoch() << CONNECTS_PER_PASS_BITS);
    }

    /// A session's input waits while another one's peer has too much output to take.
    pub(crate) fn hold_for(&mut self, slot: Slot, other: u64) {
        let Some(other) = self.sessions.slot_of(other).filter(|o| *o != slot && !o.is_service()) else {
            return;
        };
        let full = self.must_pause(other);
        if full && let Some(s) = self.sessions.get_mut(slot).filter(|s| s.life == Life::Open) {
            s.waits = true;
            let waiting = self.connects.held.entry(other).or_default();
            if !waiting.contains(&slot) {
                waiting.push(slot);
            }
        }
    }

    /// A session's peer has taken its output.
    pub(crate) fn release_held(&mut self, slot: Slot) {
        if !self.connects.held.is_empty()
            && let Some(waiting) = self.connects.held.remove(&slot)
        {
            self.let_go_on(waiting);
        }
    }

    fn let_go_on(&mut self, waiting: Vec<Slot>) {
        for slot in waiting {
            if let Some(s) = self.sessions.get_mut(slot) {
                s.waits = false;
            }
            self.resume(slot);
        }
    }
}
