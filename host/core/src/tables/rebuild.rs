//! Rebuilds the index of tables from the entries after a crash.

use super::entry::{name_of, value_of};
use super::index::{Table, Tables};
use crate::store::layout::Ref;
use crate::store::records::Store;
use crate::store::recover::Found;
use std::collections::BTreeMap;

impl Tables {
    /// Takes in the entries that recovery found. Returns those that can't be read.
    ///
    /// O(n log n): entries are sorted and the maps are built at once, as an entry that goes into a
    /// large map by itself waits for memory at every step of the way.
    pub(crate) fn recover<'f>(
        &mut self,
        store: &Store,
        records: impl Iterator<Item = &'f Found>,
    ) -> Vec<Ref> {
        let mut found: BTreeMap<Box<str>, FoundTable<'_>> = BTreeMap::new();
        let mut unreadable = Vec::new();
        for f in records {
            let bytes = store.bytes_of(f.at);
            let Some((name, key)) = name_of(bytes) else {
                unreadable.push(f.at);
                continue;
            };
            let table = match found.get_mut(name) {
                Some(known) => known,
                None => {
                    found.entry(name.into()).or_insert(FoundTable { prefix: key, ..FoundTable::default() })
                }
            };
            table.table.bytes += key.len() + value_of(bytes).len();
            *table.table.versions.entry(f.key as u32).or_default() += 1;
            let common = table.prefix.iter().zip(key).take_while(|(a, b)| a == b).count();
            table.prefix = &table.prefix[..common];
            table.entries.push(f.at);
        }
        self.tables.extend(found.into_iter().map(|(name, table)| (name, table.in_order(store))));
        unreadable
    }
}

/// A table on its way into the index.
#[derive(Default)]
struct FoundTable<'a> {
    table: Table,
    /// Common beginning of all keys.
    prefix: &'a [u8],
    entries: Vec<Ref>,
}

/// An entry on its way into the index.
struct FoundEntry {
    /// The part of its key behind the prefix, as a number. It decides nearly every comparison
    /// without a look at the key, which may be anywhere in memory.
    head: u128,
    at: Ref,
    /// Bytes of its key behind the prefix.
    len: u16,
}

impl FoundEntry {
    fn new(at: Ref, rest: &[u8]) -> FoundEntry {
        let mut head = [0; size_of::<u128>()];
        let len = rest.len().min(head.len());
        head[..len].copy_from_slice(&rest[..len]);
        FoundEntry { head: u128::from_be_bytes(head), at, len: rest.len() as u16 }
    }

    /// The part of its key behind the prefix, if `head` has all of it.
    fn rest(&self) -> Option<[u8; size_of::<u128>()]> {
        (usize::from(self.len) <= size_of::<u128>()).then_some(self.head.to_be_bytes())
    }
}

impl FoundTable<'_> {
    fn in_order(self, store: &Store) -> Table {
        let FoundTable { table, prefix, entries } = self;
        let key_of = |r: Ref| name_of(store.bytes_of(r)).map_or(&[][..], |(_, key)| key);
        let mut entries: Vec<_> =
            entries.into_iter().map(|r| FoundEntry::new(r, &key_of(r)[prefix.len()..])).collect();
        entries.sort_by(|a, b| a.head.cmp(&b.head).then_with(|| key_of(a.at).cmp(key_of(b.at))));
        let key = |e: &FoundEntry| match e.rest() {
            Some(rest) => [prefix, &rest[..usize::from(e.len)]].concat().into(),
            None => key_of(e.at).into(),
        };
        Table { entries: entries.into_iter().map(|e| (key(&e), e.at)).collect(), ..table }
    }
}
