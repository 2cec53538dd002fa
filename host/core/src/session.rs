//! A session's life, and what is kept in fast memory about it. All of it but indexes is also in its record.
//!
//! | life | event | becomes |
//! | --- | --- | --- |
//! | open | a reason to close it, after its last turn | draining |
//! | draining | output flushed, our end shut | lingering |
//! | draining | output flushed, the peer already done | gone |
//! | lingering | the peer's end shut | gone |
//! | any | connection broken, output over its limit, a deadline | gone |
//!
//! A transition that isn't in the table is logged and refused.

use crate::store::Ref;
pub use greenroom_state::record::Life;
use greenroom_state::record::SessionRecord;
use smallvec::SmallVec;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

/// Index of a service. Never used again for another one, so that records may hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(pub u16);

impl ServiceId {
    /// What its own turns have instead of a session's number.
    pub(crate) fn number(self) -> u64 {
        OWN_NUMBER | u64::from(self.0)
    }
}

/// An output record begins with its offset in the stream, so that sending rewrites no session.
pub(crate) const OUTPUT_HEAD: usize = 8;

/// Pieces of output that a peer hasn't taken: small ones cost more than their bytes. Its input then waits, as it does at
/// `output_bytes_pause`.
pub(crate) const OUTPUT_RECORDS_PAUSE: usize = 1024;

/// Where the shell keeps a connection: small numbers, used again only after the pass in which they became free.
///
/// A service's own turns (its timers') run as those of a session that has no connection, and is in no list: its slot and its number
/// are made from the service's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

const OWN_SLOT: u32 = 1 << 31;
const OWN_NUMBER: u64 = 1 << 63;

impl Slot {
    /// Of a service's own turns.
    pub(crate) fn of_service(service: ServiceId) -> Slot {
        Slot(OWN_SLOT | u32::from(service.0))
    }

    /// Whether there is no connection behind it.
    pub(crate) fn is_service(self) -> bool {
        self.0 & OWN_SLOT != 0
    }
}

/// The service whose own turns have this number instead of a session's.
pub fn service_of_number(number: u64) -> Option<ServiceId> {
    (number & OWN_NUMBER != 0).then_some(ServiceId(number as u16))
}

/// A session's number as it is told: 0 for a service's own turns.
pub fn told(number: u64) -> u64 {
    if number & OWN_NUMBER != 0 { 0 } else { number }
}

/// See the module.
#[derive(Debug)]
pub struct Session {
    /// Its number, never used twice.
    pub id: u64,
    /// Its service.
    pub service: ServiceId,
    /// Where it is in its life.
    pub life: Life,
    /// The peer has ended its side.
    pub peer_done: bool,
    /// Its handler has its input wait: it isn't run, nor read.
    pub held: bool,
    /// Another session's peer takes no output, which this one's input would add to: it isn't run, nor read.
    pub(crate) waits: bool,
    /// Its peer takes no output, so its input isn't run.
    pub(crate) paused: bool,
    /// It is in the list of sessions whose input goes on with the next pass.
    pub(crate) resuming: bool,
    /// Its newest output record was made in this pass, so that it may still grow.
    pub(crate) output_fresh: bool,
    /// It is in the list of sessions that this pass changed.
    pub(crate) dirty: bool,
    /// The kernel took less than it was offered; the shell says when it takes more.
    pub(crate) blocked: bool,
    /// It is in the list of sessions that are sent to a share at a time.
    pub(crate) waits_to_send: bool,
    /// Its first turn was withheld, and comes before all others.
    pub(crate) greeting_due: bool,
    /// We connected to its peer, not its peer to us.
    pub outbound: bool,
    /// Why its input is kept and not run.
    pub quarantined: Option<Box<Quarantine>>,
    /// Milliseconds since 1970.
    pub opened_at_ms: u64,
    /// Turns run.
    pub turns: u64,
    /// Bytes taken from the peer.
    pub bytes_in: u64,
    /// Bytes produced for the peer.
    pub bytes_out: u64,
    /// Of those, bytes that the kernel took.
    pub bytes_sent: u64,
    /// The peer's address.
    pub peer: SocketAddr,
    /// Version of the stored state; 0: none stored.
    pub state_version: u32,
    pub(crate) state_fingerprint: u64,
    pub(crate) frame: crate::framing::FrameState,
    pub(crate) record: Option<Ref>,
    pub(crate) state: Option<Ref>,
    pub(crate) input: Option<Ref>,
    /// Output not sent, oldest first. In place, so that a session which has answered holds no memory for it.
    pub(crate) output: SmallVec<[Ref; 2]>,
    /// Bytes of the oldest that were sent.
    pub(crate) output_sent: usize,
    /// Boxed, as few sessions have any and each idle session costs what this struct does.
    pub(crate) subscriptions: Option<Box<Subscriptions>>,
    /// When bytes last came from the peer, or when it opened, in nanoseconds.
    pub(crate) heard_ns: u64,
    /// When the frame began that isn't whole; 0: there is none.
    pub(crate) frame_ns: u64,
    /// When draining or lingering ends at the latest, or an open session's peer must have been heard of, in nanoseconds.
    pub(crate) deadline_ns: u64,
}

// An idle session costs this and its records: growing it is a decision.
const _: () = assert!(size_of::<Session>() <= 200);

/// The topics that a session is on, and the record that says so.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    pub(crate) topics: Vec<Box<str>>,
    pub(crate) record: Option<Ref>,
}

/// Why a session is quarantined.
#[derive(Debug, Default)]
pub struct Quarantine {
    /// In words.
    pub reason: String,
    /// What tells it to a successor.
    pub(crate) record: Option<Ref>,
}

impl Session {
    /// The topics it is on.
    pub(crate) fn topics(&self) -> &[Box<str>] {
        self.subscriptions.as_ref().map_or(&[], |s| &s.topics)
    }

    /// For a session that has none, makes the place for it.
    pub(crate) fn subscriptions(&mut self) -> &mut Subscriptions {
        self.subscriptions.get_or_insert_default()
    }

    pub(crate) fn new(id: u64, service: ServiceId, peer: SocketAddr, opened_at_ms: u64) -> Session {
        Session {
            id,
            service,
            life: Life::Open,
            peer_done: false,
            paused: false,
            resuming: false,
            output_fresh: false,
            dirty: false,
            blocked: false,
            waits_to_send: false,
            greeting_due: false,
            outbound: false,
            held: false,
            waits: false,
            quarantined: None,
            opened_at_ms,
            turns: 0,
            bytes_in: 0,
            bytes_out: 0,
            bytes_sent: 0,
            peer,
            state_version: 0,
            state_fingerprint: 0,
            frame: Default::default(),
            record: None,
            state: None,
            input: None,
            output: SmallVec::new(),
            output_sent: 0,
            subscriptions: None,
            heard_ns: 0,
            frame_ns: 0,
            deadline_ns: 0,
        }
    }

    /// Whether it stands for a service's own turns.
    pub(crate) fn is_service(&self) -> bool {
        service_of_number(self.id).is_some()
    }

    /// Output that the kernel has not taken, in bytes.
    pub fn unsent(&self) -> u64 {
        self.bytes_out - self.bytes_sent
    }

    /// But for the length of its input, which the store knows.
    pub(crate) fn to_record(&self) -> SessionRecord {
        SessionRecord {
            id: self.id,
            service: self.service.0,
            life: self.life,
            peer_done: self.peer_done,
            quarantined: self.quarantined.is_some(),
            greeting_due: self.greeting_due,
            outbound: self.outbound,
            held: self.held,
            opened_at_ms: self.opened_at_ms,
            turns: self.turns,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            bytes_sent: self.bytes_sent,
            state_version: self.state_version,
            frame_searched: self.frame.searched,
            state_fingerprint: self.state_fingerprint,
            input_bytes: 0,
            topics: self.topics().len() as u16,
            peer: self.peer,
        }
    }
}

/// All sessions, by slot and by number.
#[derive(Debug, Default)]
pub struct Sessions {
    slots: Vec<Option<Box<Session>>>,
    /// For the services' own turns.
    services: Vec<Session>,
    by_id: BTreeMap<u64, Slot>,
    /// How many came from each address, if anybody wants to know.
    peers: Option<HashMap<IpAddr, usize>>,
}

impl Sessions {
    /// How many are alive.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether none is alive.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The session in a slot.
    #[inline]
    pub fn get(&self, slot: Slot) -> Option<&Session> {
        match self.slots.get(slot.0 as usize) {
            Some(session) => session.as_deref(),
            None => self.services.get((slot.0 ^ OWN_SLOT) as usize),
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut Session> {
        match self.slots.get_mut(slot.0 as usize) {
            Some(session) => session.as_deref_mut(),
            None => self.services.get_mut((slot.0 ^ OWN_SLOT) as usize),
        }
    }

    /// The sessions whose numbers are above `id`, in order.
    pub fn after(&self, id: u64) -> impl Iterator<Item = (Slot, &Session)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let range = self.by_id.range((Excluded(id), Unbounded));
        range.filter_map(|(_, &slot)| Some((slot, self.get(slot)?)))
    }

    /// The slot of a number.
    pub fn slot_of(&self, id: u64) -> Option<Slot> {
        match service_of_number(id) {
            None => self.by_id.get(&id).copied(),
            Some(service) => {
                (usize::from(service.0) < self.services.len()).then(|| Slot::of_service(service))
            }
        }
    }

    /// Makes the place for the next service's own turns.
    pub(crate) fn add_service(&mut self) {
        let service = ServiceId(self.services.len() as u16);
        let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut own = Session::new(service.number(), service, nobody, 0);
        // It has no record that a commit would have to write.
        own.dirty = true;
        self.services.push(own);
    }

    /// The slots of all sessions, in the order in which they opened.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.by_id.values().copied()
    }

    /// Counts from here on how many came from each address, or doesn't. O(sessions) when that changes.
    pub(crate) fn count_peers(&mut self, count: bool) {
        if count == self.peers.is_some() {
            return;
        }
        self.peers = count.then(HashMap::new);
        let Some(peers) = &mut self.peers else { return };
        for s in self.slots.iter().flatten().filter(|s| !s.outbound) {
            *peers.entry(s.peer.ip()).or_default() += 1;
        }
    }

    /// How many came from an address, if that is counted.
    pub(crate) fn count_from(&self, peer: IpAddr) -> usize {
        self.peers.as_ref().and_then(|p| p.get(&peer)).copied().unwrap_or(0)
    }

    pub(crate) fn insert(&mut self, slot: Slot, session: Session) {
        if let Some(peers) = self.peers.as_mut().filter(|_| !session.outbound) {
            *peers.entry(session.peer.ip()).or_default() += 1;
        }
        let at = slot.0 as usize;
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, || None);
        }
        self.by_id.insert(session.id, slot);
        self.slots[at] = Some(Box::new(session));
    }

    pub(crate) fn remove(&mut self, slot: Slot) -> Option<Box<Session>> {
        let session = self.slots.get_mut(slot.0 as usize)?.take()?;
        self.by_id.remove(&session.id);
        if let Some(peers) = self.peers.as_mut().filter(|_| !session.outbound)
            && let Some(n) = peers.get_mut(&session.peer.ip())
        {
            *n -= 1;
            if *n == 0 {
                peers.remove(&session.peer.ip());
            }
        }
        Some(session)
    }
}
