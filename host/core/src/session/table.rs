//! All sessions, by slot, number and peer address.

use super::life::Session;
use crate::ids::{OWN_SLOT, ServiceId, Slot, service_of_number};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

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
