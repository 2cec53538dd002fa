//! Topics and their subscribers. A topic exists while a session is on it.
//!
//! The index is in memory alone. Each session lists its own topics in a record, from which
//! recovery builds the index again. The caller changes both sides in the same step. Subscribers
//! are in the order of their slots. Adding and removing one costs O(log subscribers).

use crate::ids::Slot;
use std::collections::{BTreeSet, HashMap};

/// The subscribers of each topic. No topic has an empty set.
#[derive(Debug, Default)]
pub struct Topics {
    subscribers: HashMap<Box<str>, BTreeSet<Slot>>,
}

impl Topics {
    /// Adds a session. False: it was on the topic already. Allocates the name of a new topic.
    pub(crate) fn add(&mut self, topic: &str, slot: Slot) -> bool {
        match self.subscribers.get_mut(topic) {
            Some(set) => set.insert(slot),
            None => self.subscribers.entry(topic.into()).or_default().insert(slot),
        }
    }

    /// Removes a session. False: it was not on the topic.
    pub(crate) fn remove(&mut self, topic: &str, slot: Slot) -> bool {
        let Some(set) = self.subscribers.get_mut(topic) else { return false };
        let was = set.remove(&slot);
        if set.is_empty() {
            self.subscribers.remove(topic);
        }
        was
    }

    /// The sessions on a topic, in the order of their slots.
    pub fn subscribers(&self, topic: &str) -> impl Iterator<Item = Slot> {
        self.subscribers.get(topic).into_iter().flatten().copied()
    }

    /// Number of sessions on a topic. O(1).
    pub fn count(&self, topic: &str) -> usize {
        self.subscribers.get(topic).map_or(0, BTreeSet::len)
    }
}
