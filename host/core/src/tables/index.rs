//! Tables: ordered maps that sessions share, indexed on the heap, stored as records.
//!
//! Keys are bytes, values MessagePack. Each entry is one record of [`Kind::Entry`], which names
//! its table and key, so recovery builds the index again from the entries alone. The key of
//! that record is the version of the value, as the table's owner counts. Version 0: the table
//! had no owner.
//!
//! *Invariants*: every reference in the index is a live record, and every entry is in the
//! index. A table exists while it has an entry. Counts and bytes of a table are those of its
//! entries.
//!
//! The index costs a copy of the key and 20 bytes for each entry, beside the nodes of the map.
//! Values lie in the store alone. A lookup is O(log tables + log entries).
//!
//! Turns do not write here: their writes are staged (`crate::turn::table_effects`), checked
//! against the limits of tables, and applied if the turn succeeds.

use crate::store::kind::Kind;
use crate::store::layout::{Full, Ref};
use crate::store::records::Store;
use crate::tables::entry::{entry, overhead, value_of, version_of};
use std::collections::BTreeMap;
use std::ops::Bound;

/// Tables by name. A table exists while it has an entry.
#[derive(Debug, Default)]
pub struct Tables {
    /// Tables by name, in the order that operators see.
    pub(super) tables: BTreeMap<Box<str>, Table>,
}

/// Index of one table.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Record of each entry, by key.
    pub(super) entries: BTreeMap<Box<[u8]>, Ref>,
    /// Entries of each version, as stored. Versions without an entry are not in the map.
    pub(super) versions: BTreeMap<u32, usize>,
    /// Bytes of all keys and values.
    pub(super) bytes: usize,
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
        self.tables.values().flat_map(|t| t.entries.values().copied())
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
        let &r = self.tables.get(table)?.entries.get(key)?;
        store.read(r, |e| out.extend_from_slice(value_of(e)));
        Some(store.key(r) as u32)
    }

    /// Lends a stored value, with its version. The caller converts it if its version is not the
    /// owner's.
    pub(crate) fn value<'s>(&self, store: &'s Store, table: &str, key: &[u8]) -> Option<(u32, &'s [u8])> {
        let &r = self.tables.get(table)?.entries.get(key)?;
        Some((store.key(r) as u32, value_of(store.bytes_of(r))))
    }

    /// Returns the bytes of an entry's key and value; `None`: there is no such key.
    pub(crate) fn entry_bytes(&self, store: &Store, table: &str, key: &[u8]) -> Option<usize> {
        let &r = self.tables.get(table)?.entries.get(key)?;
        Some(key.len() + store.read(r, |e| value_of(e).len()))
    }

    /// Returns the bytes of a table's keys and values. O(log tables).
    pub fn bytes(&self, table: &str) -> usize {
        self.tables.get(table).map_or(0, |t| t.bytes)
    }

    /// Returns the versions that a table's values count as, in order, each once.
    pub fn versions(&self, table: &str) -> Vec<u32> {
        self.counts(table).into_keys().collect()
    }

    /// Counts the entries of a table by the version that their values count as. O(versions).
    /// Versions 0 and 1 are one: see `version_of`.
    pub fn counts(&self, table: &str) -> BTreeMap<u32, u64> {
        let mut counts = BTreeMap::new();
        for (version, n) in self.tables.get(table).iter().flat_map(|t| &t.versions) {
            *counts.entry(version_of(*version)).or_default() += *n as u64;
        }
        counts
    }

    /// Returns the number of a table's entries.
    pub fn count(&self, table: &str) -> usize {
        self.tables.get(table).map_or(0, |t| t.entries.len())
    }

    /// Iterates over the keys at or after `from`, in order. The caller continues a slice with
    /// the last key and a zero byte behind it.
    pub fn keys_from<'a>(&'a self, table: &str, from: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        let range = (Bound::Included(from), Bound::Unbounded);
        let entries = self.tables.get(table).into_iter();
        entries.flat_map(move |t| t.entries.range::<[u8], _>(range)).map(|(k, _)| &**k)
    }

    /// Returns the first key at or after `from` that starts with `prefix`. `from` is not before the
    /// prefix. O(log entries).
    pub(crate) fn next_key(&self, table: &str, prefix: &[u8], from: &[u8]) -> Option<&[u8]> {
        self.keys_from(table, from).next().filter(|key| key.starts_with(prefix))
    }

    /// Returns the last key before `below`, or of all for `None`, that starts with `prefix`.
    /// O(log entries).
    pub(crate) fn previous_key(&self, table: &str, prefix: &[u8], below: Option<&[u8]>) -> Option<&[u8]> {
        let end = prefix_end(prefix);
        let end = [below, end.as_deref()].into_iter().flatten().min();
        let range = (Bound::Unbounded, end.map_or(Bound::Unbounded, Bound::Excluded));
        let before = self.tables.get(table)?.entries.range::<[u8], _>(range).next_back();
        before.map(|(key, _)| &**key).filter(|key| key.starts_with(prefix))
    }

    /// Returns the bytes of the record that [`Tables::put`] writes, for the reservation before
    /// it.
    pub(crate) fn record_bytes(table: &str, key: &[u8], value_len: usize) -> usize {
        overhead(table, key) + value_len
    }

    /// Writes an entry, in place of the one under this key. The value has the given version; 0:
    /// the table has no owner.
    ///
    /// Fails if the store has no room, and nothing has changed then. Cannot fail after a
    /// reservation of [`Tables::record_bytes`]. The caller has checked name and key.
    pub(crate) fn put(
        &mut self,
        store: &mut Store,
        table: &str,
        key: &[u8],
        version: u32,
        value: &[u8],
    ) -> Result<(), Full> {
        let entry = entry(table, key, value);
        let mark = u64::from(version);
        // A lookup comes first: `entry` would copy the name for each write.
        let t = match self.tables.get_mut(table) {
            Some(t) => t,
            None => self.tables.entry(table.into()).or_default(),
        };
        match t.entries.get_mut(key) {
            Some(r) => {
                let old = store.key(*r) as u32;
                let old_len = store.read(*r, |e| value_of(e).len());
                // The store refuses before anything is counted.
                *r = store.put(Some(*r), Kind::Entry, mark, &entry)?;
                t.uncount(old);
                t.bytes = t.bytes + value.len() - old_len;
            }
            None => {
                let Ok(r) = store.put(None, Kind::Entry, mark, &entry) else {
                    // A refused first entry must not leave a table without entries.
                    if t.entries.is_empty() {
                        self.tables.remove(table);
                    }
                    return Err(Full);
                };
                t.entries.insert(key.into(), r);
                t.bytes += key.len() + value.len();
            }
        }
        *t.versions.entry(version).or_default() += 1;
        Ok(())
    }

    /// Deletes an entry, if there is one. Cannot fail: a deletion needs no room. The last entry
    /// takes its table along.
    pub(crate) fn delete(&mut self, store: &mut Store, table: &str, key: &[u8]) {
        let Some(t) = self.tables.get_mut(table) else { return };
        if let Some(r) = t.entries.remove(key) {
            t.uncount(store.key(r) as u32);
            t.bytes -= key.len() + store.read(r, |e| value_of(e).len());
            store.delete(r);
        }
        if t.entries.is_empty() {
            self.tables.remove(table);
        }
    }
}

/// Returns the least text of bytes above all that start with `prefix`; `None`: there is none.
pub(crate) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let at = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    Some([&prefix[..at], &[prefix[at] + 1]].concat())
}

impl Table {
    /// Counts one entry less of a version.
    fn uncount(&mut self, version: u32) {
        if let Some(n) = self.versions.get_mut(&version) {
            *n -= 1;
            if *n == 0 {
                self.versions.remove(&version);
            }
        }
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
