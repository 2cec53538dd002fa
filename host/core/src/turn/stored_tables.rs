//! Stored tables, as a turn reads them: without what its own batch has staged.
//!
//! Each read passes here. If the turn is recorded, its answers are kept; if it is played, they come
//! from the recording ([`super::reads`]). Else a read costs one branch more than the table's own.

use super::reads::{HostQuestion, Reads, Topic};
use crate::store::records::Store;
use crate::tables::index::Tables;

/// Stored tables, and the answers to a turn that is recorded or played.
#[derive(Clone, Copy)]
pub(crate) struct StoredTables<'a> {
    pub(crate) store: &'a Store,
    pub(crate) tables: &'a Tables,
    pub(crate) reads: Option<&'a Reads>,
}

impl<'a> StoredTables<'a> {
    /// A number of the tables.
    fn number(&self, q: HostQuestion<'_>, live: impl FnOnce() -> Option<usize>) -> Option<usize> {
        match self.reads {
            None => live(),
            Some(reads) => reads.number(q, || live().map(|n| n as u64)).map(|n| n as usize),
        }
    }

    /// Version and value of an entry.
    pub(super) fn value(&self, table: &str, key: &[u8]) -> Option<(u32, &'a [u8])> {
        let live = || self.tables.value(self.store, table, key);
        let Some(reads) = self.reads else { return live() };
        let q = HostQuestion::at_key(Topic::Entry, table.as_bytes(), key);
        let found = reads.bytes(q, || live().map(|(version, value)| (version.into(), value)));
        found.map(|(version, value)| (version as u32, value))
    }

    /// Bytes of an entry: key, value and deadline.
    pub(super) fn entry_bytes(&self, table: &str, key: &[u8]) -> Option<usize> {
        let q = HostQuestion::at_key(Topic::EntryBytes, table.as_bytes(), key);
        self.number(q, || self.tables.entry_bytes(table, key))
    }

    /// Whether there is such a table.
    pub(super) fn contains(&self, table: &str) -> bool {
        let q = HostQuestion::of(Topic::HasTable, table.as_bytes());
        self.number(q, || Some(self.tables.contains(table).into())) == Some(1)
    }

    /// Number of tables.
    pub(super) fn len(&self) -> usize {
        self.number(HostQuestion::of(Topic::Tables, b""), || Some(self.tables.len())).unwrap_or(0)
    }

    /// Bytes of a table.
    pub(super) fn bytes(&self, table: &str) -> usize {
        let q = HostQuestion::of(Topic::TableBytes, table.as_bytes());
        self.number(q, || Some(self.tables.bytes(table))).unwrap_or(0)
    }

    /// Entries of a table.
    pub(super) fn count(&self, table: &str) -> usize {
        let q = HostQuestion::of(Topic::TableLen, table.as_bytes());
        self.number(q, || Some(self.tables.count(table))).unwrap_or(0)
    }

    /// First key at or after `from` that starts with `prefix`.
    pub(super) fn next_key(&self, table: &str, prefix: &[u8], from: &[u8]) -> Option<&'a [u8]> {
        let live = || self.tables.next_key(self.store, table, prefix, from);
        self.key(Topic::NextKey, table, (prefix, from), live)
    }

    /// Last key before `below`, or of all for `None`, that starts with `prefix`.
    pub(super) fn previous_key(&self, table: &str, prefix: &[u8], below: Option<&[u8]>) -> Option<&'a [u8]> {
        let live = || self.tables.previous_key(self.store, table, prefix, below);
        let topic = if below.is_some() { Topic::PreviousKey } else { Topic::LastKey };
        self.key(topic, table, (prefix, below.unwrap_or_default()), live)
    }

    /// A key that is found from another one on. The question holds the prefix and that key, one
    /// behind the other, and the length of the first.
    fn key(
        &self,
        topic: Topic,
        table: &str,
        (prefix, place): (&[u8], &[u8]),
        live: impl FnOnce() -> Option<&'a [u8]>,
    ) -> Option<&'a [u8]> {
        let Some(reads) = self.reads else { return live() };
        let both = [prefix, place].concat();
        let q = HostQuestion { topic, name: table.as_bytes(), key: &both, at: prefix.len() as u64 };
        reads.bytes(q, || live().map(|key| (0, key))).map(|(_, key)| key)
    }

    /// Entries under a prefix, and their bytes.
    pub(super) fn count_prefix(&self, table: &str, prefix: &[u8]) -> (usize, usize) {
        let live = || self.tables.count_prefix(self.store, table, prefix);
        let Some(reads) = self.reads else { return live() };
        let q = HostQuestion::at_key(Topic::UnderPrefix, table.as_bytes(), prefix);
        let counted = reads.made(q, || {
            let (entries, bytes) = live();
            Some((entries as u64, (bytes as u64).to_le_bytes().to_vec()))
        });
        let Some((entries, bytes)) = counted else { return (0, 0) };
        let bytes = bytes.first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
        (entries as usize, bytes as usize)
    }

    /// Whether a deadline of an entry, in milliseconds since 1970, is over.
    pub(super) fn is_over(&self, until_ms: u64) -> bool {
        let q = HostQuestion::at(Topic::IsOver, until_ms);
        self.number(q, || Some(self.tables.is_over(until_ms).into())) == Some(1)
    }
}
