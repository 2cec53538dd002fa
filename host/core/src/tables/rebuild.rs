//! Rebuild of the index of tables from the entries that recovery found.
//!
//! A takeover waits for it, and a host may have millions of entries. So the work is done in two
//! steps: entries are gathered by table, then sorted, and each map is built at once. An
//! insertion into a large map waits for memory at every level; a sort of compact keys runs
//! through memory in order.

use super::chunks::Chunks;
use super::deadlines::DueEntry;
use super::entry::{deadline_bytes, name_of, split_deadline, value_of};
use super::index::Tables;
use super::indexed::{Indexed, entry_at};
use crate::store::layout::Ref;
use crate::store::records::Store;
use crate::store::recover::Found;
use std::collections::BTreeMap;

impl Tables {
    /// Adds the entries that recovery found to an empty index. Returns the records that are no
    /// entry, which the caller deletes and names. O(n log n) in the entries.
    pub(crate) fn recover<'f>(
        &mut self,
        store: &Store,
        drops: impl Iterator<Item = &'f Found>,
        records: impl Iterator<Item = &'f Found>,
    ) -> Vec<Ref> {
        let mut found: BTreeMap<Box<str>, FoundTable<'_>> = BTreeMap::new();
        let (dropped, mut unreadable) = self.drops.recover(store, drops);
        for f in records {
            let split = split_deadline(f.kind, store.bytes_of(f.at));
            let named = split.and_then(|(until, bytes)| Some((until, bytes, name_of(bytes)?)));
            let Some((until, bytes, (name, key))) = named else {
                unreadable.push(f.at);
                continue;
            };
            if self.drops.recover_entry(&dropped, (name, key), f) {
                continue;
            }
            let table = match found.get_mut(name) {
                Some(known) => known,
                None => {
                    found.entry(name.into()).or_insert(FoundTable { prefix: key, ..FoundTable::default() })
                }
            };
            // A table's keys often begin alike. Without the common part, the sixteen bytes of a
            // head tell more of them apart.
            let common = table.prefix.iter().zip(key).take_while(|(a, b)| a == b).count();
            table.prefix = &table.prefix[..common];
            table.deadlines.extend(until.map(|ms| DueEntry::new(ms, f.at)));
            let more_bytes = value_of(bytes).len() + deadline_bytes(until);
            table.entries.push((f.at, f.key as u32, more_bytes as u32));
        }
        for (name, mut table) in found {
            let mut deadlines = std::mem::take(&mut table.deadlines);
            deadlines.sort_unstable();
            self.deadlines.add_sorted(&name, deadlines);
            self.tables.insert(name, table.in_order(store));
        }
        unreadable
    }
}

/// Table on its way into the index.
#[derive(Default)]
struct FoundTable<'a> {
    /// Common beginning of all keys found so far.
    prefix: &'a [u8],
    /// Records of the entries, in the order of their places in the store, with the version of
    /// each value and its bytes, deadline included.
    entries: Vec<(Ref, u32, u32)>,
    /// Deadlines of those that have one.
    deadlines: Vec<DueEntry>,
}

/// Entry on its way into the index: 32 bytes, so that a sort moves little.
struct FoundEntry {
    /// First sixteen bytes of the key behind the prefix, as a big-endian number. The number
    /// decides nearly every comparison without a look at the key, which may be anywhere in
    /// memory.
    head: u128,
    /// Record of the entry.
    at: Ref,
    /// Version of the value, as stored.
    version: u32,
    /// Bytes of the value and of the deadline, if there is one.
    more_bytes: u32,
    /// Bytes of the key behind the prefix. Keys have at most 65,535 bytes.
    len: u16,
}

impl FoundEntry {
    /// Makes an entry of the part of its key behind the prefix. A short one is filled up with
    /// zeros.
    fn new((at, version, more_bytes): (Ref, u32, u32), rest: &[u8]) -> FoundEntry {
        let mut head = [0; size_of::<u128>()];
        let len = rest.len().min(head.len());
        head[..len].copy_from_slice(&rest[..len]);
        let len = rest.len() as u16;
        FoundEntry { head: u128::from_be_bytes(head), at, version, more_bytes, len }
    }

    /// Returns the part of the key behind the prefix, if `head` has all of it.
    fn rest(&self) -> Option<[u8; size_of::<u128>()]> {
        (usize::from(self.len) <= size_of::<u128>()).then_some(self.head.to_be_bytes())
    }
}

impl FoundTable<'_> {
    /// Sorts the entries and builds the map. One allocation for each key; a key that `head` has
    /// all of is not read again.
    fn in_order(self, store: &Store) -> Chunks<Indexed> {
        let FoundTable { prefix, entries, .. } = self;
        let key_of = |r: Ref| name_of(entry_at(store, r).1).map_or(&[][..], |(_, key)| key);
        let mut entries: Vec<_> =
            entries.into_iter().map(|e| FoundEntry::new(e, &key_of(e.0)[prefix.len()..])).collect();
        // Heads are equal if keys agree in sixteen bytes, or differ only in zeros at the end.
        // Then the keys themselves decide.
        entries.sort_by(|a, b| a.head.cmp(&b.head).then_with(|| key_of(a.at).cmp(key_of(b.at))));
        let key = |e: &FoundEntry| match e.rest() {
            Some(rest) => [prefix, &rest[..usize::from(e.len)]].concat().into(),
            None => key_of(e.at).into(),
        };
        Chunks::of_sorted(entries.into_iter().map(|e| (Indexed::new(key(&e), e.at, e.more_bytes), e.version)))
    }
}
