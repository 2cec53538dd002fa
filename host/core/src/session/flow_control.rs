//! Sessions that wait until another session's output drains.
//!
//! Nothing of this is stored: after a takeover such a session goes on. A session that waits for
//! several others goes on with the first of them. A waiting session that ends stays listed, so
//! a later session in its slot may go on early.

use crate::ids::Slot;
use std::collections::HashMap;

/// Waiting sessions, by the session whose output must drain.
#[derive(Debug, Default)]
pub(crate) struct FlowControl {
    /// No list is empty, and none holds a slot twice.
    waiting: HashMap<Slot, Vec<Slot>>,
}

impl FlowControl {
    /// Lets `slot` wait until the output of `other` drains. O(sessions that wait for it).
    pub(crate) fn wait(&mut self, slot: Slot, other: Slot) {
        let waiting = self.waiting.entry(other).or_default();
        if !waiting.contains(&slot) {
            waiting.push(slot);
        }
    }

    /// Takes off the sessions that waited for this one, which is drained or gone. The caller
    /// lets them go on. O(1), and without a search if nobody waits for anything.
    pub(crate) fn release(&mut self, drained: Slot) -> Vec<Slot> {
        match self.waiting.is_empty() {
            true => Vec::new(),
            false => self.waiting.remove(&drained).unwrap_or_default(),
        }
    }
}
