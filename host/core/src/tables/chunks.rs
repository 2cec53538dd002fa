//! Ordered set in chunks, of which a range can be counted and taken out at once.
//!
//! A map of the standard library counts a range by walking over it, and cannot give it away. Here
//! items lie in sorted chunks of at most [`CHUNK_MAX`], and each chunk knows its totals. So a range
//! of a million items is counted and taken out in a few milliseconds.
//!
//! A lookup is O(log items). An insertion moves up to [`CHUNK_MAX`] items in memory. Counting or
//! taking a range is O(chunks). Items that come in order fill their chunks.
//!
//! A chunk bounds the deadlines of its items, so a walk passes over a chunk at once in which all
//! are over.

use super::chunk::{Chunk, Item, Marks, Walk};
use super::taken::Taken;
use super::totals::Totals;
use std::borrow::Borrow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;

/// Items of a full chunk.
const CHUNK_MAX: usize = 128;
/// Places by which a chunk grows.
const GROWTH: usize = 16;
/// Items from which a chunk stands alone: below, it is joined with the one before it.
const CHUNK_MIN: usize = 16;

/// Chunks of a range from which it is kept what they hold.
const MEASURED_MIN: usize = 16;

/// Ordered set of items.
#[derive(Debug)]
pub(super) struct Chunks<T: Item> {
    /// Chunks by a key that is at most that of their first item, and above those of the chunk
    /// before. The first chunk stands under the least key, and alone may be empty.
    chunks: BTreeMap<T::Owned, Chunk<T>>,
    totals: Totals,
    /// Number of the last write, for the owner of the set.
    pub(super) written: u64,
    /// Long range that was measured last, until the set changes. A turn that drops a range measures
    /// it twice, and its application once more.
    measured: RefCell<Option<Measured<T>>>,
}

/// Range of several chunks, and what it holds.
#[derive(Debug)]
struct Measured<T: Item> {
    from: T::Owned,
    end: Option<T::Owned>,
    totals: Totals,
    /// Chunks behind the first one.
    behind: usize,
}

impl<T: Item> Default for Chunks<T> {
    fn default() -> Chunks<T> {
        Chunks {
            chunks: BTreeMap::new(),
            totals: Totals::default(),
            written: 0,
            measured: RefCell::default(),
        }
    }
}

impl<T: Item> Chunks<T> {
    /// Makes a set of items in order, each with its version.
    pub(super) fn of_sorted(items: impl Iterator<Item = (T, u32)>) -> Chunks<T> {
        let mut all = Chunks::default();
        let mut chunk = Chunk::default();
        let mut bound = T::Owned::default();
        for (item, version) in items {
            if chunk.items.len() == CHUNK_MAX {
                all.totals.add_all(&chunk.totals);
                all.chunks
                    .insert(std::mem::replace(&mut bound, T::owned(item.key())), std::mem::take(&mut chunk));
            }
            chunk.items.reserve_exact(if chunk.items.is_empty() { CHUNK_MAX } else { 0 });
            chunk.totals.add(item.bytes(), version);
            // The first walk finds the deadlines.
            chunk.note_until(None);
            chunk.items.push(item);
        }
        chunk.items.shrink_to_fit();
        all.totals.add_all(&chunk.totals);
        all.chunks.insert(bound, chunk);
        all
    }

    /// Totals of all items.
    pub(super) fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Chunk that holds the items around a key.
    fn chunk(&self, key: &T::Key) -> Option<&Chunk<T>> {
        self.chunks.range::<T::Key, _>((Bound::Unbounded, Bound::Included(key))).next_back().map(|(_, c)| c)
    }

    /// Item with a key.
    pub(super) fn get(&self, key: &T::Key) -> Option<&T> {
        let chunk = self.chunk(key)?;
        chunk.find(key).map(|at| &chunk.items[at])
    }

    /// First item from a key on: one search, but for a chunk that ends before the key.
    pub(super) fn first_from(&self, key: &T::Key) -> Option<&T> {
        let chunk = self.chunk(key)?;
        chunk.items.get(chunk.place(key)).or_else(|| {
            let mut behind = self.chunks.range::<T::Key, _>((Bound::Excluded(key), Bound::Unbounded));
            behind.find_map(|(_, chunk)| chunk.items.first())
        })
    }

    /// Items from a key on, in order.
    pub(super) fn from<'s>(&'s self, key: &T::Key) -> impl Iterator<Item = &'s T> + use<'s, T> {
        let first = self.chunk(key);
        let begin = first.map_or(0, |chunk| chunk.place(key));
        let behind = self.chunks.range::<T::Key, _>((Bound::Excluded(key), Bound::Unbounded));
        let behind = behind.flat_map(|(_, chunk)| &chunk.items);
        first.into_iter().flat_map(move |chunk| &chunk.items[begin..]).chain(behind)
    }

    /// Items from a key on that are alive, in order. O(log items + chunks that it passes over).
    pub(super) fn alive_from<'s, F: Fn(&T) -> Option<u64>>(
        &'s self,
        key: &T::Key,
        walk: Walk<F>,
    ) -> impl Iterator<Item = &'s T> + use<'s, T, F> {
        let first = self.chunk(key);
        let begin = first.map_or(0, |chunk| chunk.place(key));
        let behind = self.chunks.range::<T::Key, _>((Bound::Excluded(key), Bound::Unbounded));
        let first = first.into_iter().map(move |chunk| (chunk, begin));
        let mut all = first.chain(behind.map(|(_, chunk)| (chunk, 0)));
        let mut items = [].iter();
        std::iter::from_fn(move || {
            loop {
                if let Some(item) = items.by_ref().find(|item| (walk.over)(item).is_none()) {
                    return Some(item);
                }
                let (chunk, begin) = all.find(|(chunk, _)| walk.may_stop_in(chunk))?;
                items = chunk.items[begin..].iter();
            }
        })
    }

    /// Last item before a key, or of all for `None`, that is alive.
    pub(super) fn alive_before<F: Fn(&T) -> Option<u64>>(
        &self,
        end: Option<&T::Key>,
        walk: &Walk<F>,
    ) -> Option<&T> {
        let range = (Bound::Unbounded, end.map_or(Bound::Unbounded, Bound::Excluded));
        let chunks = self.chunks.range::<T::Key, _>(range).rev().map(|(_, chunk)| chunk);
        chunks.filter(|chunk| walk.may_stop_in(chunk)).find_map(|chunk| {
            let to = end.map_or(chunk.items.len(), |end| chunk.place(end));
            chunk.items[..to].iter().rev().find(|item| (walk.over)(item).is_none())
        })
    }

    /// Last item before a key, or of all for `None`.
    pub(super) fn before(&self, end: Option<&T::Key>) -> Option<&T> {
        let range = (Bound::Unbounded, end.map_or(Bound::Unbounded, Bound::Excluded));
        // The chunk of the key may begin with it: then its last item before is in another one.
        let mut chunks = self.chunks.range::<T::Key, _>(range).rev().take(2);
        chunks.find_map(|(_, chunk)| {
            let at = end.map_or(chunk.items.len(), |end| chunk.place(end));
            at.checked_sub(1).map(|at| &chunk.items[at])
        })
    }

    /// All items, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.values().flat_map(|chunk| &chunk.items)
    }

    /// Adds an item, whose key is new. `version_of` is asked for items of the same chunk if those
    /// have several versions.
    pub(super) fn insert(&mut self, item: T, marks: Marks, version_of: &dyn Fn(&T) -> u32) {
        *self.measured.get_mut() = None;
        self.totals.add(item.bytes(), marks.version);
        if self.chunks.is_empty() {
            self.chunks.insert(T::Owned::default(), Chunk::default());
        }
        let range = (Bound::Unbounded, Bound::Included(item.key()));
        let Some((_, chunk)) = self.chunks.range_mut::<T::Key, _>(range).next_back() else { return };
        let mut at = chunk.place(item.key());
        let mut upper = None;
        if chunk.items.len() == CHUNK_MAX {
            // Behind all others the chunk stays full, and the item begins the next one.
            let half = if at == CHUNK_MAX { CHUNK_MAX } else { CHUNK_MAX / 2 };
            upper = Some(chunk.take(half, CHUNK_MAX, version_of));
            chunk.items.shrink_to(half);
        }
        let into = match &mut upper {
            Some(upper) if at >= chunk.items.len() => {
                at -= chunk.items.len();
                upper
            }
            _ => chunk,
        };
        if into.items.len() == into.items.capacity() {
            into.items.reserve_exact(GROWTH);
        }
        into.totals.add(item.bytes(), marks.version);
        into.note_until(marks.until_ms);
        into.items.insert(at, item);
        if let Some(upper) = upper
            && let Some(first) = upper.items.first()
        {
            self.chunks.insert(T::owned(first.key()), upper);
        }
    }

    /// Adds a chunk that was taken out of another set. O(chunks) if it stands behind all items.
    pub(super) fn append(&mut self, chunk: Chunk<T>, version_of: &dyn Fn(&T) -> u32) {
        let Some(first) = chunk.items.first() else { return };
        let last = self.before(None);
        if last.is_some_and(|last| last.key() >= first.key()) {
            for item in chunk.items {
                let marks = Marks { version: version_of(&item), until_ms: None };
                self.insert(item, marks, version_of);
            }
            return;
        }
        let bound = if last.is_none() { T::Owned::default() } else { T::owned(first.key()) };
        *self.measured.get_mut() = None;
        self.totals.add_all(&chunk.totals);
        self.chunks.insert(bound, chunk);
    }

    /// Changes the item of a key; `None`: there is none. The key stays. `change` returns the
    /// version before and the marks after; if it fails, it has changed nothing.
    pub(super) fn change<E>(
        &mut self,
        key: &T::Key,
        change: impl FnOnce(&mut T) -> Result<(u32, Marks), E>,
    ) -> Option<Result<(), E>> {
        *self.measured.get_mut() = None;
        let range = (Bound::Unbounded, Bound::Included(key));
        let (_, chunk) = self.chunks.range_mut::<T::Key, _>(range).next_back()?;
        let at = chunk.find(key)?;
        let before = chunk.items[at].bytes();
        let (from, to) = match change(&mut chunk.items[at]) {
            Ok(versions) => versions,
            Err(e) => return Some(Err(e)),
        };
        let after = chunk.items[at].bytes();
        chunk.note_until(to.until_ms);
        let to = to.version;
        for totals in [&mut chunk.totals, &mut self.totals] {
            totals.bytes = totals.bytes + after - before;
            if from != to {
                totals.add(0, to);
                totals.subtract(0, from);
            }
        }
        Some(Ok(()))
    }

    /// Takes out the item of a key.
    pub(super) fn remove(&mut self, key: &T::Key, version_of: &dyn Fn(&T) -> u32) -> Option<T> {
        *self.measured.get_mut() = None;
        let range = (Bound::Unbounded, Bound::Included(key));
        let (_, chunk) = self.chunks.range_mut::<T::Key, _>(range).next_back()?;
        let item = chunk.items.remove(chunk.find(key)?);
        let version = version_of(&item);
        chunk.totals.subtract(item.bytes(), version);
        self.totals.subtract(item.bytes(), version);
        if chunk.items.len() < CHUNK_MIN {
            self.join(key);
        }
        Some(item)
    }

    /// Joins the chunk around a key with the one before it, if one has room for both.
    fn join(&mut self, key: &T::Key) {
        let mut around = self.chunks.range_mut::<T::Key, _>((Bound::Unbounded, Bound::Included(key))).rev();
        let (Some((bound, chunk)), Some((_, before))) = (around.next(), around.next()) else { return };
        if before.items.len() + chunk.items.len() > CHUNK_MAX / 2 {
            return;
        }
        before.append(chunk);
        let bound = bound.clone();
        self.chunks.remove(bound.borrow());
    }

    /// Totals of the items from a key to before another; `None`: to the end. O(chunks).
    pub(super) fn count(&self, range: (&T::Key, Option<&T::Key>), version_of: &dyn Fn(&T) -> u32) -> Totals {
        self.measure(range, version_of).0
    }

    /// Totals of a range, and the number of chunks behind its first one.
    fn measure(
        &self,
        (from, end): (&T::Key, Option<&T::Key>),
        version_of: &dyn Fn(&T) -> u32,
    ) -> (Totals, usize) {
        let (mut totals, mut chunks) = (Totals::default(), 0);
        if end.is_some_and(|end| end <= from) {
            return (totals, chunks);
        }
        let mut last_measured = self.measured.borrow_mut();
        let is_same =
            |m: &&Measured<T>| m.from.borrow() == from && m.end.as_ref().map(|end| end.borrow()) == end;
        if let Some(m) = last_measured.as_ref().filter(is_same) {
            return (m.totals.clone(), m.behind);
        }
        let behind = (Bound::Excluded(from), end.map_or(Bound::Unbounded, Bound::Excluded));
        let mut behind = self.chunks.range::<T::Key, _>(behind).map(|(_, chunk)| chunk);
        // All items of the chunks between the first one and the last belong to the range.
        let last = behind.next_back();
        for chunk in behind {
            totals.add_all(&chunk.totals);
            chunks += 1;
        }
        chunks += usize::from(last.is_some());
        for chunk in self.chunk(from).into_iter().chain(last) {
            let to = end.map_or(chunk.items.len(), |end| chunk.place(end));
            for item in &chunk.items[chunk.place(from)..to] {
                totals.add(item.bytes(), version_of(item));
            }
        }
        if chunks >= MEASURED_MIN {
            *last_measured = Some(Measured {
                from: T::owned(from),
                end: end.map(T::owned),
                totals: totals.clone(),
                behind: chunks,
            });
        }
        (totals, chunks)
    }

    /// Takes out the items from a key to before another; `None`: to the end. O(chunks of the
    /// range).
    pub(super) fn take(
        &mut self,
        (from, end): (&T::Key, Option<&T::Key>),
        version_of: &dyn Fn(&T) -> u32,
    ) -> Taken<T> {
        let mut taken = Taken::default();
        let (totals, behind) = self.measure((from, end), version_of);
        *self.measured.get_mut() = None;
        if totals.count == 0 {
            return taken;
        }
        let first = (Bound::Unbounded, Bound::Included(from));
        if let Some((bound, chunk)) = self.chunks.range_mut::<T::Key, _>(first).next_back() {
            let to = end.map_or(chunk.items.len(), |end| chunk.place(end));
            taken.first.push(chunk.take(chunk.place(from), to, version_of));
            let bound = bound.clone();
            if chunk.items.is_empty() && bound != T::Owned::default() {
                self.chunks.remove(bound.borrow());
            }
        }
        self.take_behind((from, end), behind, &mut taken);
        if let (Some(end), Some(last)) = (end, taken.last_mut()) {
            let rest = last.take(last.place(end), last.items.len(), version_of);
            if let Some(first) = rest.items.first() {
                self.chunks.insert(T::owned(first.key()), rest);
            }
        }
        self.totals.subtract_all(&totals);
        taken.totals = totals;
        taken
    }

    /// Takes out the chunks behind the one around `from`, to the one before `end`. `count`: their
    /// number.
    fn take_behind(&mut self, (from, end): (&T::Key, Option<&T::Key>), count: usize, taken: &mut Taken<T>) {
        let range = (Bound::Excluded(from), end.map_or(Bound::Unbounded, Bound::Excluded));
        let first = self.chunks.range::<T::Key, _>(range).next().map(|(bound, _)| bound.clone());
        let Some(first) = first else { return };
        // To take out a chunk costs ten times as much as to put one back.
        if self.chunks.len() - count < 4 * count {
            taken.behind = self.chunks.split_off(first.borrow());
            if let Some(end) = end {
                self.chunks.append(&mut taken.behind.split_off(end));
            }
        } else {
            let end = end.map_or(Bound::Unbounded, |end| Bound::Excluded(T::owned(end)));
            let chunks = self.chunks.extract_if((Bound::Included(first), end), |_, _| true);
            taken.first.extend(chunks.map(|(_, chunk)| chunk));
        }
    }
}

#[cfg(test)]
#[path = "chunks_tests.rs"]
mod tests;
