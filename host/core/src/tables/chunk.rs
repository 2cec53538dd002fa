//! Chunk of an ordered set: items in order, their totals, and a bound on their deadlines.

use super::totals::Totals;
use std::borrow::Borrow;
use std::cell::Cell;

/// Item of an ordered set.
pub(super) trait Item {
    /// Key that items are ordered by. The least one is [`Default`] of [`Item::Owned`].
    type Key: ?Sized + Ord;
    /// Copy of a key.
    type Owned: Ord + Default + Clone + Borrow<Self::Key>;
    fn key(&self) -> &Self::Key;
    fn owned(key: &Self::Key) -> Self::Owned;
    /// Bytes that the item counts in totals.
    fn bytes(&self) -> usize;
    /// Number that orders keys as far as it differs. Items have theirs at hand, which spares a look
    /// at a key that lies elsewhere.
    fn head_of(key: &Self::Key) -> u64;
    /// Number of the item's own key.
    fn head(&self) -> u64 {
        Self::head_of(self.key())
    }
}

/// Facts about an item that stand in its chunk.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Marks {
    /// Version that totals count it under.
    pub(super) version: u32,
    /// Deadline in milliseconds since 1970; `None`: it has none.
    pub(super) until_ms: Option<u64>,
}

/// Part of an ordered set.
#[derive(Debug)]
pub(super) struct Chunk<T> {
    /// Items, in order.
    pub(super) items: Vec<T>,
    pub(super) totals: Totals,
    /// At least the last deadline of the items; [`u64::MAX`] for an item without one. A walk that
    /// finds all of them over lowers it to what it saw.
    until_ms: Cell<u64>,
}

impl<T> Default for Chunk<T> {
    fn default() -> Chunk<T> {
        Chunk { items: Vec::new(), totals: Totals::default(), until_ms: Cell::new(0) }
    }
}

/// Judge of a walk that passes over items whose deadline is over.
pub(super) struct Walk<F> {
    /// Clock: up to here all deadlines are over.
    pub(super) clock_ms: u64,
    /// Deadline of an item that is over; `None`: the item is alive.
    pub(super) over: F,
}

impl<F> Walk<F> {
    /// Whether an item of the chunk may be alive. Looks at items up to the first that is.
    pub(super) fn may_stop_in<T>(&self, chunk: &Chunk<T>) -> bool
    where
        F: Fn(&T) -> Option<u64>,
    {
        if chunk.until_ms.get() <= self.clock_ms {
            return false;
        }
        let mut last = 0;
        for item in &chunk.items {
            let Some(ms) = (self.over)(item) else { return true };
            last = last.max(ms);
        }
        chunk.until_ms.set(last);
        false
    }
}

impl<T: Item> Chunk<T> {
    /// Takes out the items from one place to before another, with their totals.
    pub(super) fn take(&mut self, from: usize, to: usize, version_of: &dyn Fn(&T) -> u32) -> Chunk<T> {
        let items: Vec<T> = self.items.drain(from..to).collect();
        let mut taken = Totals::default();
        match self.totals.versions[..] {
            // No item need be looked at for its version.
            [(version, _)] => {
                (taken.count, taken.bytes) = (items.len(), items.iter().map(T::bytes).sum());
                taken.versions.extend((taken.count > 0).then_some((version, taken.count)));
            }
            _ => items.iter().for_each(|item| taken.add(item.bytes(), version_of(item))),
        }
        self.totals.subtract_all(&taken);
        Chunk { items, totals: taken, until_ms: self.until_ms.clone() }
    }

    /// Takes a deadline into the bound; `None`: an item has none.
    pub(super) fn note_until(&mut self, until_ms: Option<u64>) {
        let bound = self.until_ms.get_mut();
        *bound = (*bound).max(until_ms.unwrap_or(u64::MAX));
    }

    /// Takes in all items of the chunk behind it.
    pub(super) fn append(&mut self, behind: &mut Chunk<T>) {
        self.items.append(&mut behind.items);
        self.totals.add_all(&behind.totals);
        self.note_until(Some(behind.until_ms.get()));
    }

    /// Place of the first item at or behind a key.
    pub(super) fn place(&self, key: &T::Key) -> usize {
        let head = T::head_of(key);
        self.items.partition_point(|item| item.head().cmp(&head).then_with(|| item.key().cmp(key)).is_lt())
    }

    /// Place of the item with a key.
    pub(super) fn find(&self, key: &T::Key) -> Option<usize> {
        let head = T::head_of(key);
        self.items.binary_search_by(|item| item.head().cmp(&head).then_with(|| item.key().cmp(key))).ok()
    }
}
