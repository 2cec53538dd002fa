//! Topics: names that sessions subscribe to. A topic exists while somebody is on it.

use crate::ids::Slot;
use std::collections::{BTreeSet, HashMap};

/// Who is on which topic. The sessions' records say the same from their side.
#[derive(Debug, Default)]
pub struct Topics {
    subscribers: HashMap<Box<str>, BTreeSet<Slot>>,
}

impl Topics {
    /// Adds a session; false: it was on it already.
    pub(crate) fn add(&mut self, topic: &str, slot: Slot) -> bool {
        match self.subscribers.get_mut(topic) {
            Some(set) => set.insert(slot),
            None => self.subscribers.entry(topic.into()).or_default().insert(slot),
        }
    }

    /// Removes a session; false: it wasn't on it.
    pub(crate) fn remove(&mut self, topic: &str, slot: Slot) -> bool {
        let Some(set) = self.subscribers.get_mut(topic) else { return false };
        let was = set.remove(&slot);
        if set.is_empty() {
            self.subscribers.remove(topic);
        }
        was
    }

    /// The sessions on a topic.
    pub fn subscribers(&self, topic: &str) -> impl Iterator<Item = Slot> {
        self.subscribers.get(topic).into_iter().flatten().copied()
    }

    /// How many sessions are on a topic.
    pub fn count(&self, topic: &str) -> usize {
        self.subscribers.get(topic).map_or(0, BTreeSet::len)
    }
}
