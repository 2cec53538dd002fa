//! Deadlines of entries, by the clock of the calendar.
//!
//! An entry is over once the clock has reached its deadline. From then on nobody reads it. Passes
//! delete such entries a share at a time, and tell the owner of their table, if it wants to know.
//!
//! The clock is that of the pass, so a turn that runs again reads the same. Operators may set it
//! back while entries are over. Those that the new reading would bring back are kept apart then,
//! and stay over until they are deleted. A later write is judged by the clock alone, so no reading
//! of the past hides it. A process that dies meanwhile does not know of the former reading.
//!
//! A deadline costs 8 bytes in the record and 12 here. A timer of its own would cost a record and
//! a call.

use super::chunk::{Item, Marks};
use super::chunks::Chunks;
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

    /// Place behind all deadlines that are over at a time, and before all others.
    fn behind(ms: u64) -> DueEntry {
        let ms = ms.saturating_add(1);
        DueEntry { ms: [(ms >> 32) as u32, ms as u32], at: None }
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

    fn head_of(key: &DueEntry) -> u64 {
        key.ms()
    }
}

/// Deadlines of one table. Each stands in one of both sets.
#[derive(Debug, Default)]
struct OfTable {
    /// Deadlines that the clock decides.
    by_clock: Chunks<DueEntry>,
    /// Deadlines that were over when the clock was set back before them: over, whatever it tells.
    over: Chunks<DueEntry>,
}

impl OfTable {
    fn is_empty(&self) -> bool {
        self.by_clock.totals().count + self.over.totals().count == 0
    }
}

/// Deadlines by table, and the clock.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// Deadlines of each table that has any.
    all: BTreeMap<Box<str>, OfTable>,
    /// At most the first deadline that the clock decides.
    next_ms: u64,
    /// Clock of the pass, in milliseconds since 1970.
    clock_ms: u64,
    /// Number of deadlines that are over whatever the clock tells.
    kept_over: usize,
    /// Whether an entry may be over and not deleted yet.
    is_any_over: bool,
    /// Whether the last share left entries that could have been deleted.
    is_unfinished: bool,
}

impl Deadlines {
    /// Takes the clock of a pass. O(1), and O(tables) while an entry is over. If the clock is set
    /// back meanwhile: O(entries that are over / 128).
    pub(super) fn tick(&mut self, wall_ms: u64) {
        if wall_ms < self.clock_ms && self.is_any_over {
            self.keep_over(wall_ms);
        }
        self.clock_ms = wall_ms;
        self.is_unfinished = false;
        self.look();
    }

    /// Keeps apart what is over and would not be by another reading of the clock.
    fn keep_over(&mut self, wall_ms: u64) {
        let range = (&DueEntry::behind(wall_ms), Some(&DueEntry::behind(self.clock_ms)));
        for table in self.all.values_mut() {
            for chunk in table.by_clock.take(range, &|_| 0).into_chunks() {
                self.kept_over += chunk.items.len();
                table.over.append(chunk, &|_| 0);
            }
        }
    }

    /// Looks whether entries are over, and when the next one is.
    pub(super) fn look(&mut self) {
        if self.next_ms <= self.clock_ms {
            let firsts = self.all.values().filter_map(|t| t.by_clock.iter().next());
            self.next_ms = firsts.map(DueEntry::ms).min().unwrap_or(u64::MAX);
        }
        self.is_any_over = self.kept_over > 0 || self.next_ms <= self.clock_ms;
    }

    /// Clock of the pass, in milliseconds since 1970.
    pub(super) fn clock_ms(&self) -> u64 {
        self.clock_ms
    }

    /// Whether an entry may be over and not deleted yet.
    #[inline]
    pub(super) fn is_any_over(&self) -> bool {
        self.is_any_over
    }

    /// Whether the entry of a record is over. `until_ms`: its deadline.
    #[inline]
    pub(super) fn is_over(&self, table: &str, until_ms: Option<u64>, at: Ref) -> bool {
        until_ms.is_some_and(|ms| {
            ms <= self.clock_ms || self.kept_over > 0 && self.is_kept(table, DueEntry::new(ms, at))
        })
    }

    /// Whether a deadline is over whatever the clock tells.
    fn is_kept(&self, table: &str, due: DueEntry) -> bool {
        self.all.get(table).is_some_and(|t| t.over.get(&due).is_some())
    }

    /// Milliseconds until the first deadline, at least; `None`: there is none. While an entry is
    /// over whose owner can't be told yet, nobody knows the time: [`u64::MAX`].
    pub(super) fn next_in_ms(&self) -> Option<u64> {
        match self.is_any_over {
            true => Some(u64::MAX),
            false => (!self.all.is_empty()).then(|| self.next_ms.saturating_sub(self.clock_ms)),
        }
    }

    pub(super) fn add(&mut self, table: &str, due: DueEntry) {
        self.next_ms = self.next_ms.min(due.ms());
        self.is_any_over |= due.ms() <= self.clock_ms;
        if !self.all.contains_key(table) {
            self.all.insert(table.into(), OfTable::default());
        }
        if let Some(deadlines) = self.all.get_mut(table) {
            deadlines.by_clock.insert(due, Marks::default(), &|_| 0);
        }
    }

    /// Adds the deadlines that recovery found, in order.
    pub(super) fn add_sorted(&mut self, table: &str, due: Vec<DueEntry>) {
        if !due.is_empty() {
            let by_clock = Chunks::of_sorted(due.into_iter().map(|d| (d, 0)));
            self.all.insert(table.into(), OfTable { by_clock, over: Chunks::default() });
            self.next_ms = 0;
        }
    }

    /// Removes a deadline, if it is there.
    pub(super) fn remove(&mut self, table: &str, due: DueEntry) {
        let Some(deadlines) = self.all.get_mut(table) else { return };
        if deadlines.by_clock.remove(&due, &|_| 0).is_none() && deadlines.over.remove(&due, &|_| 0).is_some()
        {
            self.kept_over -= 1;
        }
        if deadlines.is_empty() {
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

    /// Number of entries that are over. O(tables with deadlines + such entries / 128).
    pub(super) fn count_over(&self) -> usize {
        let end = DueEntry::behind(self.clock_ms);
        let count = |t: &OfTable| t.by_clock.count((&DueEntry::default(), Some(&end)), &|_| 0).count;
        self.kept_over + self.all.values().map(count).sum::<usize>()
    }

    /// Record of the first entry of a table that is over, with its deadline.
    pub(super) fn first_over(&self, table: &str) -> Option<(u64, Ref)> {
        let deadlines = self.all.get(table)?;
        let by_clock = deadlines.by_clock.iter().next().filter(|due| due.ms() <= self.clock_ms);
        let due = deadlines.over.iter().next().or(by_clock)?;
        Some((due.ms(), due.at?))
    }

    /// Notes that the share of this pass ends before all that could be deleted.
    pub(super) fn leave_rest(&mut self) {
        self.is_unfinished = true;
    }

    pub(super) fn has_rest(&self) -> bool {
        self.is_unfinished
    }
}
