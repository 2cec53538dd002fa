//! Records shared by several others, with a reference count.
//!
//! A long message to many sessions is stored once, and each output piece or pending action
//! names it by number. A broadcast of 64 KiB to 1,000 sessions thus costs 64 KiB and 1,000
//! blocks of 64 bytes.
//!
//! The count lives on the heap; recovery builds it again from the records that name the number.
//! A death between two writes leaves no wrong count: all writes of a pass become valid
//! together, or none.
//!
//! A use has this order: `put` with count 0, `name` for each record, then `release_unused`. The
//! last step deletes a record that no session came to name. A number is not given again while a
//! record has it.

use super::kind::Kind;
use super::layout::Ref;
use super::records::Store;
use std::collections::HashMap;

/// Bytes from which a message for several sessions is one shared record. Shorter messages are
/// copied, which costs less than a record that names them.
pub(crate) const SHARED_FROM_BYTES: usize = 128;

/// Shared records by number, with the number of records that name each.
#[derive(Debug, Default)]
pub(crate) struct SharedRecords {
    /// Record and count by number.
    all: HashMap<u64, (Ref, usize)>,
    /// Highest number given so far. Recovery continues behind the highest number found.
    last: u64,
}

impl SharedRecords {
    /// Stores a record that others may name, and returns its number. Nothing names it yet: the
    /// caller ends with [`SharedRecords::release_unused`]. Cannot fail: the caller has reserved
    /// room.
    pub(crate) fn put(&mut self, store: &mut Store, data: &[u8]) -> u64 {
        self.last += 1;
        let record = store.put(None, Kind::Payload, self.last, data);
        self.all.insert(self.last, (record.expect("room was reserved before"), 0));
        self.last
    }

    /// Returns the record of a number; `None`: there is none.
    pub(crate) fn get(&self, number: u64) -> Option<Ref> {
        self.all.get(&number).map(|(r, _)| *r)
    }

    /// Counts one more record that names a number. Number 0 names nothing.
    pub(crate) fn name(&mut self, number: u64) {
        if let Some((_, named)) = self.all.get_mut(&number) {
            *named += 1;
        }
    }

    /// Counts one record less that names a number, and deletes the shared record with the last
    /// one. The caller calls it once for each [`SharedRecords::name`].
    pub(crate) fn unname(&mut self, store: &mut Store, number: u64) {
        if let Some((_, named)) = self.all.get_mut(&number) {
            *named -= 1;
            self.release_unused(store, number);
        }
    }

    /// Deletes the record of a number if nothing names it. Repeatable: a number without a
    /// record is left alone.
    pub(crate) fn release_unused(&mut self, store: &mut Store, number: u64) {
        if let Some(&(record, 0)) = self.all.get(&number) {
            store.delete(record);
            self.all.remove(&number);
        }
    }

    /// Adds a record that recovery found, with count 0. Recovery then names it from outputs and
    /// inboxes, and releases [`SharedRecords::unused`] ones at its end.
    pub(crate) fn recover(&mut self, number: u64, record: Ref) {
        self.last = self.last.max(number);
        self.all.insert(number, (record, 0));
    }

    /// Returns the numbers of the records that nothing names. O(records).
    pub(crate) fn unused(&self) -> Vec<u64> {
        self.all.iter().filter(|(_, (_, named))| *named == 0).map(|(number, _)| *number).collect()
    }
}
