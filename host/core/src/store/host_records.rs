//! The host's own records: library builds, ports, configuration, ledger, last connection number.
//!
//! The shell decides what such a record says. A record becomes valid with the commit of the pass.

use super::kind::Kind;
use super::layout::Ref;
use super::records::Store;
use std::collections::BTreeMap;

/// The host's records by kind and key.
#[derive(Debug, Default)]
pub(crate) struct HostRecords {
    records: BTreeMap<(u8, u64), Ref>,
    /// The highest number of a connection that was served.
    connection_number: u64,
    connection_record: Option<Ref>,
    connection_changed: bool,
}

impl HostRecords {
    /// Writes a record in place of the one under this kind and key. False: the store has no room
    /// for it, and the old record stays.
    pub(crate) fn put(&mut self, store: &mut Store, kind: Kind, key: u64, bytes: &[u8]) -> bool {
        let old = self.records.get(&(kind as u8, key)).copied();
        match store.put(old, kind, key, bytes) {
            Ok(r) => self.records.insert((kind as u8, key), r),
            Err(_) => return false,
        };
        true
    }

    /// Deletes a record, if it is there.
    pub(crate) fn delete(&mut self, store: &mut Store, kind: Kind, key: u64) {
        if let Some(r) = self.records.remove(&(kind as u8, key)) {
            store.delete(r);
        }
    }

    /// Copies of at most `max` records of a kind, from a key on.
    pub(crate) fn list(&self, store: &Store, kind: Kind, from: u64, max: usize) -> Vec<(u64, Vec<u8>)> {
        let of_kind = self.records.range((kind as u8, from)..=(kind as u8, u64::MAX)).take(max);
        of_kind.map(|(&(_, key), &r)| (key, store.read(r, <[u8]>::to_vec))).collect()
    }

    /// The highest number of a connection that was served. A connection without a session is new
    /// above it, and closed at or below it.
    pub(crate) fn connection_number(&self) -> u64 {
        self.connection_number
    }

    /// Counts a connection as served. The next commit stores the number.
    pub(crate) fn record_connection_number(&mut self, id: u64) {
        if id > self.connection_number {
            self.connection_number = id;
            self.connection_changed = true;
        }
    }

    /// Stores the connection number, as part of a commit.
    pub(crate) fn write_connection_number(&mut self, store: &mut Store) {
        if std::mem::take(&mut self.connection_changed) {
            let bytes = self.connection_number.to_le_bytes();
            let put = store.put(self.connection_record, Kind::Served, 0, &bytes);
            debug_assert!(put.is_ok(), "no room for the number of the last connection");
            self.connection_record = put.ok().or(self.connection_record);
        }
    }

    /// Takes in a record that recovery found. A double is deleted.
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
