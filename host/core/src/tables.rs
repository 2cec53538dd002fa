//! Tables: maps that the host owns and sessions share. Keys are bytes in order, values MessagePack.
//!
//! The index lies here, the entries in the store; each entry names its table and key, so that the index can be built
//! again from the entries alone.

use crate::store::{Full, Kind, Ref, Store};
use std::collections::BTreeMap;
use std::ops::Bound;

/// All tables by name. A table exists while it has an entry.
#[derive(Debug, Default)]
pub struct Tables {
    tables: BTreeMap<Box<str>, BTreeMap<Box<[u8]>, Ref>>,
}

/// An entry as it is stored: table and key with their lengths, then the value.
fn entry(table: &str, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(3 + table.len() + key.len() + value.len());
    bytes.push(table.len() as u8);
    bytes.extend_from_slice(&(key.len() as u16).to_le_bytes());
    bytes.extend_from_slice(table.as_bytes());
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(value);
    bytes
}

/// The value of a stored entry.
pub(crate) fn value_of(entry: &[u8]) -> &[u8] {
    let key = usize::from(u16::from_le_bytes([entry[1], entry[2]]));
    &entry[3 + usize::from(entry[0]) + key..]
}

/// The table and the key of a stored entry; `None`: it is none.
pub(crate) fn name_of(entry: &[u8]) -> Option<(&str, &[u8])> {
    let (&table, rest) = entry.split_first()?;
    let (key, rest) = rest.split_at_checked(2)?;
    let (table, rest) = rest.split_at_checked(usize::from(table))?;
    let key = rest.get(..usize::from(u16::from_le_bytes([key[0], key[1]])))?;
    Some((std::str::from_utf8(table).ok()?, key))
}

/// What an entry costs beyond its value, in bytes.
pub(crate) fn overhead(table: &str, key: &[u8]) -> usize {
    3 + table.len() + key.len()
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
        self.tables.values().flat_map(|entries| entries.values().copied())
    }

    /// The tables' names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tables.keys().map(|n| &**n)
    }

    /// Whether a table has entries.
    pub fn contains(&self, table: &str) -> bool {
        self.tables.contains_key(table)
    }

    /// Copies a value to the end of `out`; false: the key isn't there.
    pub fn get(&self, store: &Store, table: &str, key: &[u8], out: &mut Vec<u8>) -> bool {
        let found = self.tables.get(table).and_then(|t| t.get(key));
        found.map(|&r| store.read(r, |e| out.extend_from_slice(value_of(e)))).is_some()
    }

    /// The keys at or after `from`, in order.
    pub fn keys_from<'a>(&'a self, table: &str, from: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        let range = (Bound::Included(from), Bound::Unbounded);
        self.tables.get(table).into_iter().flat_map(move |t| t.range::<[u8], _>(range)).map(|(k, _)| &**k)
    }

    pub(crate) fn put(
        &mut self,
        store: &mut Store,
        table: &str,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), Full> {
        let entry = entry(table, key, value);
        match self.tables.get_mut(table).and_then(|t| t.get_mut(key)) {
            Some(r) => *r = store.put(Some(*r), Kind::Entry, 0, &entry)?,
            None => {
                let r = store.put(None, Kind::Entry, 0, &entry)?;
                self.tables.entry(table.into()).or_default().insert(key.into(), r);
            }
        }
        Ok(())
    }

    /// Takes an entry that recovery found into the index.
    pub(crate) fn found(&mut self, table: &str, key: &[u8], r: Ref) {
        self.tables.entry(table.into()).or_default().insert(key.into(), r);
    }

    pub(crate) fn delete(&mut self, store: &mut Store, table: &str, key: &[u8]) {
        let Some(t) = self.tables.get_mut(table) else { return };
        if let Some(r) = t.remove(key) {
            store.delete(r);
        }
        if t.is_empty() {
            self.tables.remove(table);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_and_go() {
        let (mut t, mut s) = (Tables::default(), Store::new(1 << 20));
        t.put(&mut s, "nicks", b"bob", b"1").unwrap();
        t.put(&mut s, "nicks", b"ann", b"22").unwrap();
        t.put(&mut s, "nicks", b"bob", b"333").unwrap();
        let mut out = Vec::new();
        assert!(t.get(&s, "nicks", b"bob", &mut out) && !t.get(&s, "nicks", b"eve", &mut out));
        assert_eq!(out, b"333");
        assert_eq!(t.keys_from("nicks", b"").collect::<Vec<_>>(), [b"ann", b"bob"]);
        assert_eq!(t.keys_from("nicks", b"ann\0").collect::<Vec<_>>(), [b"bob"]);
        t.delete(&mut s, "nicks", b"ann");
        t.delete(&mut s, "nicks", b"bob");
        t.delete(&mut s, "nicks", b"bob");
        assert!(t.is_empty() && s.bytes() == 0);
    }
}
