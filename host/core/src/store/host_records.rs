//! Host records: library builds, ports, configuration, ledger, last connection number.
//!
//! The shell decides about the content of such a record, and the core stores it as bytes.
//! Records that are put in one pass become valid together, with the turns of that pass.
//!
//! An index by kind and key lies on the heap; recovery builds it again. Host records are few
//! and short, and are put without a reservation: the store's reserve has room for them when the
//! limit is reached.

use super::kind::Kind;
use super::layout::Ref;
use super::records::Store;
use std::collections::BTreeMap;

/// Host records by kind and key, and the last connection number.
#[derive(Debug, Default)]
pub(crate) struct HostRecords {
    /// Reference of each record, by number of its kind and by key.
    records: BTreeMap<(u8, u64), Ref>,
    /// Highest number of a connection that was served; 0: none yet.
    connection_number: u64,
    /// Record of that number; `None`: none was written.
    connection_record: Option<Ref>,
    /// Whether the number has grown since it was written.
    connection_changed: bool,
}

impl HostRecords {
    /// Writes a record in place of the one under this kind and key. False: limit and reserve of
    /// the store are used up, or the record is too long; the old record stays. O(log records).
    pub(crate) fn put(&mut self, store: &mut Store, kind: Kind, key: u64, bytes: &[u8]) -> bool {
        let old = self.records.get(&(kind as u8, key)).copied();
        match store.put(old, kind, key, bytes) {
            Ok(r) => self.records.insert((kind as u8, key), r),
            Err(_) => return false,
        };
        true
    }

    /// Deletes the record of a kind and key, if there is one.
    pub(crate) fn delete(&mut self, store: &mut Store, kind: Kind, key: u64) {
        if let Some(r) = self.records.remove(&(kind as u8, key)) {
            store.delete(r);
        }
    }

    /// Copies at most `max` records of a kind, in the order of their keys, from a key on.
    pub(crate) fn list(&self, store: &Store, kind: Kind, from: u64, max: usize) -> Vec<(u64, Vec<u8>)> {
        let of_kind = self.records.range((kind as u8, from)..=(kind as u8, u64::MAX)).take(max);
        of_kind.map(|(&(_, key), &r)| (key, store.read(r, <[u8]>::to_vec))).collect()
    }

    /// Keys of a kind, in order.
    pub(crate) fn keys(&self, kind: Kind) -> impl Iterator<Item = u64> + use<'_> {
        self.records.range((kind as u8, 0)..=(kind as u8, u64::MAX)).map(|((_, key), _)| *key)
    }

    /// Returns the highest key of a kind; `None`: there is no record of it.
    pub(crate) fn last_key(&self, kind: Kind) -> Option<u64> {
        self.records.range((kind as u8, 0)..=(kind as u8, u64::MAX)).next_back().map(|((_, key), _)| *key)
    }

    /// Returns the highest number of a connection that was served. A connection without a
    /// session is new above it, and closed at or below it.
    pub(crate) fn connection_number(&self) -> u64 {
        self.connection_number
    }

    /// Counts a connection as served; refused ones count, too. The next commit stores the
    /// number. A number at or below the highest one changes nothing.
    pub(crate) fn record_connection_number(&mut self, id: u64) {
        if id > self.connection_number {
            self.connection_number = id;
            self.connection_changed = true;
        }
    }

    /// Stores the connection number if it has grown, just before the commit of a pass. In that
    /// way sessions and number are of the same epoch. One record, written again in place of
    /// itself.
    pub(crate) fn write_connection_number(&mut self, store: &mut Store) {
        if std::mem::take(&mut self.connection_changed) {
            let bytes = self.connection_number.to_le_bytes();
            let put = store.put(self.connection_record, Kind::Served, 0, &bytes);
            debug_assert!(put.is_ok(), "no room for the number of the last connection");
            // If the store has not even a reserve left, the number of an earlier commit stays,
            // and its record.
            self.connection_record = put.ok().or(self.connection_record);
        }
    }

    /// Adds a record that recovery found. Of two records under one kind and key, which only
    /// damage can leave, the first is deleted. The highest connection number counts.
    pub(crate) fn recover(&mut self, store: &mut Store, kind: Kind, key: u64, at: Ref) {
        if kind == Kind::Served {
            let number = store.read(at, |b| b.try_into().map_or(0, u64::from_le_bytes));
            self.connection_number = self.connection_number.max(number);
            self.connection_record = Some(at);
        } else if let Some(other) = self.records.insert((kind as u8, key), at) {
            store.delete(other);
        }
    }
}
