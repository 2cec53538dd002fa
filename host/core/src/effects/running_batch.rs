//! Batch under way: how many of the actions that waited for it have had their turns.

use crate::ids::Slot;

/// The batch under way, if its actions come from an inbox: they leave it when the batch is over.
#[derive(Debug, Default)]
pub(crate) struct RunningBatch {
    slot: Option<Slot>,
    /// Actions whose turns succeeded. They stay in their queue until the batch is over.
    done: usize,
    depths: Vec<u16>,
}

impl RunningBatch {
    /// Batch of one action at this depth, which waited in no inbox.
    pub(crate) fn of_depth(depth: u16) -> RunningBatch {
        RunningBatch { depths: vec![depth], ..RunningBatch::default() }
    }

    /// Counts turns that succeeded. Called before their effects are applied.
    pub(crate) fn had(&mut self, turns: usize) {
        if self.slot.is_some() {
            self.done += turns;
        }
    }

    /// Depths of the actions that had no turn yet; empty if the actions come from outside.
    pub(crate) fn depths(&self) -> &[u16] {
        self.depths.get(self.done..).unwrap_or_default()
    }

    /// Adds an action, with its depth.
    pub(super) fn add(&mut self, depth: u16) {
        self.depths.push(depth);
    }

    /// Begins the batch of a session, whose actions were added.
    pub(super) fn begin(&mut self, slot: Slot) {
        self.slot = Some(slot);
    }

    /// Waiting actions of a session that have had their turns by now.
    pub(super) fn done(&self, slot: Slot) -> usize {
        if self.slot == Some(slot) { self.done } else { 0 }
    }

    /// Ends the batch. The memory is kept for the next one.
    pub(crate) fn end(&mut self) {
        (self.slot, self.done) = (None, 0);
        self.depths.clear();
    }
}
