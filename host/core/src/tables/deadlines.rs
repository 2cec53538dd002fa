//! Deadlines of entries, by the clock of the calendar.
//!
//! An entry is over once the clock has reached its deadline. From then on nobody reads it. Passes
//! delete such entries a share at a time, and tell the owner of their table, if it wants to know.
//!
//! The clock is that of the pass, so a turn that runs again reads the same. If operators set it
//! back while entries are over, deadlines are judged by the later reading until all of those are
//! deleted: what was over stays over. A process that dies meanwhile does not know of the later
//! reading.
//!
//! A deadline costs 8 bytes in the record and 12 here. A timer of its own would cost a record and
//! a call.

use super::chunks::{Chunks, Item};
use super::indexed::until_of;
use crate::store::layout::Ref;
use crate::store::records::Store;
use std::collections::BTreeMap;

/// Deadline of one entry: 12 bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DueEntry {
    /// Upper and lower half of the milliseconds since 1970.
    ms: [u32; 2],
    /// Record of the entry.
    at: Option<Ref>,
}

impl DueEntry {
    pub(super) fn new(ms: u64, at: Ref) -> DueEntry {
        DueEntry { ms: [(ms >> 32) as u32, ms as u32], at: Some(at) }
    }

    fn ms(&self) -> u64 {
        u64::from(self.ms[0]) << 32 | u64::from(self.ms[1])
    }
}

impl Item for DueEntry {
    type Key = DueEntry;
    type Owned = DueEntry;

    fn key(&self) -> &DueEntry {
        self
    }

    fn owned(key: &DueEntry) -> DueEntry {
        *key
    }

    fn bytes(&self) -> usize {
        0
    }
}

/// Deadlines by table, and the clock.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// Deadlines of each table that has any.
    all: BTreeMap<Box<str>, Chunks<DueEntry>>,
    /// At most the first deadline of all.
    next_ms: u64,
    /// Clock that deadlines are judged by, in milliseconds since 1970.
    clock_ms: u64,
    /// Whether an entry may be over and not deleted yet.
    is_any_over: bool,
    /// Whether the last share left entries that could have been deleted.
    is_unfinished: bool,
}

impl Deadlines {
    /// Takes the clock of a pass. O(1), and O(tables) when a deadline has come.
    pub(super) fn tick(&mut self, wall_ms: u64) {
        let is_any_left = self.is_any_over && self.look_for_next() <= self.clock_ms;
        self.clock_ms = if is_any_left { self.clock_ms.max(wall_ms) } else { wall_ms };
        self.is_any_over = self.next_ms <= self.clock_ms && self.look_for_next() <= self.clock_ms;
        self.is_unfinished = false;
    }

    /// Finds the first deadline of all.
    fn look_for_next(&mut self) -> u64 {
        let firsts = self.all.values().filter_map(|t| t.iter().next());
        self.next_ms = firsts.map(DueEntry::ms).min().unwrap_or(u64::MAX);
        self.next_ms
    }

    /// Whether a deadline has come.
    #[inline]
    pub(super) fn is_over(&self, until_ms: Option<u64>) -> bool {
        until_ms.is_some_and(|ms| ms <= self.clock_ms)
    }

    /// Whether the entry of a record is over.
    #[inline]
    pub(super) fn is_record_over(&self, store: &Store, at: Ref) -> bool {
        self.is_any_over && self.is_over(until_of(store, at))
    }

    /// Milliseconds until the first deadline, at least; `None`: there is none, or it has come.
    pub(super) fn next_in_ms(&self) -> Option<u64> {
        let is_ahead = !self.all.is_empty() && self.next_ms > self.clock_ms;
        is_ahead.then(|| self.next_ms - self.clock_ms)
    }

    pub(super) fn add(&mut self, table: &str, due: DueEntry) {
        self.next_ms = self.next_ms.min(due.ms());
        if !self.all.contains_key(table) {
            self.all.insert(table.into(), Chunks::default());
        }
        if let Some(deadlines) = self.all.get_mut(table) {
            deadlines.insert(due, 0, &|_| 0);
        }
    }

    /// Adds the deadlines that recovery found, in order.
    pub(super) fn add_sorted(&mut self, table: &str, due: Vec<DueEntry>) {
        if !due.is_empty() {
            self.all.insert(table.into(), Chunks::of_sorted(due.into_iter().map(|d| (d, 0))));
            self.next_ms = 0;
        }
    }

    /// Removes a deadline, if it is there.
    pub(super) fn remove(&mut self, table: &str, due: DueEntry) {
        let Some(deadlines) = self.all.get_mut(table) else { return };
        deadlines.remove(&due, &|_| 0);
        if deadlines.totals().count == 0 {
            self.all.remove(table);
        }
    }

    /// Deletes the record of an entry, with its deadline.
    pub(super) fn delete_record(&mut self, store: &mut Store, table: &str, at: Ref) {
        if let Some(ms) = until_of(store, at) {
            self.remove(table, DueEntry::new(ms, at));
        }
        store.delete(at);
    }

    /// Tables of which entries are over. O(tables with deadlines).
    pub(super) fn tables_over(&self) -> Vec<Box<str>> {
        let is_over = |table: &str| self.first_over(table).is_some();
        match self.is_any_over {
            true => self.all.keys().filter(|table| is_over(table)).cloned().collect(),
            false => Vec::new(),
        }
    }

    /// Record of the first entry of a table that is over.
    pub(super) fn first_over(&self, table: &str) -> Option<(u64, Ref)> {
        let due = self.all.get(table)?.iter().next()?;
        self.is_over(Some(due.ms())).then_some((due.ms(), due.at?))
    }

    /// Notes that the share of this pass ends before all that could be deleted.
    pub(super) fn leave_rest(&mut self) {
        self.is_unfinished = true;
    }

    pub(super) fn has_rest(&self) -> bool {
        self.is_unfinished
    }
}
