//! Records shared by several others, with a reference count.
//!
//! A long message to many sessions is stored once, and each output piece or pending action names
//! it by number. The count lives in memory; recovery builds it again from the records that name it.

use super::kind::Kind;
use super::layout::Ref;
use super::records::Store;
use std::collections::HashMap;

/// Bytes from which a message for several sessions is one shared record. Shorter ones are copied,
/// which costs less than naming them.
pub(crate) const SHARED_FROM_BYTES: usize = 128;

/// The shared records by number, and how many records name each.
#[derive(Debug, Default)]
pub(crate) struct SharedRecords {
    all: HashMap<u64, (Ref, usize)>,
    last: u64,
}

impl SharedRecords {
    /// Stores a record that others may name. Nothing names it yet: the caller ends with
    /// [`SharedRecords::release_unused`]. Room must be reserved.
    pub(crate) fn put(&mut self, store: &mut Store, data: &[u8]) -> u64 {
        self.last += 1;
        let record = store.put(None, Kind::Payload, self.last, data);
        self.all.insert(self.last, (record.expect("room was reserved before"), 0));
        self.last
    }

    /// The record of a number.
    pub(crate) fn get(&self, number: u64) -> Option<Ref> {
        self.all.get(&number).map(|(r, _)| *r)
    }

    /// Counts one more record that names it. Number 0 names nothing.
    pub(crate) fn name(&mut self, number: u64) {
        if let Some((_, named)) = self.all.get_mut(&number) {
            *named += 1;
        }
    }

    /// Counts one record less that names it, and deletes it with the last one.
    pub(crate) fn unname(&mut self, store: &mut Store, number: u64) {
        if let Some((_, named)) = self.all.get_mut(&number) {
            *named -= 1;
            self.release_unused(store, number);
        }
    }

    /// Deletes the record if nothing names it.
    pub(crate) fn release_unused(&mut self, store: &mut Store, number: u64) {
        if let Some(&(record, 0)) = self.all.get(&number) {
            store.delete(record);
            self.all.remove(&number);
        }
    }

    /// Takes in a record that recovery found. Nothing names it yet.
    pub(crate) fn recover(&mut self, number: u64, record: Ref) {
        self.last = self.last.max(number);
        self.all.insert(number, (record, 0));
    }

    /// Numbers of the records that nothing names. O(records).
    pub(crate) fn unused(&self) -> Vec<u64> {
        self.all.iter().filter(|(_, (_, named))| *named == 0).map(|(number, _)| *number).collect()
    }
}
