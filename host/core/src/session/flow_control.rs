//! Sessions that wait until another session's output drains.

use crate::ids::Slot;
use std::collections::HashMap;

/// The waiting sessions, by the session whose output must drain.
#[derive(Debug, Default)]
pub(crate) struct FlowControl {
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

    /// The sessions that waited for this one, which is drained or gone.
    pub(crate) fn release(&mut self, drained: Slot) -> Vec<Slot> {
        match self.waiting.is_empty() {
            true => Vec::new(),
            false => self.waiting.remove(&drained).unwrap_or_default(),
        }
    }
}
