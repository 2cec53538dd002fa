//! Prefixes that were dropped, and the entries that are gone with them.

use super::entry::{name_of, split_deadline};
use crate::store::snapshot::Seen;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

/// Prefix of a table that was dropped, and whose entries the store still holds. Ordered by table,
/// prefix and era.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct DroppedPrefix {
    pub(super) table: Box<str>,
    pub(super) prefix: Box<[u8]>,
    /// Entries of earlier eras are gone.
    pub(super) era: u32,
}

impl DroppedPrefix {
    /// Orders the prefix among places of tables.
    fn compare(&self, table: &str, key: &[u8]) -> Ordering {
        (*self.table).cmp(table).then_with(|| (*self.prefix).cmp(key))
    }
}

/// Set of prefixes that were dropped.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DroppedPrefixes {
    /// In order. Of one prefix the last era stands last, and it has all entries of the others.
    sorted: Vec<DroppedPrefix>,
}

impl DroppedPrefixes {
    /// Makes a set of prefixes in order.
    pub(super) fn of_sorted(sorted: Vec<DroppedPrefix>) -> DroppedPrefixes {
        DroppedPrefixes { sorted }
    }

    /// Returns the place of a prefix with which an entry is gone; `None`: it is not gone. `mark`:
    /// the key of its record. O(log prefixes) for each prefix that the key begins with.
    pub(super) fn place(&self, table: &str, key: &[u8], mark: u64) -> Option<usize> {
        let mut part = key;
        loop {
            // The last prefix up to the place of the part. All that the part begins with are there
            // or before it.
            let behind = self.sorted.partition_point(|d| d.compare(table, part).is_le());
            let at = behind.checked_sub(1)?;
            let last = self.sorted.get(at).filter(|d| *d.table == *table)?;
            let common = last.prefix.iter().zip(part).take_while(|(a, b)| a == b).count();
            if common < last.prefix.len() {
                part = &part[..common];
                continue;
            }
            if era_of(mark) < last.era {
                return Some(at);
            }
            part = &part[..common.checked_sub(1)?];
        }
    }

    /// Returns whether an entry that a snapshot shows was dropped before.
    pub fn has(&self, seen: &Seen<'_>) -> bool {
        !self.sorted.is_empty()
            && split_deadline(seen.kind, seen.bytes)
                .and_then(|(_, entry)| name_of(entry))
                .is_some_and(|(table, key)| self.place(table, key, seen.key).is_some())
    }
}

/// Returns the era in which an entry was written.
pub(super) fn era_of(mark: u64) -> u32 {
    (mark >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prefixes of each other, of several eras and tables.
    #[test]
    fn a_prefix_is_found_as_by_a_search_of_all() {
        let mut rng = fastrand::Rng::with_seed(1);
        let any = |rng: &mut fastrand::Rng| -> (&str, Box<[u8]>) {
            let key = (0..rng.usize(0..4)).map(|_| b"\0a\xff"[rng.usize(0..3)]).collect();
            (["s", "t"][rng.usize(0..2)], key)
        };
        for _ in 0..2000 {
            let mut all = Vec::new();
            for era in 1..rng.u32(1..9) {
                let (table, prefix) = any(&mut rng);
                all.push(DroppedPrefix { table: table.into(), prefix, era });
            }
            all.sort();
            let set = DroppedPrefixes::of_sorted(all.clone());
            for _ in 0..20 {
                let ((table, key), era) = (any(&mut rng), rng.u32(0..9));
                let has = |d: &DroppedPrefix| *d.table == *table && key.starts_with(&d.prefix) && era < d.era;
                let found = set.place(table, &key, u64::from(era) << 32 | 7);
                assert_eq!(found.is_some(), all.iter().any(has), "{all:?}: {table} {key:?} of era {era}");
                assert!(found.is_none_or(|at| has(&all[at])));
            }
        }
    }
}
