//! Entries of tables that a candidate reads in its rehearsal, taken out of a snapshot in its
//! order.
//!
//! If the values of a table keep version and schema, `rehearsal_entries_max` of them show
//! whether the candidate reads what it claims to read. If they change, all are read, because
//! each single value may be the one that cannot be migrated. Entries of other versions than the
//! candidate's are always read.
//!
//! Entries are kept without an index: each is read once, in any order, and making an index
//! takes longer than the rest of their rehearsal. Costs the bytes of the picked entries, and 24
//! bytes for each.

use greenroom_core::store::kind::Kind;
use greenroom_core::store::snapshot::Seen;
use greenroom_core::tables::entry::SeenEntry;
use greenroom_core::tables::prefixes::DroppedPrefixes;
use std::collections::BTreeMap;

/// Entries of one table.
#[derive(Default)]
pub(super) struct Entries {
    /// Share of the entries to read; `None`: all are read.
    share: Option<Share>,
    /// Keys and values, one after the other.
    bytes: Vec<u8>,
    /// Version, end of the key and end of the value of each entry.
    each: Vec<(u32, usize, usize)>,
    /// Number of entries that are not read.
    pub(super) left_out: u64,
}

/// Share of the values of the candidate's version: `read` of `of` are read, evenly spread over
/// the snapshot.
struct Share {
    version: u32,
    read: u64,
    of: u64,
    /// Values that were decided on.
    seen: u64,
}

impl Entries {
    /// Takes at most `read` of the `count` entries of this version, and all of other versions.
    pub(super) fn with_at_most(read: u64, version: u32, count: u64) -> Entries {
        Entries { share: Some(Share { version, read, of: count, seen: 0 }), ..Entries::default() }
    }

    /// Takes a copy of an entry, unless the share leaves it out, or its checksum is wrong.
    fn take(&mut self, entry: &SeenEntry<'_>, seen: &Seen<'_>) {
        let share = self.share.as_mut().filter(|s| s.version == entry.version);
        if share.is_some_and(|s| !s.has_next()) {
            self.left_out += 1;
            return;
        }
        // A damaged entry can't be read in service either, so the candidate is not blamed for
        // it.
        if !seen.is_whole() {
            return;
        }
        self.bytes.extend_from_slice(entry.key);
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(entry.value);
        self.each.push((entry.version, key_end, self.bytes.len()));
    }

    /// Number of entries to read.
    pub(super) fn len(&self) -> usize {
        self.each.len()
    }

    /// Version, key and value of each entry to read, in the order of the snapshot.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &[u8], &[u8])> {
        let mut begin = 0;
        self.each.iter().map(move |&(version, key_end, end)| {
            let (key, value) = (&self.bytes[begin..key_end], &self.bytes[key_end..end]);
            begin = end;
            (version, key, value)
        })
    }
}

impl Share {
    /// Whether the next value belongs to the share. Among any `of` values in a row, exactly
    /// `read` do.
    fn has_next(&mut self) -> bool {
        let before = self.seen * self.read / self.of;
        self.seen += 1;
        self.seen * self.read / self.of > before
    }
}

/// Whether a record is no entry of a table, so that the copy of the store keeps it. An entry is
/// taken for its table instead, if that is one of `tables` and it was not `dropped`.
pub(super) fn is_another(
    seen: &Seen<'_>,
    tables: &mut BTreeMap<&str, Entries>,
    dropped: &DroppedPrefixes,
) -> bool {
    if !matches!(seen.kind, Kind::Entry | Kind::Expiring) {
        return true;
    }
    if let Some(entry) = SeenEntry::of(seen)
        && let Some(entries) = tables.get_mut(entry.table)
        && !dropped.has(seen)
    {
        entries.take(&entry, seen);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_as_large_as_it_is_to_be_and_lies_evenly() {
        for (read, of) in [(1, 1), (1, 7), (3, 7), (7, 7), (100_000, 100_001), (100_000, 1_000_000)] {
            let mut share = Share { version: 1, read, of, seen: 0 };
            let taken: Vec<_> = (0..of).filter(|_| share.has_next()).collect();
            assert_eq!(taken.len() as u64, read, "of {of}");
            let apart = taken.windows(2).map(|w| w[1] - w[0]);
            assert!(apart.clone().all(|n| n == of / read || n == of / read + 1), "{read} of {of}");
        }
    }
}
