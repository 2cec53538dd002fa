//! Tables: maps that the host owns and sessions share. Keys are bytes in order, values MessagePack.
//!
//! The index lies here, the entries in the store; each entry names its table and key, so that the index can be built
//! again from the entries alone. The key of an entry's record is the version of its value, as the table's owner counts; 0: nobody
//! owned the table when it was written.

use crate::store::kind::Kind;
use crate::store::layout::{Full, Ref};
use crate::store::records::Store;
use crate::store::recover::Found;
use crate::tables::entry::entry;
use crate::tables::entry::name_of;
use crate::tables::entry::value_of;
use crate::tables::entry::version_of;
use std::collections::BTreeMap;
use std::ops::Bound;

/// All tables by name. A table exists while it has an entry.
#[derive(Debug, Default)]
pub struct Tables {
    tables: BTreeMap<Box<str>, Table>,
}

#[derive(Debug, Default)]
struct Table {
    entries: BTreeMap<Box<[u8]>, Ref>,
    /// How many entries there are of each version.
    versions: BTreeMap<u32, usize>,
    /// Of all keys and values.
    bytes: usize,
}

impl Tables {
    /// How many tables there are.
    pub fn len(&self) -> usize {
        self.tables.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// What points to each entry, in the order of tables and keys.
    pub(crate) fn refs(&self) -> impl Iterator<Item = Ref> {
        self.tables.values().flat_map(|t| t.entries.values().copied())
    }

    /// The tables' names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tables.keys().map(|n| &**n)
    }

    /// Whether a table has entries.
    pub fn contains(&self, table: &str) -> bool {
        self.tables.contains_key(table)
    }

    /// Copies a value to the end of `out`, and returns its version as stored; `None`: the key isn't there.
    pub fn get(&self, store: &Store, table: &str, key: &[u8], out: &mut Vec<u8>) -> Option<u32> {
        let &r = self.tables.get(table)?.entries.get(key)?;
        store.read(r, |e| out.extend_from_slice(value_of(e)));
        Some(store.key(r) as u32)
    }

    /// Whether a key is there.
    pub(crate) fn has(&self, table: &str, key: &[u8]) -> bool {
        self.tables.get(table).is_some_and(|t| t.entries.contains_key(key))
    }

    /// Bytes of an entry's key and value; 0: it isn't there.
    pub(crate) fn entry_bytes(&self, store: &Store, table: &str, key: &[u8]) -> usize {
        let found = self.tables.get(table).and_then(|t| t.entries.get(key));
        found.map_or(0, |r| key.len() + store.read(*r, |e| value_of(e).len()))
    }

    /// Bytes of a table's keys and values.
    pub fn bytes(&self, table: &str) -> usize {
        self.tables.get(table).map_or(0, |t| t.bytes)
    }

    /// The versions of a table's values.
    pub fn versions(&self, table: &str) -> Vec<u32> {
        self.counts(table).into_keys().collect()
    }

    /// How many of a table's values count as which version.
    pub fn counts(&self, table: &str) -> BTreeMap<u32, u64> {
        let mut counts = BTreeMap::new();
        for (version, n) in self.tables.get(table).iter().flat_map(|t| &t.versions) {
            *counts.entry(version_of(*version)).or_default() += *n as u64;
        }
        counts
    }

    /// How many entries a table has.
    pub fn count(&self, table: &str) -> usize {
        self.tables.get(table).map_or(0, |t| t.entries.len())
    }

    /// The keys at or after `from`, in order.
    pub fn keys_from<'a>(&'a self, table: &str, from: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        let range = (Bound::Included(from), Bound::Unbounded);
        let entries = self.tables.get(table).into_iter();
        entries.flat_map(move |t| t.entries.range::<[u8], _>(range)).map(|(k, _)| &**k)
    }

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

    /// Takes the entries that recovery found into the index. Returns those that can't be read.
    ///
    /// All at once, and in order: each one that goes into a large map by itself waits for memory at every step of the way.
    pub(crate) fn found<'f>(&mut self, store: &Store, records: impl Iterator<Item = &'f Found>) -> Vec<Ref> {
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

/// A table on its way into the index.
#[derive(Default)]
struct FoundTable<'a> {
    table: Table,
    /// What all of its keys begin with.
    prefix: &'a [u8],
    entries: Vec<Ref>,
}

/// An entry of it.
struct FoundEntry {
    /// What follows in its key on the prefix: as a number, it decides nearly every comparison without a look at the key, which may be
    /// anywhere; and if that is all of it, it is the key.
    head: u128,
    at: Ref,
    /// Of what follows on the prefix.
    len: u16,
}

impl FoundEntry {
    fn new(at: Ref, rest: &[u8]) -> FoundEntry {
        let mut head = [0; size_of::<u128>()];
        let len = rest.len().min(head.len());
        head[..len].copy_from_slice(&rest[..len]);
        FoundEntry { head: u128::from_be_bytes(head), at, len: rest.len() as u16 }
    }

    /// What follows on the prefix, if `head` has all of it.
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
mod tests {
    use super::*;

    #[test]
    fn entries_come_and_go() {
        let (mut t, mut s) = (Tables::default(), Store::new(1 << 20));
        t.put(&mut s, "nicks", b"bob", 0, b"1").unwrap();
        t.put(&mut s, "nicks", b"ann", 0, b"22").unwrap();
        t.put(&mut s, "nicks", b"bob", 2, b"333").unwrap();
        let mut out = Vec::new();
        assert_eq!(t.get(&s, "nicks", b"bob", &mut out), Some(2));
        assert_eq!(t.get(&s, "nicks", b"eve", &mut out), None);
        assert_eq!((&out[..], t.versions("nicks"), t.count("nicks")), (&b"333"[..], vec![1, 2], 2));
        assert_eq!(t.keys_from("nicks", b"").collect::<Vec<_>>(), [b"ann", b"bob"]);
        assert_eq!(t.versions("nicks"), [1, 2]);
        assert_eq!(t.keys_from("nicks", b"ann\0").collect::<Vec<_>>(), [b"bob"]);
        t.delete(&mut s, "nicks", b"ann");
        t.delete(&mut s, "nicks", b"bob");
        t.delete(&mut s, "nicks", b"bob");
        assert!(t.is_empty() && s.bytes() == 0);
    }

    /// Keys that begin alike, that are the beginning of others, that differ far behind: recovery puts them in the order they had.
    #[test]
    fn the_index_is_what_it_was_when_it_is_built_again() {
        for seed in 0..60 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut t, mut s) = (Tables::default(), Store::new(1 << 24));
            let prefix = vec![b'p'; rng.usize(0..40)];
            for _ in 0..rng.usize(0..400) {
                let table = ["one", "two"][rng.usize(0..2)];
                let rest = (0..rng.usize(0..40)).map(|_| *rng.choice(b"\0\0\0a\xff").expect("one"));
                let key: Vec<_> = prefix.iter().copied().chain(rest).collect();
                match rng.u8(0..5) {
                    0 => t.delete(&mut s, table, &key),
                    _ => t.put(&mut s, table, &key, rng.u32(0..3), &vec![1; rng.usize(0..90)]).unwrap(),
                }
            }
            s.commit();
            let image = crate::store::memory::Plain::from(s.image().to_vec());
            let found = Store::recover(Box::new(image), 1 << 24).unwrap();
            let mut again = Tables::default();
            assert_eq!(again.found(&found.store, found.records.iter()), []);
            assert_eq!(again.names().collect::<Vec<_>>(), t.names().collect::<Vec<_>>());
            for name in t.names() {
                let keys: Vec<_> = t.keys_from(name, b"").collect();
                assert_eq!(again.keys_from(name, b"").collect::<Vec<_>>(), keys, "seed {seed}");
                assert_eq!((again.bytes(name), again.versions(name)), (t.bytes(name), t.versions(name)));
                for key in keys {
                    let (mut was, mut is) = (Vec::new(), Vec::new());
                    let versions =
                        (t.get(&s, name, key, &mut was), again.get(&found.store, name, key, &mut is));
                    assert!(versions.0 == versions.1 && was == is, "seed {seed}");
                }
            }
        }
    }
}
