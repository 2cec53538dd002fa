//! Drops: entries that are gone for all who read, and whose records the store still holds.
//!
//! A turn may drop a million entries, and their deletion takes half a second. So the drop takes
//! them out of the index, and writes one record of [`Kind::Drop`]: table, prefix and era. Passes
//! delete the entries a share at a time, and the record with the last one.
//!
//! Eras tell entries that were dropped from those that were written under the prefix since. Each
//! drop begins an era. An entry bears the era in which it was written, and a drop concerns those of
//! earlier eras. So a process that dies between two shares leaves its successor the drop and the
//! rest of its entries: the rest stays out of the index.
//!
//! Dropped entries count no more among their table's bytes, but among the store's until they are
//! deleted.
//!
//! A build that does not know the record would bring the entries back. Such a build refuses to
//! take over while a drop is under way, as it does for any record that it does not know.

use super::deadlines::Deadlines;
use super::entry::{entry, name_of};
use super::indexed::Indexed;
use super::prefixes::{DroppedPrefix, DroppedPrefixes, era_of};
use super::taken::Taken;
use crate::store::kind::Kind;
use crate::store::layout::Ref;
use crate::store::records::Store;
use crate::store::recover::Found;
use std::collections::BTreeSet;

/// Entries that are deleted at once: as many are cheaper than a record.
const AT_ONCE_MAX: usize = 3;

/// Drop under way.
#[derive(Debug)]
struct UnderWay {
    what: DroppedPrefix,
    /// Record of the drop.
    record: Ref,
    /// Entries to delete, as the index had them.
    taken: Taken<Indexed>,
    /// Records to delete, as recovery found them.
    found: Vec<Ref>,
}

/// Drops under way, and the era.
#[derive(Debug, Default)]
pub(super) struct Drops {
    all: Vec<UnderWay>,
    /// Records of dropped entries, and one for each drop.
    left: usize,
    /// Drops under way as of the last commit, which is what a snapshot shows.
    committed: BTreeSet<DroppedPrefix>,
    /// Drops that have begun (`true`) or ended since, in order.
    changed: Vec<(DroppedPrefix, bool)>,
    /// Number of the last drop that wrote a record: that of the era.
    era: u32,
}

impl Drops {
    /// Returns the key of an entry's record that is written now.
    pub(super) fn mark(&self, version: u32) -> u64 {
        u64::from(self.era) << 32 | u64::from(version)
    }

    /// Returns the number of records that are to be deleted.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Notes that all changes so far are committed. O(changes).
    pub(super) fn commit(&mut self) {
        for (what, has_begun) in self.changed.drain(..) {
            match has_begun {
                true => self.committed.insert(what),
                false => self.committed.remove(&what),
            };
        }
    }

    /// Returns the drops that were under way at the last commit. O(drops).
    pub(super) fn committed(&self) -> DroppedPrefixes {
        DroppedPrefixes::of_sorted(self.committed.iter().cloned().collect())
    }

    /// Begins to delete entries that the index has given up. The caller has reserved room for the
    /// record. A few are deleted at once.
    pub(super) fn begin(
        &mut self,
        store: &mut Store,
        deadlines: &mut Deadlines,
        (table, prefix): (&str, &[u8]),
        mut gone: Taken<Indexed>,
    ) {
        let count = gone.totals.count;
        // Behind the last era there is no other: entries are deleted at once then.
        if count <= AT_ONCE_MAX || self.era == u32::MAX {
            let all = std::iter::from_fn(|| gone.pop());
            return all.for_each(|e| deadlines.delete_record(store, table, e.at));
        }
        self.era += 1;
        let record = store.put(None, Kind::Drop, self.era.into(), &entry(None, table, prefix, b""));
        let record = record.expect("room was reserved before");
        let what = DroppedPrefix { table: table.into(), prefix: prefix.into(), era: self.era };
        self.changed.push((what.clone(), true));
        self.all.push(UnderWay { what, record, taken: gone, found: Vec::new() });
        self.left += count + 1;
    }

    /// Deletes one record of a dropped entry, and the drop's own behind the last one. False: there
    /// is none.
    pub(super) fn reclaim(&mut self, store: &mut Store, deadlines: &mut Deadlines) -> bool {
        let Some(drop) = self.all.last_mut() else { return false };
        let next = drop.found.pop().or_else(|| drop.taken.pop().map(|e| e.at));
        self.left -= 1;
        match next {
            Some(at) => deadlines.delete_record(store, &drop.what.table, at),
            None => {
                store.delete(drop.record);
                let ended = self.all.pop();
                self.changed.extend(ended.map(|drop| (drop.what, false)));
            }
        }
        true
    }

    /// Takes in the drops that recovery found. Returns them, and the records that are none.
    pub(super) fn recover<'f>(
        &mut self,
        store: &Store,
        records: impl Iterator<Item = &'f Found>,
    ) -> (DroppedPrefixes, Vec<Ref>) {
        let mut unreadable = Vec::new();
        for f in records {
            let Some((table, prefix)) = name_of(store.bytes_of(f.at)) else {
                unreadable.push(f.at);
                continue;
            };
            let what = DroppedPrefix { table: table.into(), prefix: prefix.into(), era: f.key as u32 };
            self.era = self.era.max(what.era);
            self.committed.insert(what.clone());
            self.all.push(UnderWay { what, record: f.at, taken: Taken::default(), found: Vec::new() });
        }
        // Places in the set are places here.
        self.all.sort_by(|a, b| a.what.cmp(&b.what));
        self.left += self.all.len();
        let found = self.all.iter().map(|drop| drop.what.clone()).collect();
        (DroppedPrefixes::of_sorted(found), unreadable)
    }

    /// Takes in an entry that recovery found. True: it was dropped. `dropped`: the drops that were
    /// found.
    pub(super) fn recover_entry(
        &mut self,
        dropped: &DroppedPrefixes,
        (table, key): (&str, &[u8]),
        f: &Found,
    ) -> bool {
        self.era = self.era.max(era_of(f.key));
        let Some(at) = dropped.place(table, key, f.key) else { return false };
        self.all[at].found.push(f.at);
        self.left += 1;
        true
    }
}
