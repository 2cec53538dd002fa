//! Items that were taken out of an ordered set, chunk by chunk.

use super::chunk::{Chunk, Item};
use super::totals::Totals;
use std::collections::BTreeMap;

/// Items that were taken out at once. They are given away one by one, so nobody waits for the end
/// of a million.
#[derive(Debug)]
pub(super) struct Taken<T: Item> {
    /// First chunks, in order. Of those behind, the few that were taken one by one.
    pub(super) first: Vec<Chunk<T>>,
    /// Chunks behind, if they were most of the set.
    pub(super) behind: BTreeMap<T::Owned, Chunk<T>>,
    /// Totals of all items that were taken.
    pub(super) totals: Totals,
}

impl<T: Item> Default for Taken<T> {
    fn default() -> Taken<T> {
        Taken { first: Vec::new(), behind: BTreeMap::new(), totals: Totals::default() }
    }
}

impl<T: Item> Taken<T> {
    /// Last chunk, if there is one.
    pub(super) fn last_mut(&mut self) -> Option<&mut Chunk<T>> {
        self.behind.values_mut().next_back().or(self.first.last_mut())
    }

    /// Iterates over the chunks, in order. Some may be empty.
    pub(super) fn into_chunks(self) -> impl Iterator<Item = Chunk<T>> {
        self.first.into_iter().chain(self.behind.into_values())
    }

    /// Gives away the last item; `None`: all are gone. O(log chunks).
    pub(super) fn pop(&mut self) -> Option<T> {
        loop {
            let chunk = self.last_mut()?;
            if let Some(item) = chunk.items.pop() {
                return Some(item);
            }
            if self.behind.pop_last().is_none() {
                self.first.pop();
            }
        }
    }
}
