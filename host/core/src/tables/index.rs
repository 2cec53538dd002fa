//! Tables: ordered maps that sessions share, indexed on the heap, stored as records.
//!
//! Keys are bytes, values MessagePack. Each entry is one record of its own, which names
//! its table and key, so recovery builds the index again from the entries alone. The lower half
//! of that record's key is the version of the value, as the table's owner counts. Version 0: the
//! table had no owner. The upper half is the era of the write (`super::drops`).
//!
//! *Invariants*: every reference in the index is a live record, and every entry is in the
//! index, unless it was dropped. A table exists while it has an entry. Counts and bytes of a
//! table are those of its entries.
//!
//! The index costs a copy of the key and 32 bytes for each entry, beside the rest of its chunk.
//! Values lie in the store alone. A lookup is O(log tables + log entries).
//!
//! Turns do not write here: their writes are staged (`crate::turn::table_effects`), checked
//! against the limits of tables, and applied if the turn succeeds.

use super::chunk::{Item, Marks, Walk};
use super::chunks::Chunks;
use super::deadlines::{Deadlines, DueEntry};
use super::drops::Drops;
use super::entry::{deadline_bytes, entry, kind_of, name_of, overhead, value_of, version_of};
use super::indexed::{Indexed, entry_at, stored_version, until_of};
use super::prefixes::DroppedPrefixes;
use crate::store::layout::{Full, Ref};
use crate::store::records::Store;
use std::collections::BTreeMap;

/// Entry that is over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum OverEntry {
    /// Key of an entry that is to be deleted.
    Key(Vec<u8>),
    /// Entry that was dropped before: nobody is told, and its deadline is gone now.
    Dropped,
}

/// Tables by name. A table exists while it has an entry.
#[derive(Debug, Default)]
pub struct Tables {
    /// Entries of each table, by name, in the order that operators see.
    pub(super) tables: BTreeMap<Box<str>, Chunks<Indexed>>,
    /// Entries that were dropped and that the store still holds.
    pub(super) drops: Drops,
    /// Deadlines of the entries that have one.
    pub(super) deadlines: Deadlines,
    /// Writes so far, in all tables.
    writes: u64,
}

impl Tables {
    /// Returns the number of tables.
    pub fn len(&self) -> usize {
        self.tables.len()
    }

    /// Returns whether there is no table.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Iterates over the references to all entries, in the order of tables and keys.
    pub(crate) fn refs(&self) -> impl Iterator<Item = Ref> {
        self.tables.values().flat_map(|t| t.iter().map(|e| e.at))
    }

    /// Iterates over the names of the tables, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tables.keys().map(|n| &**n)
    }

    /// Returns whether a table has entries.
    pub fn contains(&self, table: &str) -> bool {
        self.tables.contains_key(table)
    }

    /// Appends a value to `out`, and returns its version as stored; `None`: there is no such
    /// key, and `out` is unchanged. The caller converts the value if its version is not the
    /// owner's.
    pub fn get(&self, store: &Store, table: &str, key: &[u8], out: &mut Vec<u8>) -> Option<u32> {
        let (version, value) = self.value(store, table, key)?;
        out.extend_from_slice(value);
        Some(version)
    }

    /// Returns the version of a value as stored, and the value where it lies; `None`: there is no
    /// such key.
    pub(crate) fn value<'s>(&self, store: &'s Store, table: &str, key: &[u8]) -> Option<(u32, &'s [u8])> {
        let at = self.tables.get(table)?.get(key)?.at;
        let (until, entry) = entry_at(store, at);
        (!self.deadlines.is_over(table, until, at)).then(|| (store.key(at) as u32, value_of(entry)))
    }

    /// Returns the deadline of an entry, in milliseconds since 1970; `None`: there is no such
    /// entry, or it has none.
    pub fn until(&self, store: &Store, table: &str, key: &[u8]) -> Option<u64> {
        until_of(store, self.tables.get(table)?.get(key)?.at)
    }

    /// Returns the bytes of an entry's key, value and deadline; `None`: there is no such key. An
    /// entry that is over counts until it is deleted.
    pub(crate) fn entry_bytes(&self, table: &str, key: &[u8]) -> Option<usize> {
        self.tables.get(table)?.get(key).map(Item::bytes)
    }

    /// Returns the number of a table's last write: another one means another content. 0: no table.
    pub(crate) fn last_write(&self, table: &str) -> u64 {
        self.tables.get(table).map_or(0, |t| t.written)
    }

    /// Returns the bytes of a table's keys, values and deadlines. O(log tables).
    pub fn bytes(&self, table: &str) -> usize {
        self.tables.get(table).map_or(0, |t| t.totals().bytes)
    }

    /// Returns the versions that a table's values count as, in order, each once.
    pub fn versions(&self, table: &str) -> Vec<u32> {
        self.counts(table).into_keys().collect()
    }

    /// Counts the entries of a table by the version that their values count as. O(versions).
    /// Versions 0 and 1 are one: see `version_of`.
    pub fn counts(&self, table: &str) -> BTreeMap<u32, u64> {
        let mut counts = BTreeMap::new();
        for (version, n) in self.tables.get(table).iter().flat_map(|t| &t.totals().versions) {
            *counts.entry(version_of(*version)).or_default() += *n as u64;
        }
        counts
    }

    /// Returns the number of a table's entries.
    pub fn count(&self, table: &str) -> usize {
        self.tables.get(table).map_or(0, |t| t.totals().count)
    }

    /// Iterates over the keys at or after `from`, in order. The caller continues a slice with
    /// the last key and a zero byte behind it.
    pub fn keys_from<'a>(
        &'a self,
        store: &'a Store,
        table: &str,
        from: &[u8],
    ) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let table = self.tables.get_key_value(table);
        let is_any_over = self.deadlines.is_any_over();
        let all = table.filter(|_| !is_any_over).map(|(_, t)| t.from(from)).into_iter().flatten();
        let alive = table.filter(|_| is_any_over);
        let alive = alive.map(|(name, t)| t.alive_from(from, self.walk(store, name))).into_iter().flatten();
        all.chain(alive).map(|e| &*e.key)
    }

    /// Walk over a table's entries that are not over.
    fn walk<'a>(
        &'a self,
        store: &'a Store,
        table: &'a str,
    ) -> Walk<impl Fn(&Indexed) -> Option<u64> + use<'a>> {
        let over = move |e: &Indexed| {
            let until = until_of(store, e.at);
            until.filter(|_| self.deadlines.is_over(table, until, e.at))
        };
        Walk { clock_ms: self.deadlines.clock_ms(), over }
    }

    /// Returns the first key at or behind `from` that starts with `prefix`. O(log entries).
    pub(crate) fn next_key<'a>(
        &'a self,
        store: &'a Store,
        table: &str,
        prefix: &[u8],
        from: &[u8],
    ) -> Option<&'a [u8]> {
        let (name, t) = self.tables.get_key_value(table)?;
        let first = match self.deadlines.is_any_over() {
            true => t.alive_from(from, self.walk(store, name)).next()?,
            false => t.first_from(from)?,
        };
        Some(&*first.key).filter(|key| key.starts_with(prefix))
    }

    /// Returns the last key before `below` that starts with `prefix`; `None`: of all that do.
    /// O(log entries).
    pub(crate) fn previous_key<'a>(
        &'a self,
        store: &'a Store,
        table: &str,
        prefix: &[u8],
        below: Option<&[u8]>,
    ) -> Option<&'a [u8]> {
        let end = prefix_end(prefix);
        let end = [below, end.as_deref()].into_iter().flatten().min();
        let t = self.tables.get(table)?;
        let last = match self.deadlines.is_any_over() {
            true => t.alive_before(end, &self.walk(store, table))?,
            false => t.before(end)?,
        };
        Some(&*last.key).filter(|key| key.starts_with(prefix))
    }

    /// Returns number and bytes of the entries whose keys start with `prefix`. O(entries / 128).
    pub(crate) fn count_prefix(&self, store: &Store, table: &str, prefix: &[u8]) -> (usize, usize) {
        let Some(t) = self.tables.get(table) else { return (0, 0) };
        let totals = t.count((prefix, prefix_end(prefix).as_deref()), &stored_version(store));
        (totals.count, totals.bytes)
    }

    /// Returns the bytes of the record that [`Tables::put_until`] writes, for the reservation
    /// before it.
    pub(crate) fn record_bytes(until: Option<u64>, table: &str, key: &[u8], value_len: usize) -> usize {
        overhead(until, table, key) + value_len
    }

    /// Writes an entry without a deadline: see [`Tables::put_until`].
    #[cfg(test)]
    pub(crate) fn put(
        &mut self,
        store: &mut Store,
        table: &str,
        key: &[u8],
        version: u32,
        value: &[u8],
    ) -> Result<(), Full> {
        self.put_until(store, (table, key), version, value, None)
    }

    /// Writes an entry, in place of the one under this key. The value has the given version; 0:
    /// the table has no owner. `until`: its deadline, in milliseconds since 1970.
    ///
    /// Fails if the store has no room, and nothing has changed then. Cannot fail after a
    /// reservation of [`Tables::record_bytes`]. The caller has checked name and key.
    pub(crate) fn put_until(
        &mut self,
        store: &mut Store,
        (table, key): (&str, &[u8]),
        version: u32,
        value: &[u8],
        until: Option<u64>,
    ) -> Result<(), Full> {
        let (kind, record) = (kind_of(until), entry(until, table, key, value));
        let mark = self.drops.mark(version);
        self.writes += 1;
        // A lookup comes first: `entry` would copy the name for each write.
        let t = match self.tables.get_mut(table) {
            Some(t) => t,
            None => self.tables.entry(table.into()).or_default(),
        };
        t.written = self.writes;
        let more_bytes = (value.len() + deadline_bytes(until)) as u32;
        let marks = Marks { version, until_ms: until };
        let (mut gone, mut now_at) = (None, None);
        let changed = t.change(key, |e| {
            let (before, until) = (store.key(e.at) as u32, until_of(store, e.at));
            let was = e.at;
            // The store refuses before anything is counted.
            e.at = store.put(Some(was), kind, mark, &record)?;
            e.more_bytes = more_bytes;
            gone = until.map(|ms| DueEntry::new(ms, was));
            now_at = Some(e.at);
            Ok((before, marks))
        });
        if let Some(changed) = changed {
            if let Some(gone) = gone {
                self.deadlines.remove(table, gone);
            }
            if let (Some(ms), Some(at)) = (until, now_at) {
                self.deadlines.add(table, DueEntry::new(ms, at));
            }
            return changed;
        }
        let Ok(at) = store.put(None, kind, mark, &record) else {
            // A refused first entry must not leave a table without entries.
            if t.totals().count == 0 {
                self.tables.remove(table);
            }
            return Err(Full);
        };
        t.insert(Indexed::new(key.into(), at, more_bytes), marks, &stored_version(store));
        if let Some(ms) = until {
            self.deadlines.add(table, DueEntry::new(ms, at));
        }
        Ok(())
    }

    /// Deletes an entry, if there is one. Cannot fail: a deletion needs no room. The last entry
    /// takes its table along.
    pub(crate) fn delete(&mut self, store: &mut Store, table: &str, key: &[u8]) {
        let Some(t) = self.tables.get_mut(table) else { return };
        self.writes += 1;
        t.written = self.writes;
        let gone = t.remove(key, &stored_version(store));
        if let Some(gone) = gone {
            self.deadlines.delete_record(store, table, gone.at);
        }
        if t.totals().count == 0 {
            self.tables.remove(table);
        }
    }

    /// Drops all entries whose keys start with `prefix`: they are gone from here on. Their records
    /// are deleted a share at a time ([`Tables::reclaim`]), a few of them at once.
    ///
    /// Cannot fail after a reservation of [`Tables::drop_record_bytes`]. O(entries / 128).
    pub(crate) fn drop_prefix(&mut self, store: &mut Store, table: &str, prefix: &[u8]) {
        let Some(t) = self.tables.get_mut(table) else { return };
        self.writes += 1;
        t.written = self.writes;
        let gone = t.take((prefix, prefix_end(prefix).as_deref()), &stored_version(store));
        if t.totals().count == 0 {
            self.tables.remove(table);
        }
        self.drops.begin(store, &mut self.deadlines, (table, prefix), gone);
    }

    /// Returns the bytes of the record that [`Tables::drop_prefix`] may write.
    pub(crate) fn drop_record_bytes(table: &str, prefix: &[u8]) -> usize {
        overhead(None, table, prefix)
    }

    /// Deletes one record of an entry that was dropped. False: there is none.
    pub(crate) fn reclaim(&mut self, store: &mut Store) -> bool {
        self.drops.reclaim(store, &mut self.deadlines)
    }

    /// Takes the clock of a pass, in milliseconds since 1970. O(1), unless a deadline has come.
    pub(crate) fn tick(&mut self, wall_ms: u64) {
        self.deadlines.tick(wall_ms);
    }

    /// Returns whether a deadline is over by the clock of the pass.
    pub(crate) fn is_over(&self, until: u64) -> bool {
        until <= self.deadlines.clock_ms()
    }

    /// Returns the tables of which entries are over.
    pub(crate) fn tables_over(&self) -> Vec<Box<str>> {
        self.deadlines.tables_over()
    }

    /// Returns the first entry of a table that is over, for the caller to delete. O(log entries).
    pub(crate) fn next_over(&mut self, store: &Store, table: &str) -> Option<OverEntry> {
        let (ms, at) = self.deadlines.first_over(table)?;
        let key = name_of(entry_at(store, at).1).map(|(_, key)| key);
        let indexed = key.and_then(|key| self.tables.get(table)?.get(key));
        match key.filter(|_| indexed.is_some_and(|e| e.at == at)) {
            Some(key) => Some(OverEntry::Key(key.to_vec())),
            None => {
                self.deadlines.remove(table, DueEntry::new(ms, at));
                Some(OverEntry::Dropped)
            }
        }
    }

    /// Returns the number of entries that are over and not deleted. O(such entries / 128).
    pub(crate) fn count_over(&self) -> usize {
        self.deadlines.count_over()
    }

    /// Looks for the next deadline, once entries that are over are deleted. O(tables).
    pub(crate) fn look_for_deadlines(&mut self) {
        self.deadlines.look();
    }

    /// Notes that the pass leaves entries that are over and could be deleted.
    pub(crate) fn leave_rest(&mut self) {
        self.deadlines.leave_rest();
    }

    /// Returns whether the next pass is due at once for entries that are over.
    pub(crate) fn has_rest(&self) -> bool {
        self.deadlines.has_rest()
    }

    /// Returns the milliseconds until the first deadline, at least; `None`: there is none;
    /// [`u64::MAX`]: entries that are over wait for room, or for their owner's turns.
    pub(crate) fn next_in_ms(&self) -> Option<u64> {
        self.deadlines.next_in_ms()
    }

    /// Returns the number of records that the store holds of dropped entries.
    pub(crate) fn dropped_left(&self) -> usize {
        self.drops.left()
    }

    /// Notes that all changes so far are committed. O(1), unless drops have begun or ended.
    pub(crate) fn commit(&mut self) {
        self.drops.commit();
    }

    /// Returns the drops whose entries the store still held at the last commit, for readers of a
    /// snapshot ([`DroppedPrefixes::has`]).
    pub fn dropped(&self) -> DroppedPrefixes {
        self.drops.committed()
    }
}

/// Returns the least text of bytes above all that start with `prefix`; `None`: there is none.
pub(crate) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let at = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    Some([&prefix[..at], &[prefix[at] + 1]].concat())
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
