//! Names that sessions hold. A name has one holder in its service.
//!
//! A name is a record under the number of the session that holds it, from which recovery builds the
//! index. It goes with its session, however that ends. No saved file holds names: their holders
//! are gone then.
//!
//! Costs: O(log names) for each step. `names_per_session_max` bounds the names of a session, which
//! are searched to take one away.

use super::holder::Holder;
use crate::ids::{ServiceId, Slot};
use crate::store::kind::Kind;
use crate::store::layout::Ref;
use crate::store::records::Store;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

/// The names of all services.
#[derive(Debug, Default)]
pub struct Names {
    /// Holders in each service, by name.
    by_service: Vec<BTreeMap<Box<[u8]>, Held>>,
    /// Names of each session that holds any.
    of: HashMap<Slot, Vec<Box<[u8]>>>,
}

/// Name that is held.
#[derive(Debug, Clone, Copy)]
struct Held {
    by: Slot,
    id: u64,
    record: Ref,
}

impl Names {
    /// Bytes of the record that [`Names::register`] writes.
    pub(crate) fn record_bytes(name_len: usize) -> usize {
        name_len
    }

    /// Gives a name to a session. The holder before loses it. Room must be reserved.
    pub(crate) fn register(&mut self, store: &mut Store, who: Holder, name: &[u8]) {
        if self.holder(who.service, name) == Some(who.id) {
            return;
        }
        self.remove(store, who.service, name);
        let record = store.put(None, Kind::Name, who.id, name).expect("room was reserved before");
        self.insert(who.service, name, Held { by: who.slot, id: who.id, record });
    }

    /// Takes a name away from a session. If it does not hold the name, nothing happens.
    pub(crate) fn unregister(&mut self, store: &mut Store, who: Holder, name: &[u8]) {
        if self.holder(who.service, name) == Some(who.id) {
            self.remove(store, who.service, name);
        }
    }

    /// Takes all names away from a session of a service. O(its names).
    pub(crate) fn drop_all(&mut self, store: &mut Store, service: ServiceId, slot: Slot) {
        while let Some(name) = self.of.get(&slot).and_then(|own| own.last()).cloned() {
            self.remove(store, service, &name);
        }
    }

    /// Takes in a name that recovery found. A second record of a name is deleted.
    pub(crate) fn recover(&mut self, store: &mut Store, who: Holder, record: Ref) {
        let name = store.read(record, <[u8]>::to_vec);
        match self.holder(who.service, &name) {
            Some(_) => store.delete(record),
            None => self.insert(who.service, &name, Held { by: who.slot, id: who.id, record }),
        }
    }

    /// Number of the session that holds a name.
    pub(crate) fn holder(&self, service: ServiceId, name: &[u8]) -> Option<u64> {
        Some(self.by_service.get(usize::from(service.0))?.get(name)?.id)
    }

    /// Names of a service and their holders, in order, from a name on.
    pub(crate) fn from<'n>(
        &'n self,
        service: ServiceId,
        from: &[u8],
    ) -> impl Iterator<Item = (&'n [u8], u64)> + use<'n> {
        let own = self.by_service.get(usize::from(service.0));
        let own = own.map(|own| own.range::<[u8], _>((Bound::Included(from), Bound::Unbounded)));
        own.into_iter().flatten().map(|(name, h)| (&**name, h.id))
    }

    /// Names that a session holds, in the order in which it came to them.
    pub(crate) fn of(&self, slot: Slot) -> &[Box<[u8]>] {
        self.of.get(&slot).map_or(&[], Vec::as_slice)
    }

    fn insert(&mut self, service: ServiceId, name: &[u8], held: Held) {
        let at = usize::from(service.0);
        if self.by_service.len() <= at {
            self.by_service.resize_with(at + 1, BTreeMap::new);
        }
        self.by_service[at].insert(name.into(), held);
        self.of.entry(held.by).or_default().push(name.into());
    }

    fn remove(&mut self, store: &mut Store, service: ServiceId, name: &[u8]) {
        let held = self.by_service.get_mut(usize::from(service.0)).and_then(|own| own.remove(name));
        let Some(Held { by, record, .. }) = held else { return };
        store.delete(record);
        let Some(own) = self.of.get_mut(&by) else { return };
        own.retain(|n| **n != *name);
        if own.is_empty() {
            self.of.remove(&by);
        }
    }
}
