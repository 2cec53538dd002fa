//! Reads of tables, with the batch's own writes visible.
//!
//! A turn sees the entries as the last applied batch left them. The effects of its own batch are
//! laid over them, and the newest effect on a key decides.
//!
//! Values are converted to the version that the called build reads. A value that can't be
//! converted fails the turn. A stored value is lent from where it lies, without a copy: the store
//! does not change while a turn runs. A staged one is copied: the arena moves when the turn passes
//! what it was lent to the next call.
//!
//! A read searches a few effects of the batch from the newest on, or asks an index over them
//! (`staged_entries`): O(log entries) in each case.

use super::context::TurnContext;
use super::effect::{Effect, Part};
use super::staged_entries::{INDEXED_FROM, StagedEntries};
use super::staging::Staging;
use crate::limits::budget::ROW_NS;

/// Direction of a scan, and whether it reads values.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Seek {
    /// From the greatest key to the least.
    pub backwards: bool,
    /// Keys alone: values are neither read nor converted.
    pub key_alone: bool,
}

/// Value of an entry, where it lies.
enum FoundValue<'a> {
    /// In the store.
    Stored(&'a [u8]),
    /// In the buffer of answers.
    Copied,
}

impl<'a> Staging<'a> {
    /// Index over the table effects of the batch, up to the newest.
    pub(super) fn indexed(&mut self) -> &mut StagedEntries {
        let TurnContext { tables, .. } = *self.context;
        let b = &mut *self.buffers;
        b.is_indexed = true;
        b.entries.cover(&b.bytes, &b.effects, tables);
        &mut b.entries
    }

    /// Number of entries of a table, with this batch's writes.
    pub fn table_len(&mut self, table: &str) -> u64 {
        let stored = self.context.tables.count(table) as i64;
        let change = self.indexed().change(table);
        (stored + change.entries).max(0) as u64
    }

    /// Effect of this batch on an entry: its new value, `Some(None)` for a deletion, `None` for
    /// nothing.
    fn overlay(&mut self, table: &str, key: &[u8]) -> Option<Option<Part>> {
        if self.buffers.effects.len() >= INDEXED_FROM {
            return self.indexed().newest(table, key).map(|staged| staged.map(|v| v.value));
        }
        let bytes = &self.buffers.bytes;
        let same = |t: &Part, k: &Part| &bytes[t.clone()] == table.as_bytes() && &bytes[k.clone()] == key;
        self.buffers.effects.iter().rev().find_map(|e| match e {
            Effect::Put { table: t, key: k, value, .. } if same(t, k) => Some(Some(value.clone())),
            Effect::Delete { table: t, key: k } if same(t, k) => Some(None),
            Effect::DropPrefix { table: t, prefix }
                if &bytes[t.clone()] == table.as_bytes() && key.starts_with(&bytes[prefix.clone()]) =>
            {
                Some(None)
            }
            _ => None,
        })
    }

    /// Reads a table's entry; this batch's own writes are seen. The value is valid until the
    /// next call. `None`: there is no such entry. If its value can't be converted, `None` as
    /// well, and the turn fails when it ends.
    pub fn table_get(&mut self, table: &str, key: &[u8]) -> Option<&[u8]> {
        let value = self.find_value(table, key)?;
        Some(self.lent(value))
    }

    /// Finds the value of an entry, and converts it if it must be.
    fn find_value(&mut self, table: &str, key: &[u8]) -> Option<FoundValue<'a>> {
        if let Some(staged) = self.overlay(table, key) {
            let (b, part) = (&mut *self.buffers, staged?);
            b.answer.clear();
            b.answer.extend_from_slice(&b.bytes[part]);
            return Some(FoundValue::Copied);
        }
        let TurnContext { tables, convert, .. } = *self.context;
        // Only stored values may be of another version than the called build reads.
        let (version, stored) = tables.value(table, key)?;
        match convert(table, version, stored) {
            Ok(None) => Some(FoundValue::Stored(stored)),
            Ok(Some(value)) => {
                self.buffers.answer = value;
                Some(FoundValue::Copied)
            }
            Err(why) => {
                let key = String::from_utf8_lossy(key);
                self.unreadable = Some(format!("the entry {key:?} of table {table} can't be read: {why}"));
                None
            }
        }
    }

    /// Bytes of a value that was found.
    fn lent<'s>(&'s self, value: FoundValue<'s>) -> &'s [u8] {
        match value {
            FoundValue::Stored(bytes) => bytes,
            FoundValue::Copied => &self.buffers.answer,
        }
    }

    /// Next entry of a scan whose key starts with `prefix`: key and value, valid until the next
    /// call. Forwards the first one at or behind `from`; backwards the last one before `from`, or
    /// of all if that is empty. If its value can't be converted, `None`, and the turn fails when
    /// it ends.
    ///
    /// A scan takes a call for each entry. A call costs O(log entries). An entry that the batch
    /// deleted costs as much once, in whatever scan comes upon it first.
    pub fn table_seek(
        &mut self,
        table: &str,
        prefix: &[u8],
        from: &[u8],
        seek: Seek,
    ) -> Option<(&[u8], &[u8])> {
        self.work(ROW_NS);
        let key = self.next_key(table, prefix, from, seek.backwards)?;
        let value = match seek.key_alone {
            true => None,
            false => Some(self.find_value(table, &key)?),
        };
        let answer = &mut self.buffers.answer;
        // The key stands behind a value that was copied.
        if !matches!(value, Some(FoundValue::Copied)) {
            answer.clear();
        }
        let copied_len = answer.len();
        answer.extend_from_slice(&key);
        let (copied, key) = answer.split_at(copied_len);
        let value = match value {
            None => &[],
            Some(FoundValue::Stored(bytes)) => bytes,
            Some(FoundValue::Copied) => copied,
        };
        Some((key, value))
    }

    /// Key of the next entry of a scan.
    fn next_key(&mut self, table: &str, prefix: &[u8], from: &[u8], backwards: bool) -> Option<Vec<u8>> {
        let TurnContext { tables, .. } = *self.context;
        let index = self.indexed();
        let below = Some(from).filter(|from| !from.is_empty());
        // No key before the prefix starts with it.
        let from = from.max(prefix);
        match (index.changes(table), backwards) {
            (true, false) => index.next_key(tables, table, prefix, from),
            (true, true) => index.previous_key(tables, table, prefix, below),
            (false, false) => tables.next_key(table, prefix, from).map(<[u8]>::to_vec),
            (false, true) => tables.previous_key(table, prefix, below).map(<[u8]>::to_vec),
        }
    }
}
