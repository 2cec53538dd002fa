//! Topics and their subscribers. A topic exists while a session is on it.

use crate::ids::Slot;
use std::collections::{BTreeSet, HashMap};

/// The subscribers of each topic. The sessions' records say the same from their side.
#[derive(Debug, Default)]
pub struct Topics {
    subscribers: HashMap<Box<str>, BTreeSet<Slot>>,
}

impl Topics {
    /// Adds a session. False: it was on the topic already.
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

    /// The sessions on a topic.
    pub fn subscribers(&self, topic: &str) -> impl Iterator<Item = Slot> {
        self.subscribers.get(topic).into_iter().flatten().copied()
    }

    /// Sessions on a topic.
    pub fn count(&self, topic: &str) -> usize {
        self.subscribers.get(topic).map_or(0, BTreeSet::len)
    }
}
