//! Index over the table effects of a batch: the newest effect on each entry.
//!
//! A batch may stage thousands of writes and read its own tables as often. Without an index, each
//! read would search all effects. Short batches need none: [`super::table_effects`] searches a few
//! effects itself, and asks here from [`INDEXED_FROM`] on.
//!
//! The index follows the effects: [`StagedEntries::cover`] takes in those that came since the last
//! call. It is dropped when effects are cut off. Costs O(log entries) and one allocation for each
//! effect that is taken in.
//!
//! Scans pass over deleted entries. The first one that does notes a dead range, in which no entry
//! is alive, and later ones jump it. So a deleted entry costs one step of all scans together. A
//! write cuts a dead range in two.

use super::effect::{Effect, Part};
use super::stored_tables::StoredTables;
use crate::tables::entry::deadline_bytes;
use crate::tables::index::prefix_end;
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
    newest: BTreeMap<Vec<u8>, Option<StagedValue>>,
    /// Change of each table that the batch writes to or deletes from.
    changes: HashMap<Box<str>, Change>,
    /// Tables that the batch writes to and that do not exist yet.
    begun: usize,
    /// Ranges whose stored entries the batch drops: end by first place. They do not overlap.
    dropped: BTreeMap<Vec<u8>, DroppedRange>,
    /// Ranges in which no entry is alive, stored or staged: end by first place, which belongs to
    /// the range, as the end does not. They do not overlap.
    dead: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Value that a batch writes.
#[derive(Debug, Clone)]
pub(super) struct StagedValue {
    pub(super) value: Part,
    /// Deadline of the entry, in milliseconds since 1970.
    pub(super) until_ms: Option<u64>,
}

impl StagedValue {
    /// Bytes of the entry: key, value and deadline.
    pub(super) fn entry_bytes(&self, key: &[u8]) -> usize {
        key.len() + self.value.len() + deadline_bytes(self.until_ms)
    }
}

/// Change of one table by a batch.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Change {
    /// Entries more or fewer.
    pub(super) entries: i64,
    /// Bytes of keys, values and deadlines, more or fewer.
    pub(super) bytes: i64,
    /// Whether the batch writes to the table.
    pub(super) is_written: bool,
}

/// Range whose stored entries a batch drops.
#[derive(Debug)]
struct DroppedRange {
    /// Place behind the range.
    end: Vec<u8>,
    /// Stored entries in it.
    entries: usize,
    /// Bytes of their keys, values and deadlines.
    bytes: usize,
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
    pub(super) fn cover(&mut self, arena: &[u8], effects: &[Effect], tables: StoredTables<'_>) {
        for effect in &effects[self.covered..] {
            match effect {
                Effect::Put { table, key, value, until } => {
                    let value = StagedValue { value: value.clone(), until_ms: *until };
                    self.take_in(arena, (table, key), Some(value), tables);
                }
                Effect::Delete { table, key } => self.take_in(arena, (table, key), None, tables),
                Effect::DropPrefix { table, prefix } => {
                    self.drop_prefix(text(arena, table), &arena[prefix.clone()], tables);
                }
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
        value: Option<StagedValue>,
        tables: StoredTables<'_>,
    ) {
        let (table, key) = (text(arena, table), &arena[key.clone()]);
        let place = entry_key(table, key);
        let stored = self.stored(tables, table, key, &place);
        if value.is_some() {
            self.revive(&place);
        }
        let after = value.as_ref().map(|v| v.entry_bytes(key));
        let before = match self.newest.insert(place, value) {
            Some(staged) => staged.map(|v| v.entry_bytes(key)),
            None => stored,
        };
        let change = self.change_of(table);
        change.entries += i64::from(after.is_some()) - i64::from(before.is_some());
        change.bytes += after.unwrap_or(0) as i64 - before.unwrap_or(0) as i64;
        if after.is_some() && !std::mem::replace(&mut change.is_written, true) && !tables.contains(table) {
            self.begun += 1;
        }
    }

    /// Takes in a drop: staged writes under the prefix go, and stored entries are hidden. O(staged
    /// writes under it), each once.
    fn drop_prefix(&mut self, table: &str, prefix: &[u8], tables: StoredTables<'_>) {
        let head = entry_key(table, b"").len();
        let first = entry_key(table, prefix);
        // The length of the name comes first, so some place is behind all keys of the table.
        let end = prefix_end(&first).unwrap_or_default();
        let (mut entries, mut bytes) = (0, 0);
        let staged: Vec<_> = self.newest.extract_if(first.clone()..end.clone(), |_, _| true).collect();
        for (place, value) in staged {
            let key = &place[head..];
            let (before, after) =
                (self.stored(tables, table, key, &place), value.map(|v| v.entry_bytes(key)));
            entries += i64::from(before.is_some()) - i64::from(after.is_some());
            bytes += before.unwrap_or(0) as i64 - after.unwrap_or(0) as i64;
        }
        if !self.is_dropped(&first) {
            let (stored, stored_bytes) = tables.count_prefix(table, prefix);
            (entries, bytes) = (entries - stored as i64, bytes - stored_bytes as i64);
            for (_, inner) in self.dropped.extract_if(first.clone()..end.clone(), |_, _| true) {
                (entries, bytes) = (entries + inner.entries as i64, bytes + inner.bytes as i64);
            }
            let range = DroppedRange { end: end.clone(), entries: stored, bytes: stored_bytes };
            self.dropped.insert(first.clone(), range);
        }
        let change = self.change_of(table);
        change.entries += entries;
        change.bytes += bytes;
        self.note_dead(first, end);
    }

    /// Bytes of a stored entry; `None`: there is none, or the batch drops it.
    fn stored(&self, tables: StoredTables<'_>, table: &str, key: &[u8], place: &[u8]) -> Option<usize> {
        tables.entry_bytes(table, key).filter(|_| !self.is_dropped(place))
    }

    /// Whether the batch drops what is stored at a place.
    fn is_dropped(&self, place: &[u8]) -> bool {
        let range = (Bound::Unbounded, Bound::Included(place));
        let before = self.dropped.range::<[u8], _>(range).next_back();
        before.is_some_and(|(_, dropped)| *place < *dropped.end)
    }

    /// Change of a table, to be changed.
    fn change_of(&mut self, table: &str) -> &mut Change {
        if !self.changes.contains_key(table) {
            self.changes.insert(table.into(), Change::default());
        }
        self.changes.get_mut(table).unwrap_or_else(|| unreachable!("it was put there"))
    }

    /// Newest effect on an entry: its value, `Some(None)` for a deletion, `None` for nothing.
    pub(super) fn newest(&self, table: &str, key: &[u8]) -> Option<Option<StagedValue>> {
        let place = entry_key(table, key);
        let staged = self.newest.get(&place).cloned();
        staged.or_else(|| self.is_dropped(&place).then_some(None))
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

    /// Cuts a place out of the dead range around it.
    fn revive(&mut self, place: &[u8]) {
        let Some((first, end)) = self.dead_at(place).map(|(first, end)| (first.to_vec(), end.to_vec()))
        else {
            return;
        };
        let behind = successor(place);
        match *first < *place {
            true => self.dead.insert(first, place.to_vec()),
            false => self.dead.remove(&first),
        };
        if behind < end {
            self.dead.insert(behind, end);
        }
    }

    /// Dead range that a place lies in: first place and end.
    fn dead_at(&self, place: &[u8]) -> Option<(&[u8], &[u8])> {
        let range = (Bound::Unbounded, Bound::Included(place));
        let (first, end) = self.dead.range::<[u8], _>(range).next_back()?;
        (place < &**end).then_some((first, end))
    }

    /// Dead range that the places just before `end` lie in.
    fn dead_before(&self, end: &[u8]) -> Option<(&[u8], &[u8])> {
        let range = (Bound::Unbounded, Bound::Excluded(end));
        let (first, its_end) = self.dead.range::<[u8], _>(range).next_back()?;
        (end <= &**its_end).then_some((first, its_end))
    }

    /// Notes that no entry is alive from `first` to before `end`.
    fn note_dead(&mut self, first: Vec<u8>, end: Vec<u8>) {
        let before = self.dead_at(&first).map(|(before, _)| before.to_vec());
        let first = before.unwrap_or(first);
        // The end is a place of its own: a range that begins there is taken in, too.
        let behind = self.dead_at(&end).map(|(_, behind)| behind.to_vec());
        let end = behind.unwrap_or(end);
        let range = (Bound::Included(&*first), Bound::Excluded(&*end));
        let inner: Vec<_> = self.dead.range::<[u8], _>(range).map(|(first, _)| first.clone()).collect();
        for first in inner {
            self.dead.remove(&first);
        }
        self.dead.insert(first, end);
    }

    /// Key of the first entry at or after `from` that starts with `prefix`, stored or staged.
    pub(super) fn next_key(
        &mut self,
        tables: StoredTables<'_>,
        table: &str,
        prefix: &[u8],
        from: &[u8],
    ) -> Option<Vec<u8>> {
        let head = entry_key(table, b"");
        let whole = entry_key(table, prefix);
        let begin = entry_key(table, from);
        let (mut place, mut has_passed) = (begin.clone(), false);
        let found = loop {
            while let Some((_, end)) = self.dead_at(&place) {
                place = end.to_vec();
            }
            // A dead range may go on in the next table.
            let Some(from) = place.strip_prefix(&*head) else { break None };
            let stored = tables.next_key(table, prefix, from);
            let range = (Bound::Included(&*place), Bound::Unbounded);
            let staged = self.newest.range::<[u8], _>(range).next().filter(|(k, _)| k.starts_with(&whole));
            let staged = staged.map(|(k, value)| (&k[head.len()..], value.is_some()));
            match (stored, staged) {
                (stored, Some((key, is_alive))) if stored.is_none_or(|stored| stored >= key) => {
                    if is_alive {
                        break Some(key.to_vec());
                    }
                    place = successor(&entry_key(table, key));
                }
                (None, _) => break None,
                (Some(stored), _) => match self.dead_at(&entry_key(table, stored)) {
                    // The batch drops it, so no effect names its key.
                    Some((_, end)) => place = end.to_vec(),
                    None => break Some(stored.to_vec()),
                },
            }
            has_passed = true;
        };
        if has_passed {
            self.note_dead(begin, place);
        }
        found
    }

    /// Key of the last entry before `below`, or of all for `None`, that starts with `prefix`,
    /// stored or staged.
    pub(super) fn previous_key(
        &mut self,
        tables: StoredTables<'_>,
        table: &str,
        prefix: &[u8],
        below: Option<&[u8]>,
    ) -> Option<Vec<u8>> {
        let head = entry_key(table, b"");
        let whole = entry_key(table, prefix);
        let below = below.map(|key| entry_key(table, key));
        // The length of the name comes first, so some place is behind all keys of the table.
        let begin = [below, prefix_end(&whole)].into_iter().flatten().min().unwrap_or_default();
        let (mut end, mut has_passed) = (begin.clone(), false);
        let found = loop {
            while let Some((first, _)) = self.dead_before(&end) {
                end = first.to_vec();
            }
            // A dead range may begin in the table before.
            if end <= whole {
                break None;
            }
            let stored = tables.previous_key(table, prefix, end.strip_prefix(&*head));
            let range = (Bound::Unbounded, Bound::Excluded(&*end));
            let staged = self.newest.range::<[u8], _>(range).next_back();
            let staged = staged.filter(|(k, _)| k.starts_with(&whole));
            let staged = staged.map(|(k, value)| (&k[head.len()..], value.is_some()));
            match (stored, staged) {
                (stored, Some((key, is_alive))) if stored.is_none_or(|stored| stored <= key) => {
                    if is_alive {
                        break Some(key.to_vec());
                    }
                    end = entry_key(table, key);
                }
                (None, _) => break None,
                (Some(stored), _) => match self.dead_at(&entry_key(table, stored)) {
                    // As above.
                    Some((first, _)) => end = first.to_vec(),
                    None => break Some(stored.to_vec()),
                },
            }
            has_passed = true;
        };
        if has_passed {
            self.note_dead(end, begin);
        }
        found
    }
}

/// Text in the arena.
fn text<'a>(arena: &'a [u8], part: &Part) -> &'a str {
    std::str::from_utf8(&arena[part.clone()]).unwrap_or_default()
}

/// The least place above another one.
fn successor(place: &[u8]) -> Vec<u8> {
    [place, &[0]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::records::Store;
    use crate::tables::index::Tables;

    fn view<'a>(tables: &'a Tables, store: &'a Store) -> StoredTables<'a> {
        StoredTables { store, tables, reads: None }
    }

    /// Effects on table `t`, their bytes behind each other.
    fn staged(arena: &mut Vec<u8>, of: &[(&str, Option<&str>)]) -> Vec<Effect> {
        let mut add = |text: &str| {
            let start = arena.len();
            arena.extend_from_slice(text.as_bytes());
            start..arena.len()
        };
        let effect = |&(key, value): &(&str, Option<&str>)| match value {
            Some(value) => Effect::Put { table: add("t"), key: add(key), value: add(value), until: None },
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
        index.cover(&arena, &effects, view(&tables, &store));
        let walk = |index: &mut StagedEntries| {
            let (mut from, mut keys) = (Vec::new(), String::new());
            while let Some(key) = index.next_key(view(&tables, &store), "t", b"", &from) {
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
        index.cover(&arena, &effects, view(&tables, &store));
        assert_eq!(walk(&mut index), "bde");
        assert!(index.newest("t", b"c").is_some_and(|staged| staged.is_none()));
        assert!(index.newest("u", b"a").is_none());
    }

    /// Tables beside each other, keys that begin alike, bytes at both ends of their range.
    #[test]
    fn scans_in_both_directions_see_what_a_plain_map_has() {
        for seed in 0..300 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let any = |rng: &mut fastrand::Rng| -> (&str, Vec<u8>) {
                let key = (0..rng.usize(0..4)).map(|_| b"\0ab\xff"[rng.usize(0..4)]).collect();
                (["s", "t"][rng.usize(0..2)], key)
            };
            let (mut store, mut tables, mut model) =
                (Store::new(1 << 20), Tables::default(), BTreeMap::<(&str, Vec<u8>), usize>::new());
            for _ in 0..rng.usize(0..30) {
                let (table, key) = any(&mut rng);
                tables.put(&mut store, table, &key, 0, b"1").expect("room");
                model.insert((table, key), 1);
            }
            let (mut arena, mut effects, mut index) = (Vec::new(), Vec::new(), StagedEntries::default());
            for _ in 0..60 {
                let (table, key) = any(&mut rng);
                let mut add = |bytes: &[u8]| {
                    arena.extend_from_slice(bytes);
                    arena.len() - bytes.len()..arena.len()
                };
                let (at, place) = (add(table.as_bytes()), add(&key));
                match rng.u8(0..3) {
                    0 => {
                        let until = rng.bool().then_some(9);
                        effects.push(Effect::Put { table: at, key: place, value: add(b"23"), until });
                        model.insert((table, key.clone()), if until.is_some() { 10 } else { 2 });
                    }
                    1 if rng.u8(0..4) == 0 => {
                        effects.push(Effect::DropPrefix { table: at, prefix: place });
                        model.retain(|(t, k), _| !(*t == table && k.starts_with(&key)));
                    }
                    _ => {
                        effects.push(Effect::Delete { table: at, key: place });
                        model.remove(&(table, key.clone()));
                    }
                }
                index.cover(&arena, &effects, view(&tables, &store));
                let ((table, prefix), (_, from)) = (any(&mut rng), any(&mut rng));
                let has = |(t, key): &&(&str, Vec<u8>)| *t == table && key.starts_with(&prefix);
                let next = model.keys().find(|k| has(k) && k.1 >= from).map(|k| k.1.clone());
                let found = index.next_key(view(&tables, &store), table, &prefix, (&*from).max(&*prefix));
                assert_eq!(found, next, "seed {seed}");
                let below = rng.bool().then_some(&*from);
                let before = |k: &&(&str, Vec<u8>)| below.is_none_or(|below| &*k.1 < below);
                let previous = model.keys().rev().find(|k| has(k) && before(k)).map(|k| k.1.clone());
                assert_eq!(
                    index.previous_key(view(&tables, &store), table, &prefix, below),
                    previous,
                    "seed {seed}"
                );
                let count = model.keys().filter(|(t, _)| *t == table).count() as i64;
                let bytes: usize = model
                    .iter()
                    .filter(|((t, _), _)| *t == table)
                    .map(|((_, key), len)| key.len() + len)
                    .sum();
                let (stored, change) = (tables.count(table) as i64, index.change(table));
                assert_eq!(stored + change.entries, count, "seed {seed}");
                assert_eq!(tables.bytes(table) as i64 + change.bytes, bytes as i64, "seed {seed}");
                let newest = index
                    .newest(table, &from)
                    .map_or(tables.entry_bytes(table, &from).is_some(), |v| v.is_some());
                assert_eq!(newest, model.contains_key(&(table, from)), "seed {seed}");
            }
        }
    }
}
