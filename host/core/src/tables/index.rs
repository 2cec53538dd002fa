//! Tables: ordered maps that sessions share, indexed in memory, stored as records.
//!
//! Keys are bytes, values MessagePack. Each entry's record names its table and key, so that the
//! index can be built again from the entries alone. The key of that record is the version of the
//! value, as the table's owner counts; 0: nobody owned the table when it was written.

use crate::store::kind::Kind;
use crate::store::layout::{Full, Ref};
use crate::store::records::Store;
use crate::tables::entry::{entry, overhead, value_of, version_of};
use std::collections::BTreeMap;
use std::ops::Bound;

/// All tables by name. A table exists while it has an entry.
#[derive(Debug, Default)]
pub struct Tables {
    pub(super) tables: BTreeMap<Box<str>, Table>,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) entries: BTreeMap<Box<[u8]>, Ref>,
    /// Entries of each version.
    pub(super) versions: BTreeMap<u32, usize>,
    /// Bytes of all keys and values.
    pub(super) bytes: usize,
}

impl Tables {
    /// Tables.
    pub fn len(&self) -> usize {
        self.tables.len()
    }

    /// Whether there is no table.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// References to all entries, in the order of tables and keys.
    pub(crate) fn refs(&self) -> impl Iterator<Item = Ref> {
        self.tables.values().flat_map(|t| t.entries.values().copied())
    }

    /// Names of the tables, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tables.keys().map(|n| &**n)
    }

    /// Whether a table has entries.
    pub fn contains(&self, table: &str) -> bool {
        self.tables.contains_key(table)
    }

    /// Copies a value to the end of `out`, and returns its version as stored; `None`: there is no
    /// such key.
    pub fn get(&self, store: &Store, table: &str, key: &[u8], out: &mut Vec<u8>) -> Option<u32> {
        let &r = self.tables.get(table)?.entries.get(key)?;
        store.read(r, |e| out.extend_from_slice(value_of(e)));
        Some(store.key(r) as u32)
    }

    /// Whether a key is there.
    pub(crate) fn has(&self, table: &str, key: &[u8]) -> bool {
        self.tables.get(table).is_some_and(|t| t.entries.contains_key(key))
    }

    /// Bytes of an entry's key and value; 0: there is no such key.
    pub(crate) fn entry_bytes(&self, store: &Store, table: &str, key: &[u8]) -> usize {
        let found = self.tables.get(table).and_then(|t| t.entries.get(key));
        found.map_or(0, |r| key.len() + store.read(*r, |e| value_of(e).len()))
    }

    /// Bytes of a table's keys and values.
    pub fn bytes(&self, table: &str) -> usize {
        self.tables.get(table).map_or(0, |t| t.bytes)
    }

    /// Versions of a table's values.
    pub fn versions(&self, table: &str) -> Vec<u32> {
        self.counts(table).into_keys().collect()
    }

    /// Entries of a table by the version that their values count as.
    pub fn counts(&self, table: &str) -> BTreeMap<u32, u64> {
        let mut counts = BTreeMap::new();
        for (version, n) in self.tables.get(table).iter().flat_map(|t| &t.versions) {
            *counts.entry(version_of(*version)).or_default() += *n as u64;
        }
        counts
    }

    /// Entries of a table.
    pub fn count(&self, table: &str) -> usize {
        self.tables.get(table).map_or(0, |t| t.entries.len())
    }

    /// The keys at or after `from`, in order.
    pub fn keys_from<'a>(&'a self, table: &str, from: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        let range = (Bound::Included(from), Bound::Unbounded);
        let entries = self.tables.get(table).into_iter();
        entries.flat_map(move |t| t.entries.range::<[u8], _>(range)).map(|(k, _)| &**k)
    }

    /// Bytes of the record that [`Tables::put`] writes.
    pub(crate) fn record_bytes(table: &str, key: &[u8], value_len: usize) -> usize {
        overhead(table, key) + value_len
    }

    /// Writes an entry, in place of the one under this key.
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
        let t = match self.tables.get_mut(table) {
            Some(t) => t,
            None => self.tables.entry(table.into()).or_default(),
        };
        match t.entries.get_mut(key) {
            Some(r) => {
                let old = store.key(*r) as u32;
                let old_len = store.read(*r, |e| value_of(e).len());
                *r = store.put(Some(*r), Kind::Entry, mark, &entry)?;
                t.uncount(old);
                t.bytes = t.bytes + value.len() - old_len;
            }
            None => {
                let Ok(r) = store.put(None, Kind::Entry, mark, &entry) else {
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

    /// Deletes an entry, if it is there.
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

impl Table {
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
