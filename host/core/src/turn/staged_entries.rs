//! Index over the table effects of a batch: the newest effect on each entry.
//!
//! A batch may stage thousands of writes and read its own tables as often. Without an index, each
//! read would search all effects. Short batches need none: [`super::table_effects`] searches a few
//! effects itself, and asks here from [`INDEXED_FROM`] on.
//!
//! The index follows the effects: [`StagedEntries::cover`] takes in those that came since the last
//! call. It is dropped when effects are cut off. Costs O(log entries) and one allocation for each
//! effect that is taken in.

use super::effect::{Effect, Part};
use crate::store::records::Store;
use crate::tables::index::Tables;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

/// Effects of a batch from which reads use the index. Below it, a search costs less.
pub(super) const INDEXED_FROM: usize = 64;

/// The newest staged effect on each entry, and what the effects change in each table.
#[derive(Debug, Default)]
pub(super) struct StagedEntries {
    /// Effects that the index covers, counted from the first one.
    covered: usize,
    /// Value that the batch leaves in an entry, by [`entry_key`]; `None`: the entry goes.
    newest: BTreeMap<Vec<u8>, Option<Part>>,
    /// Change of each table that the batch writes to or deletes from.
    changes: HashMap<Box<str>, Change>,
    /// Tables that the batch writes to and that do not exist yet.
    begun: usize,
    /// Range of entries, both ends included, in which the last walk found no entry alive.
    dead: Option<(Vec<u8>, Vec<u8>)>,
}

/// Change of one table by a batch.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Change {
    /// Entries more or fewer.
    pub(super) entries: i64,
    /// Bytes of keys and values, more or fewer.
    pub(super) bytes: i64,
    /// Whether the batch writes to the table.
    pub(super) is_written: bool,
}

/// Key of an entry in the index. Entries of one table are neighbours, in the order of their keys.
fn entry_key(table: &str, key: &[u8]) -> Vec<u8> {
    let mut all = Vec::with_capacity(4 + table.len() + key.len());
    all.extend_from_slice(&(table.len() as u32).to_be_bytes());
    all.extend_from_slice(table.as_bytes());
    all.extend_from_slice(key);
    all
}

impl StagedEntries {
    /// Takes in the effects that came since the last call. `arena` holds their bytes.
    pub(super) fn cover(&mut self, arena: &[u8], effects: &[Effect], tables: &Tables, store: &Store) {
        for effect in &effects[self.covered..] {
            match effect {
                Effect::Put { table, key, value } => {
                    self.take_in(arena, (table, key), Some(value), tables, store);
                }
                Effect::Delete { table, key } => self.take_in(arena, (table, key), None, tables, store),
                _ => {}
            }
        }
        self.covered = effects.len();
    }

    /// Takes in one effect.
    fn take_in(
        &mut self,
        arena: &[u8],
        (table, key): (&Part, &Part),
        value: Option<&Part>,
        tables: &Tables,
        store: &Store,
    ) {
        let table = std::str::from_utf8(&arena[table.clone()]).unwrap_or_default();
        let key = &arena[key.clone()];
        let place = entry_key(table, key);
        if value.is_some() && self.dead.as_ref().is_some_and(|(from, to)| *from <= place && place <= *to) {
            self.dead = None;
        }
        let before = match self.newest.insert(place, value.cloned()) {
            Some(staged) => staged.map(|v| key.len() + v.len()),
            None => tables.has(table, key).then(|| tables.entry_bytes(store, table, key)),
        };
        let after = value.map(|v| key.len() + v.len());
        if !self.changes.contains_key(table) {
            self.changes.insert(table.into(), Change::default());
        }
        let Some(change) = self.changes.get_mut(table) else { return };
        change.entries += i64::from(after.is_some()) - i64::from(before.is_some());
        change.bytes += after.unwrap_or(0) as i64 - before.unwrap_or(0) as i64;
        if value.is_some() && !std::mem::replace(&mut change.is_written, true) && !tables.contains(table) {
            self.begun += 1;
        }
    }

    /// Newest effect on an entry: its value, `Some(None)` for a deletion, `None` for nothing.
    pub(super) fn newest(&self, table: &str, key: &[u8]) -> Option<Option<Part>> {
        self.newest.get(&entry_key(table, key)).cloned()
    }

    /// Whether the batch writes to a table or deletes from it.
    pub(super) fn changes(&self, table: &str) -> bool {
        self.changes.contains_key(table)
    }

    /// Change of a table by the batch.
    pub(super) fn change(&self, table: &str) -> Change {
        self.changes.get(table).copied().unwrap_or_default()
    }

    /// Tables that the batch writes to and that do not exist yet.
    pub(super) fn begun(&self) -> usize {
        self.begun
    }

    /// Key of the first entry at or after `from` that starts with `prefix`, stored or staged. A
    /// deleted entry is passed over once: later walks begin behind it.
    pub(super) fn next_key(
        &mut self,
        tables: &Tables,
        table: &str,
        prefix: &[u8],
        from: &[u8],
    ) -> Option<Vec<u8>> {
        let head = entry_key(table, b"").len();
        let begin = entry_key(table, from);
        // Behind the entries that an earlier walk found dead. The successor of a key is the key
        // with a zero behind it.
        let known = self.dead.as_ref().filter(|(first, last)| *first <= begin && begin <= *last);
        let place = known.map_or_else(|| begin.clone(), |(_, last)| [last, &[0][..]].concat());
        let mut stored =
            tables.keys_from(table, &place[head..]).take_while(|k| k.starts_with(prefix)).peekable();
        let whole = entry_key(table, prefix);
        let range = (Bound::Included(place.clone()), Bound::Unbounded);
        let mut staged =
            self.newest.range::<Vec<u8>, _>(range).take_while(|(k, _)| k.starts_with(&whole)).peekable();
        let (mut last_dead, mut found) = (None, None);
        loop {
            let (kept, laid_over) =
                (stored.peek().copied(), staged.peek().map(|(k, v)| (&k[head..], v.is_some())));
            match (kept, laid_over) {
                (Some(kept), None) => found = Some(kept.to_vec()),
                (Some(kept), Some((key, _))) if kept < key => found = Some(kept.to_vec()),
                (_, Some((key, true))) => found = Some(key.to_vec()),
                (kept, Some((key, false))) => {
                    last_dead = Some(key.to_vec());
                    if kept == Some(key) {
                        stored.next();
                    }
                    staged.next();
                    continue;
                }
                (None, None) => {}
            }
            break;
        }
        if let Some(last) = last_dead {
            let first = self.dead.take().filter(|(first, last)| *first <= begin && begin <= *last);
            self.dead = Some((first.map_or(begin, |(first, _)| first), entry_key(table, &last)));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Effects on table `t`, their bytes behind each other.
    fn staged(arena: &mut Vec<u8>, of: &[(&str, Option<&str>)]) -> Vec<Effect> {
        let mut add = |text: &str| {
            let start = arena.len();
            arena.extend_from_slice(text.as_bytes());
            start..arena.len()
        };
        let effect = |&(key, value): &(&str, Option<&str>)| match value {
            Some(value) => Effect::Put { table: add("t"), key: add(key), value: add(value) },
            None => Effect::Delete { table: add("t"), key: add(key) },
        };
        of.iter().map(effect).collect()
    }

    #[test]
    fn a_walk_sees_stored_and_staged_entries_and_no_deleted_one() {
        let mut store = Store::new(1 << 20);
        let mut tables = Tables::default();
        for key in ["a", "b", "c", "e"] {
            tables.put(&mut store, "t", key.as_bytes(), 0, b"12").expect("room");
        }
        tables.put(&mut store, "u", b"a", 0, b"1").expect("room");
        let mut arena = Vec::new();
        let mut effects =
            staged(&mut arena, &[("a", None), ("b", None), ("d", Some("1")), ("e", Some("123"))]);
        let mut index = StagedEntries::default();
        index.cover(&arena, &effects, &tables, &store);
        let walk = |index: &mut StagedEntries| {
            let (mut from, mut keys) = (Vec::new(), String::new());
            while let Some(key) = index.next_key(&tables, "t", b"", &from) {
                keys += std::str::from_utf8(&key).expect("text");
                from = [&key[..], &[0]].concat();
            }
            keys
        };
        assert_eq!(walk(&mut index), "cde");
        // The walk again begins behind the entries that were found dead.
        assert_eq!(walk(&mut index), "cde");
        let change = index.change("t");
        // a and b go with 3 bytes each, d comes with 2, e grows by 1.
        assert_eq!((change.entries, change.bytes, index.begun()), (-1, -3, 0));
        // An entry that comes back among those is seen.
        effects.extend(staged(&mut arena, &[("b", Some("")), ("c", None)]));
        index.cover(&arena, &effects, &tables, &store);
        assert_eq!(walk(&mut index), "bde");
        assert_eq!(index.newest("t", b"c"), Some(None));
        assert_eq!(index.newest("u", b"a"), None);
    }
}
