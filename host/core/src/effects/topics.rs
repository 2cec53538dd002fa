//! Topics and their subscribers. A topic exists while a session is on it.
//!
//! A topic belongs to a library: its services share it, and no other one reaches it. The index
//! knows the topics of each service alone, and callers name the services of the library. So
//! recovery needs no library.
//!
//! A subscription is a record of its own, the name of the topic under the number of the session.
//! Recovery builds the index from these records. Builds before kept one record of all names of a
//! session ([`Kind::Topics`]). Such a list stays until a turn changes the session's topics, and is
//! rewritten then.
//!
//! Costs: O(log) in topics and subscribers, whatever number of topics a session is on.

use super::holder::Holder;
use crate::ids::{ServiceId, Slot};
use crate::store::kind::Kind;
use crate::store::layout::Ref;
use crate::store::records::Store;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

/// Place of a topic in [`Topics::all`].
type TopicId = u32;

/// The topics of all sessions.
#[derive(Debug, Default)]
pub struct Topics {
    /// Topics of each service, by name.
    by_service: Vec<BTreeMap<Arc<[u8]>, TopicId>>,
    all: Vec<Topic>,
    /// Places in `all` that no topic has.
    free: Vec<TopicId>,
    /// Topics of each session that is on any.
    of: HashMap<Slot, Vec<TopicId>>,
    /// Lists of builds before, whose sessions have no records of single subscriptions.
    lists: HashMap<Slot, Ref>,
    /// Whether nobody is reached any more: the host stops.
    silent: bool,
}

/// Topic of a service.
#[derive(Debug)]
struct Topic {
    service: ServiceId,
    name: Arc<[u8]>,
    subscribers: BTreeMap<Slot, Subscription>,
}

/// Subscription of a session.
#[derive(Debug)]
struct Subscription {
    /// Place of the topic among those of its session.
    place: u32,
    /// Record; `None`: the session has a list.
    record: Option<Ref>,
}

impl Topics {
    /// Bytes of the record that [`Topics::join`] writes.
    pub(crate) fn record_bytes(name_len: usize) -> usize {
        name_len
    }

    /// Lengths of the further records that the next change of a session's topics writes.
    pub(crate) fn list_lens(&self, slot: Slot) -> impl Iterator<Item = usize> {
        let names = self.lists.get(&slot).map(|_| self.of(slot));
        names.into_iter().flatten().map(|name| Topics::record_bytes(name.len()))
    }

    /// Adds a session. Room must be reserved. Returns whether it was not on the topic.
    pub(crate) fn join(&mut self, store: &mut Store, who: Holder, name: &[u8]) -> bool {
        self.rewrite_list(store, who);
        if self.is_on(who.service, name, who.slot) {
            return false;
        }
        let record = store.put(None, Kind::Subscription, who.id, name);
        self.add(who.slot, who.service, name, Some(record.expect("room was reserved before")));
        true
    }

    /// Takes a session off a topic. Room must be reserved, as a list may be rewritten. Returns
    /// whether it was on it.
    pub(crate) fn leave(&mut self, store: &mut Store, who: Holder, name: &[u8]) -> bool {
        let Some(topic) = self.find(who.service, name) else { return false };
        if !self.all[topic as usize].subscribers.contains_key(&who.slot) {
            return false;
        }
        self.rewrite_list(store, who);
        self.remove(store, who.slot, topic);
        true
    }

    /// Takes a session off all topics. Needs no room. O(its topics).
    pub(crate) fn leave_all(&mut self, store: &mut Store, slot: Slot) {
        while let Some(topic) = self.of.get(&slot).and_then(|own| own.last()).copied() {
            self.remove(store, slot, topic);
        }
        if let Some(list) = self.lists.remove(&slot) {
            store.delete(list);
        }
    }

    /// Takes in a subscription that recovery found. A second one of a name is deleted.
    pub(crate) fn recover(&mut self, store: &mut Store, slot: Slot, service: ServiceId, record: Ref) {
        let name = store.read(record, <[u8]>::to_vec);
        match self.is_on(service, &name, slot) {
            true => store.delete(record),
            false => self.add(slot, service, &name, Some(record)),
        }
    }

    /// Takes in a list of a build before: a name on each line.
    pub(crate) fn recover_list(&mut self, store: &Store, slot: Slot, service: ServiceId, list: Ref) {
        let names = store.read(list, <[u8]>::to_vec);
        for name in names.split(|b| *b == b'\n') {
            if !self.is_on(service, name, slot) {
                self.add(slot, service, name, None);
            }
        }
        self.lists.insert(slot, list);
    }

    /// Lets no message reach anybody from here on.
    pub(crate) fn silence(&mut self) {
        self.silent = true;
    }

    /// Returns whether a session of a service is on a topic.
    pub(crate) fn is_on(&self, service: ServiceId, name: &[u8], slot: Slot) -> bool {
        self.find(service, name).is_some_and(|t| self.all[t as usize].subscribers.contains_key(&slot))
    }

    /// Sessions of a service on a topic, in the order of their slots.
    fn subscribers<'t>(&'t self, service: ServiceId, name: &[u8]) -> impl Iterator<Item = Slot> + use<'t> {
        let topic = self.find(service, name).filter(|_| !self.silent);
        topic.into_iter().flat_map(|t| self.all[t as usize].subscribers.keys().copied())
    }

    /// Number of sessions of a service on a topic. O(log topics).
    fn count(&self, service: ServiceId, name: &[u8]) -> usize {
        let topic = self.find(service, name).filter(|_| !self.silent);
        topic.map_or(0, |t| self.all[t as usize].subscribers.len())
    }

    /// Sessions of several services on a topic, in the order of the services.
    pub(crate) fn subscribers_in(&self, of: impl Iterator<Item = ServiceId>, name: &[u8]) -> Vec<Slot> {
        of.flat_map(|service| self.subscribers(service, name)).collect()
    }

    /// Number of sessions of several services on a topic.
    pub(crate) fn count_in(&self, of: impl Iterator<Item = ServiceId>, name: &[u8]) -> usize {
        of.map(|service| self.count(service, name)).sum()
    }

    /// The first topic of a service whose name is not before `from`.
    pub(crate) fn next(&self, service: ServiceId, from: &[u8]) -> Option<&[u8]> {
        let own = self.by_service.get(usize::from(service.0))?;
        own.range::<[u8], _>((Bound::Included(from), Bound::Unbounded)).next().map(|(name, _)| &**name)
    }

    /// Number of topics that a session is on.
    pub(crate) fn count_of(&self, slot: Slot) -> usize {
        self.of.get(&slot).map_or(0, Vec::len)
    }

    /// Names of the topics that a session is on, in no order.
    pub(crate) fn of(&self, slot: Slot) -> impl Iterator<Item = &[u8]> {
        self.of.get(&slot).into_iter().flatten().map(|t| &*self.all[*t as usize].name)
    }

    fn find(&self, service: ServiceId, name: &[u8]) -> Option<TopicId> {
        self.by_service.get(usize::from(service.0))?.get(name).copied()
    }

    /// Gives each subscription of a list a record of its own.
    fn rewrite_list(&mut self, store: &mut Store, who: Holder) {
        let Some(list) = self.lists.remove(&who.slot) else { return };
        for t in self.of.get(&who.slot).into_iter().flatten() {
            let topic = &mut self.all[*t as usize];
            let record = store.put(None, Kind::Subscription, who.id, &topic.name);
            if let Some(own) = topic.subscribers.get_mut(&who.slot) {
                own.record = Some(record.expect("room was reserved before"));
            }
        }
        store.delete(list);
    }

    /// Adds a session that is not on the topic.
    fn add(&mut self, slot: Slot, service: ServiceId, name: &[u8], record: Option<Ref>) {
        let topic = self.find(service, name).unwrap_or_else(|| self.begin(service, name));
        let own = self.of.entry(slot).or_default();
        let place = own.len() as u32;
        own.push(topic);
        self.all[topic as usize].subscribers.insert(slot, Subscription { place, record });
    }

    /// Makes a topic without subscribers.
    fn begin(&mut self, service: ServiceId, name: &[u8]) -> TopicId {
        let name = Arc::<[u8]>::from(name);
        let topic = Topic { service, name: name.clone(), subscribers: BTreeMap::new() };
        let id = match self.free.pop() {
            Some(id) => {
                self.all[id as usize] = topic;
                id
            }
            None => {
                self.all.push(topic);
                self.all.len() as TopicId - 1
            }
        };
        let at = usize::from(service.0);
        if self.by_service.len() <= at {
            self.by_service.resize_with(at + 1, BTreeMap::new);
        }
        self.by_service[at].insert(name, id);
        id
    }

    /// Removes a session from a topic that it is on, and the topic with its last one.
    fn remove(&mut self, store: &mut Store, slot: Slot, id: TopicId) {
        let topic = &mut self.all[id as usize];
        let Some(gone) = topic.subscribers.remove(&slot) else { return };
        if topic.subscribers.is_empty() {
            self.by_service[usize::from(topic.service.0)].remove(&topic.name);
            self.free.push(id);
        }
        if let Some(record) = gone.record {
            store.delete(record);
        }
        let Some(own) = self.of.get_mut(&slot) else { return };
        own.swap_remove(gone.place as usize);
        match own.get(gone.place as usize) {
            // The last one has taken its place.
            Some(&moved) => {
                if let Some(s) = self.all[moved as usize].subscribers.get_mut(&slot) {
                    s.place = gone.place;
                }
            }
            None if own.is_empty() => _ = self.of.remove(&slot),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of a session's topics, in order.
    fn own(topics: &Topics, slot: Slot) -> Vec<&[u8]> {
        let mut names: Vec<_> = topics.of(slot).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_list_of_a_build_before_is_rewritten_with_the_first_change() {
        let mut store = Store::new(1 << 20);
        let (mut topics, who) = (Topics::default(), Holder { slot: Slot(3), id: 7, service: ServiceId(1) });
        let list = store.put(None, Kind::Topics, 7, b"a\r\nbb").expect("room");
        topics.recover_list(&store, who.slot, who.service, list);
        assert_eq!(own(&topics, who.slot), [&b"a\r"[..], b"bb"]);
        assert_eq!(topics.list_lens(who.slot).sum::<usize>(), 4);
        // No change, so no room is needed.
        assert!(!topics.leave(&mut store, who, b"c"));
        assert_eq!((store.count(Kind::Topics), store.count(Kind::Subscription)), (1, 0));

        assert!(topics.leave(&mut store, who, b"bb"));
        assert_eq!((store.count(Kind::Topics), store.count(Kind::Subscription)), (0, 1));
        assert_eq!(topics.list_lens(who.slot).count(), 0);
        topics.leave_all(&mut store, who.slot);
        assert_eq!((own(&topics, who.slot).len(), store.count(Kind::Subscription)), (0, 0));
    }

    /// Random changes agree with sets, and recovery finds what they leave.
    #[test]
    fn topics_are_sets_of_sessions() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut store = Store::new(1 << 22);
        let mut topics = Topics::default();
        let mut on = std::collections::BTreeSet::new();
        for _ in 0..5000 {
            let (n, name) = (rng.u32(..5), [rng.u8(..30)]);
            let who = Holder { slot: Slot(n), id: u64::from(n) + 1, service: ServiceId(n as u16 % 2) };
            match rng.u8(..8) {
                0..4 => assert_eq!(topics.join(&mut store, who, &name), on.insert((n, name))),
                4..7 => assert_eq!(topics.leave(&mut store, who, &name), on.remove(&(n, name))),
                _ if rng.u8(..8) == 0 => {
                    topics.leave_all(&mut store, who.slot);
                    on.retain(|(other, _)| *other != n);
                }
                _ => {}
            }
            assert_eq!(store.count(Kind::Subscription), on.len());
            let names: Vec<_> = on.range((n, [0])..=(n, [255])).map(|(_, name)| &name[..]).collect();
            assert_eq!(own(&topics, who.slot), names);
            let all: Vec<_> =
                on.iter().filter(|(n, t)| *t == name && n % 2 == 0).map(|(n, _)| Slot(*n)).collect();
            assert_eq!(topics.subscribers_in([ServiceId(0)].into_iter(), &name), all);
        }
    }
}
