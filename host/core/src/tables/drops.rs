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
//! A build that does not know the record would bring the entries back. Such a build refuses to
//! take over while a drop is under way, as it does for any record that it does not know.

use super::chunks::Chunk;
use super::deadlines::Deadlines;
use super::entry::{entry, name_of, split_deadline};
use super::indexed::Indexed;
use crate::store::kind::Kind;
use crate::store::layout::Ref;
use crate::store::records::Store;
use crate::store::recover::Found;
use crate::store::snapshot::Seen;
use serde::{Deserialize, Serialize};

/// Entries that are deleted at once: as many are cheaper than a record.
const AT_ONCE_MAX: usize = 3;

/// Prefix that was dropped, and whose entries the store still holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedPrefix {
    table: Box<str>,
    prefix: Box<[u8]>,
    /// Entries of earlier eras are gone.
    era: u32,
}

impl DroppedPrefix {
    /// Returns whether an entry is gone. `mark`: the key of its record.
    pub(super) fn has(&self, table: &str, key: &[u8], mark: u64) -> bool {
        era_of(mark) < self.era && *self.table == *table && key.starts_with(&self.prefix)
    }
}

/// Returns whether an entry that a snapshot shows was dropped before.
pub fn is_dropped(seen: &Seen<'_>, dropped: &[DroppedPrefix]) -> bool {
    !dropped.is_empty()
        && split_deadline(seen.kind, seen.bytes)
            .and_then(|(_, entry)| name_of(entry))
            .is_some_and(|(table, key)| dropped.iter().any(|d| d.has(table, key, seen.key)))
}

/// Drop under way.
#[derive(Debug)]
struct UnderWay {
    what: DroppedPrefix,
    /// Record of the drop.
    record: Ref,
    /// Entries to delete, as the index had them.
    chunks: Vec<Chunk<Indexed>>,
    /// Records to delete, as recovery found them.
    found: Vec<Ref>,
}

/// Drops under way, and the era.
#[derive(Debug, Default)]
pub(super) struct Drops {
    all: Vec<UnderWay>,
    /// Drops under way as of the last commit, which is what a snapshot shows.
    committed: Vec<DroppedPrefix>,
    /// Whether drops have begun or ended since.
    has_changed: bool,
    /// Number of the last drop that wrote a record: that of the era.
    era: u32,
}

impl Drops {
    /// Returns the key of an entry's record that is written now.
    pub(super) fn mark(&self, version: u32) -> u64 {
        u64::from(self.era) << 32 | u64::from(version)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Notes that all changes so far are committed.
    pub(super) fn commit(&mut self) {
        if std::mem::take(&mut self.has_changed) {
            self.committed = self.all.iter().map(|d| d.what.clone()).collect();
        }
    }

    /// Returns the drops that were under way at the last commit.
    pub(super) fn committed(&self) -> &[DroppedPrefix] {
        &self.committed
    }

    /// Begins to delete entries that the index has given up. The caller has reserved room for the
    /// record. A few are deleted at once.
    pub(super) fn begin(
        &mut self,
        store: &mut Store,
        deadlines: &mut Deadlines,
        (table, prefix): (&str, &[u8]),
        gone: Vec<Chunk<Indexed>>,
    ) {
        let count: usize = gone.iter().map(|chunk| chunk.items.len()).sum();
        // Behind the last era there is no other: entries are deleted at once then.
        if count <= AT_ONCE_MAX || self.era == u32::MAX {
            let all = gone.iter().flat_map(|chunk| &chunk.items);
            return all.for_each(|e| deadlines.delete_record(store, table, e.at));
        }
        self.era += 1;
        let record = store.put(None, Kind::Drop, self.era.into(), &entry(None, table, prefix, b""));
        let record = record.expect("room was reserved before");
        let what = DroppedPrefix { table: table.into(), prefix: prefix.into(), era: self.era };
        self.all.push(UnderWay { what, record, chunks: gone, found: Vec::new() });
        self.has_changed = true;
    }

    /// Deletes one record of a dropped entry, and the drop's own with the last one. False: there is
    /// none.
    pub(super) fn reclaim(&mut self, store: &mut Store, deadlines: &mut Deadlines) -> bool {
        let Some(drop) = self.all.last_mut() else { return false };
        let next = drop.found.pop().or_else(|| {
            let chunk = drop.chunks.last_mut()?;
            let entry = chunk.items.pop();
            if chunk.items.is_empty() {
                drop.chunks.pop();
            }
            entry.map(|e| e.at)
        });
        if let Some(at) = next {
            deadlines.delete_record(store, &drop.what.table, at);
        }
        if drop.found.is_empty() && drop.chunks.is_empty() {
            store.delete(drop.record);
            self.all.pop();
            self.has_changed = true;
        }
        true
    }

    /// Takes in the drops that recovery found. Returns the records that are none.
    pub(super) fn recover<'f>(
        &mut self,
        store: &Store,
        records: impl Iterator<Item = &'f Found>,
    ) -> Vec<Ref> {
        let mut unreadable = Vec::new();
        for f in records {
            let Some((table, prefix)) = name_of(store.bytes_of(f.at)) else {
                unreadable.push(f.at);
                continue;
            };
            let what = DroppedPrefix { table: table.into(), prefix: prefix.into(), era: f.key as u32 };
            self.era = self.era.max(what.era);
            self.committed.push(what.clone());
            self.all.push(UnderWay { what, record: f.at, chunks: Vec::new(), found: Vec::new() });
        }
        unreadable
    }

    /// Takes in an entry that recovery found. True: it was dropped.
    pub(super) fn recover_entry(&mut self, table: &str, key: &[u8], f: &Found) -> bool {
        self.era = self.era.max(era_of(f.key));
        let drop = self.all.iter_mut().find(|d| d.what.has(table, key, f.key));
        drop.map(|d| d.found.push(f.at)).is_some()
    }
}

/// Returns the era in which an entry was written.
fn era_of(mark: u64) -> u32 {
    (mark >> 32) as u32
}
