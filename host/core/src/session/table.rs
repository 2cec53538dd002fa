//! All sessions, by slot, number and peer address; the sessions changed in this pass; the next
//! deadline.
//!
//! A session in a list has a mark of its own, so it is listed once and a test costs no search.
//! The table runs no code and decides nothing: callers learn which sessions are due, changed or
//! resumed.
//!
//! A slot is used again only after the pass in which it became free. So a list that is emptied
//! within a pass names the sessions that it means. Sessions are boxed: a free slot costs 8
//! bytes.
//!
//! Costs: O(1) by slot, O(log sessions) by number and for each deadline that is set.

use super::blocked::Blocked;
use super::carrier::Carrier;
use super::life::{Life, Session};
use super::terms::Held;
use crate::ids::{OWN_SLOT, ServiceId, Slot, service_of_number};
use crate::limits::host::Limits;
use crate::store::layout::Ref;
use crate::store::records::Store;
use crate::store::tail::Tail;
use greenroom_state::address::Peer;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

/// All sessions, by slot and by number.
#[derive(Debug, Default)]
pub struct Sessions {
    /// Sessions with a connection, by slot; `None`: the slot is free.
    pub(super) slots: Vec<Option<Box<Session>>>,
    /// Sessions that stand for the services' own turns, by service. No commit writes a record
    /// of them.
    services: Vec<Session>,
    /// Slots by number. Numbers ascend, so this is the order in which sessions opened.
    by_id: BTreeMap<u64, Slot>,
    /// Sessions from each address, if they are counted.
    peers: Option<HashMap<IpAddr, usize>>,
    /// Sessions that this pass changed, each once.
    dirty: Vec<Slot>,
    /// Sessions whose kept input runs with the next pass, each once.
    resumed: VecDeque<Slot>,
    /// Records of what framings store, by slot, up to the last one that had any: 4 bytes each. Few
    /// sessions have one, and each idle session costs what its struct does: so they are here.
    framing_records: Vec<Option<Ref>>,
    /// Tails of kept input, and their records. Few sessions have one, as above.
    input_tails: HashMap<Slot, (Tail, Ref)>,
    /// Terms of sessions, and their records. Few sessions have any, as above.
    pub(super) terms: HashMap<Slot, Held>,
    /// Times since when the kernel takes no output of a session, in nanoseconds. Few sessions have
    /// one, as above.
    stuck: HashMap<Slot, u64>,
    /// Deadlines in order, in nanoseconds. A session has at most one.
    deadlines: BTreeSet<(u64, Slot)>,
}

impl Sessions {
    /// Number of sessions that are alive, without those of services.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Returns whether no session is alive.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Returns the session in a slot. O(1).
    #[inline]
    pub fn get(&self, slot: Slot) -> Option<&Session> {
        match self.slots.get(slot.0 as usize) {
            Some(session) => session.as_deref(),
            // Slots of services lie beyond all others, so an index out of range is one of them,
            // or nobody's.
            None => self.services.get((slot.0 ^ OWN_SLOT) as usize),
        }
    }

    /// Returns whether the kernel took no more of a session's output, so that room for it is news.
    #[inline]
    pub fn wants_room(&self, slot: Slot) -> bool {
        self.get(slot).is_some_and(|s| s.kernel_full)
    }

    /// Returns the session in a slot, to change it. The caller touches it if its record
    /// changes.
    #[inline]
    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut Session> {
        match self.slots.get_mut(slot.0 as usize) {
            Some(session) => session.as_deref_mut(),
            None => self.services.get_mut((slot.0 ^ OWN_SLOT) as usize),
        }
    }

    /// Returns the sessions whose numbers are above `id`, in order.
    pub fn after(&self, id: u64) -> impl Iterator<Item = (Slot, &Session)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let range = self.by_id.range((Excluded(id), Unbounded));
        range.filter_map(|(_, &slot)| Some((slot, self.get(slot)?)))
    }

    /// Returns the highest number of a session; 0: there is none.
    pub(crate) fn last_number(&self) -> u64 {
        self.by_id.last_key_value().map_or(0, |(id, _)| *id)
    }

    /// Returns the first open session of a service whose number is above `after`, and how many
    /// sessions were looked at.
    pub(crate) fn next_open(&self, service: ServiceId, after: u64) -> (Option<u64>, u64) {
        let mut looked_at = 0;
        let mut next = self.after(after).inspect(|_| looked_at += 1);
        let found = next.find(|(_, s)| s.service == service && s.life == Life::Open);
        (found.map(|(_, s)| s.id), looked_at)
    }

    /// Returns the slot of a number, of a session or of a service's own turns.
    pub fn slot_of(&self, id: u64) -> Option<Slot> {
        match service_of_number(id) {
            None => self.by_id.get(&id).copied(),
            Some(service) => {
                (usize::from(service.0) < self.services.len()).then(|| Slot::of_service(service))
            }
        }
    }

    /// Adds the session that stands for the next service's own turns.
    pub(crate) fn add_service(&mut self) {
        let service = ServiceId(self.services.len() as u16);
        let nobody = Peer::Tcp(SocketAddr::from(([0, 0, 0, 0], 0)));
        let mut own = Session::new(service.number(), service, nobody, 0);
        // Marked for good, so it never gets on the list: a commit has no record of it to write.
        own.dirty = true;
        self.services.push(own);
    }

    /// Slots of all sessions, in the order in which they opened.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.by_id.values().copied()
    }

    /// Counts sessions by address from here on, or stops counting. O(sessions) when that
    /// changes.
    pub(crate) fn count_peers(&mut self, count: bool) {
        if count == self.peers.is_some() {
            return;
        }
        self.peers = count.then(HashMap::new);
        let Some(peers) = &mut self.peers else { return };
        let came = self.slots.iter().flatten().filter(|s| s.counts_for_peer());
        for ip in came.filter_map(|s| s.peer.ip()) {
            *peers.entry(ip).or_default() += 1;
        }
    }

    /// Number of sessions that came from an address; 0 if they are not counted.
    pub(crate) fn count_from(&self, peer: IpAddr) -> usize {
        self.peers.as_ref().and_then(|p| p.get(&peer)).copied().unwrap_or(0)
    }

    /// Adds a session at a free slot. Its number must be new.
    pub(crate) fn insert(&mut self, slot: Slot, session: Session) {
        if let Some(peers) = self.peers.as_mut().filter(|_| session.counts_for_peer())
            && let Some(ip) = session.peer.ip()
        {
            *peers.entry(ip).or_default() += 1;
        }
        let at = slot.0 as usize;
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, || None);
        }
        self.by_id.insert(session.id, slot);
        self.slots[at] = Some(Box::new(session));
    }

    /// Notes that a session's PROXY header is read, and counts it by its peer from here on. `peer`:
    /// its client. `None`: the peer is the one that connected.
    pub(crate) fn came_by(&mut self, slot: Slot, peer: Option<Peer>) {
        let Some(s) = self.slots.get_mut(slot.0 as usize).and_then(Option::as_deref_mut) else { return };
        s.carrier = Carrier::FirstByteDue;
        if let Some(peer) = peer {
            s.peer = peer;
        }
        if let (Some(peers), Some(ip)) = (&mut self.peers, s.peer.ip()) {
            *peers.entry(ip).or_default() += 1;
        }
    }

    /// Removes a session, with its deadline. Its records are the caller's to delete. Lists of
    /// this pass may still name its slot. O(log sessions).
    pub(crate) fn remove(&mut self, slot: Slot) -> Option<Box<Session>> {
        let session = self.slots.get_mut(slot.0 as usize)?.take()?;
        self.by_id.remove(&session.id);
        self.deadlines.remove(&(session.deadline_ns, slot));
        self.stuck.remove(&slot);
        if let Some(peers) = self.peers.as_mut().filter(|_| session.counts_for_peer())
            && let Some(ip) = session.peer.ip()
            && let Some(n) = peers.get_mut(&ip)
        {
            *n -= 1;
            if *n == 0 {
                peers.remove(&ip);
            }
        }
        Some(session)
    }

    /// Notes that this pass changes a session: the commit writes its record. O(1).
    #[inline]
    pub(crate) fn touch(&mut self, slot: Slot) {
        if let Some(s) = self.get_mut(slot)
            && !std::mem::replace(&mut s.dirty, true)
        {
            self.dirty.push(slot);
        }
    }

    /// Record of what a session's framing stores.
    pub(crate) fn framing_record(&self, slot: Slot) -> Option<Ref> {
        self.framing_records.get(slot.0 as usize).copied().flatten()
    }

    /// Notes the record of what a session's framing stores.
    pub(crate) fn set_framing_record(&mut self, slot: Slot, record: Ref) {
        let at = slot.0 as usize;
        if self.framing_records.len() <= at {
            self.framing_records.resize(at + 1, None);
        }
        self.framing_records[at] = Some(record);
    }

    /// Takes off the record of what a session's framing stores; the caller deletes it.
    #[inline]
    pub(crate) fn take_framing_record(&mut self, slot: Slot) -> Option<Ref> {
        self.framing_records.get_mut(slot.0 as usize)?.take()
    }

    /// Tail of a session's kept input, which is empty for most.
    #[inline]
    pub(crate) fn input_tail(&self, slot: Slot) -> Tail {
        match self.input_tails.is_empty() {
            true => Tail::default(),
            false => self.input_tails.get(&slot).map_or(Tail::default(), |(tail, _)| *tail),
        }
    }

    /// Record of the tail of a session's kept input.
    pub(crate) fn input_tail_record(&self, slot: Slot) -> Option<Ref> {
        self.input_tails.get(&slot).map(|(_, record)| *record)
    }

    /// Notes a tail of a session's kept input, and its record.
    pub(crate) fn set_input_tail(&mut self, slot: Slot, tail: Tail, record: Ref) {
        self.input_tails.insert(slot, (tail, record));
    }

    /// Forgets the tail of a session's kept input, and deletes its record: the input is written
    /// anew, or gone.
    #[inline]
    pub(crate) fn drop_input_tail(&mut self, store: &mut Store, slot: Slot) {
        if !self.input_tails.is_empty()
            && let Some((_, record)) = self.input_tails.remove(&slot)
        {
            store.delete(record);
        }
    }

    /// Returns whether the next commit has records to write.
    pub(crate) fn has_changed(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Takes the list of sessions that this pass changed. The caller gives the list back with
    /// [`Sessions::changes_written`], so that its memory is used again.
    pub(crate) fn take_changed(&mut self) -> Vec<Slot> {
        std::mem::take(&mut self.dirty)
    }

    /// Returns a session that was changed, as unchanged from here on: the commit writes its
    /// record now.
    #[inline]
    pub(crate) fn clean(&mut self, slot: Slot) -> Option<&mut Session> {
        let s = self.get_mut(slot)?;
        // Output that is committed must not grow: the next piece is a record of its own.
        (s.dirty, s.output_fresh) = (false, false);
        Some(s)
    }

    /// Takes back the list of [`Sessions::take_changed`].
    pub(crate) fn changes_written(&mut self, mut list: Vec<Slot>) {
        debug_assert!(self.dirty.is_empty(), "a commit changes no session");
        list.clear();
        self.dirty = list;
    }

    /// Lets a session's kept input run with the next pass. Until then its peer's end must wait.
    /// O(1).
    pub(crate) fn resume(&mut self, slot: Slot) {
        if let Some(s) = self.get_mut(slot)
            && !s.block(Blocked::ResumesNextPass, true)
        {
            self.resumed.push_back(slot);
        }
    }

    /// Returns whether sessions wait for the next pass, which is due at once then.
    pub(crate) fn has_resumed(&self) -> bool {
        !self.resumed.is_empty()
    }

    /// Number of sessions whose kept input waits to be run.
    pub(crate) fn resumed(&self) -> usize {
        self.resumed.len()
    }

    /// Takes off the session whose kept input runs next, in the order in which they were resumed.
    /// The caller clears its mark.
    pub(crate) fn pop_resumed(&mut self) -> Option<Slot> {
        self.resumed.pop_front()
    }

    /// Sets a session's deadline, in place of the one it has. O(log sessions).
    pub(crate) fn set_deadline(&mut self, slot: Slot, at_ns: u64) {
        let Some(s) = self.get_mut(slot) else { return };
        let before = std::mem::replace(&mut s.deadline_ns, at_ns);
        self.deadlines.remove(&(before, slot));
        self.deadlines.insert((at_ns, slot));
    }

    /// Sets the deadline of an open session by its limits, unless it has an earlier one.
    ///
    /// A session has one deadline, which is looked at when it comes: a peer that was heard
    /// meanwhile gets another one then. So a message costs a note of the time and nothing else.
    pub(crate) fn arm_timeout(&mut self, slot: Slot, limits: &Limits, now_ns: u64) {
        let Some(s) = self.get(slot).filter(|s| s.life == Life::Open) else { return };
        let timeout = s.timeout(limits, self.stuck_ns(slot)).map(|(at, ..)| at);
        let Some(at) = timeout.into_iter().chain(self.terms_due(slot)).min() else { return };
        if s.deadline_ns > now_ns && s.deadline_ns <= at {
            return;
        }
        self.set_deadline(slot, at);
    }

    /// Returns whether the kernel takes no output of some session.
    #[inline]
    pub(crate) fn has_stuck(&self) -> bool {
        !self.stuck.is_empty()
    }

    /// Time since when the kernel takes no output of a session; `None`: it takes output, or none is
    /// there.
    pub(crate) fn stuck_ns(&self, slot: Slot) -> Option<u64> {
        if self.stuck.is_empty() { None } else { self.stuck.get(&slot).copied() }
    }

    /// Notes since when the kernel takes no output of a session; `None`: it takes some. O(1).
    pub(crate) fn set_stuck(&mut self, slot: Slot, since_ns: Option<u64>) {
        match since_ns {
            Some(at) => _ = self.stuck.insert(slot, at),
            None if self.stuck.is_empty() => {}
            None => _ = self.stuck.remove(&slot),
        }
    }

    /// Time of the next deadline, in nanoseconds.
    pub(crate) fn next_deadline_ns(&self) -> Option<u64> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Takes off the next deadline that has come; `None`: none has. O(log sessions).
    pub(crate) fn pop_due(&mut self, now_ns: u64) -> Option<Slot> {
        let &(at, slot) = self.deadlines.first()?;
        (at <= now_ns).then(|| {
            self.deadlines.pop_first();
            slot
        })
    }
}
