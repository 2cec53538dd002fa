//! Reads and writes of tables, with the batch's own writes visible.
//!
//! Tables are shared by all sessions. A turn sees the entries as the last applied batch left
//! them. The effects of its own batch are laid over them, and the newest effect on a key
//! decides. Nobody else sees what a turn wrote before it is applied.
//!
//! Values are converted to the version that the called build reads. A value that can't be
//! converted fails the turn.
//!
//! A read searches a few effects of the batch from the newest on, or asks an index over them
//! ([`super::staged_entries`]): O(log entries) in each case. Limits on tables are checked by an
//! upper bound first, and exactly only near the limit.

use super::staged_entries::{INDEXED_FROM, StagedEntries};
use super::staging::Staging;
use crate::limits::budget::ROW_NS;
use crate::limits::names::Limit;
use crate::turn::context::TurnContext;
use crate::turn::effect::Effect;
use crate::turn::effect::Part;
use greenroom_state::abi::status;

impl Staging<'_> {
    /// Index over the table effects of the batch, up to the newest.
    fn indexed(&mut self) -> &mut StagedEntries {
        let TurnContext { store, tables, .. } = *self.context;
        let b = &mut *self.buffers;
        b.is_indexed = true;
        b.entries.cover(&b.bytes, &b.effects, tables, store);
        &mut b.entries
    }

    /// Number of entries of a table, with this batch's writes.
    pub fn table_len(&mut self, table: &str) -> u64 {
        let stored = self.context.tables.count(table) as i64;
        let change = self.indexed().change(table);
        (stored + change.entries).max(0) as u64
    }

    /// Writes a table's entry. A table comes into being with its first entry. Refused as
    /// [`status::INVALID`] if the table's name is none, and as [`status::LIMIT`] over the limits
    /// of keys, values, tables and the table's bytes.
    pub fn table_put(&mut self, table: &str, key: &[u8], value: &[u8]) -> u32 {
        if !greenroom_state::elf_note::is_name(table) {
            return status::INVALID;
        }
        if key.len() > self.context.limits.table_key_bytes_max {
            return self.refuse(Limit::TableKeyBytesMax);
        }
        if value.len() > self.context.limits.table_value_bytes_max {
            return self.refuse(Limit::TableValueBytesMax);
        }
        let tables = self.context.tables;
        let most = self.context.limits.tables_max;
        if !tables.contains(table) {
            let index = self.indexed();
            // A new table is counted once for a batch.
            if !index.change(table).is_written && tables.len() + index.begun() >= most {
                return self.refuse(Limit::TablesMax);
            }
        }
        let (max, more) = (self.context.limits.table_bytes_max, key.len() + value.len());
        // The bound takes all that the batch wrote as written to this table, under keys that are
        // new.
        if tables.bytes(table) + self.buffers.put_bytes + more > max
            && self.table_bytes_after(table, key, value) > max
        {
            return self.refuse(Limit::TableBytesMax);
        }
        self.buffers.put_bytes += more;
        self.stage(|s| {
            let (table, key) = (s.copy(table.as_bytes())?, s.copy(key)?);
            Some(Effect::Put { table, key, value: s.copy(value)? })
        })
    }

    /// Bytes that a table would have with this write and what was staged so far. Keys and values
    /// count.
    fn table_bytes_after(&mut self, table: &str, key: &[u8], value: &[u8]) -> usize {
        let TurnContext { store, tables, .. } = *self.context;
        let index = self.indexed();
        let before = match index.newest(table, key) {
            Some(staged) => staged.map_or(0, |v| key.len() + v.len()),
            None => tables.entry_bytes(store, table, key),
        };
        let bytes = tables.bytes(table) as i64 + index.change(table).bytes;
        (bytes + (key.len() + value.len()) as i64 - before as i64).max(0) as usize
    }

    /// Deletes a table's entry. If there is none, nothing happens. The last entry takes the
    /// table along.
    pub fn table_delete(&mut self, table: &str, key: &[u8]) -> u32 {
        self.stage(|s| Some(Effect::Delete { table: s.copy(table.as_bytes())?, key: s.copy(key)? }))
    }

    /// Effect of this batch on an entry: its new value, `Some(None)` for a deletion, `None` for
    /// nothing.
    fn overlay(&mut self, table: &str, key: &[u8]) -> Option<Option<Part>> {
        if self.buffers.effects.len() >= INDEXED_FROM {
            return self.indexed().newest(table, key);
        }
        let bytes = &self.buffers.bytes;
        let same = |t: &Part, k: &Part| &bytes[t.clone()] == table.as_bytes() && &bytes[k.clone()] == key;
        self.buffers.effects.iter().rev().find_map(|e| match e {
            Effect::Put { table: t, key: k, value } if same(t, k) => Some(Some(value.clone())),
            Effect::Delete { table: t, key: k } if same(t, k) => Some(None),
            _ => None,
        })
    }

    /// Reads a table's entry; this batch's own writes are seen. The value is valid until the
    /// next call. `None`: there is no such entry. If its value can't be converted, `None` as
    /// well, and the turn fails when it ends.
    pub fn table_get(&mut self, table: &str, key: &[u8]) -> Option<&[u8]> {
        let staged = self.overlay(table, key);
        let answer = &mut self.buffers.answer;
        answer.clear();
        match staged {
            Some(Some(part)) => answer.extend_from_slice(&self.buffers.bytes[part]),
            Some(None) => return None,
            None => {
                let TurnContext { store, tables, convert, .. } = *self.context;
                // Only stored values may be of another version than the called build reads.
                let stored = tables.get(store, table, key, answer)?;
                match convert(table, stored, answer) {
                    Ok(None) => {}
                    Ok(Some(value)) => *answer = value,
                    Err(why) => {
                        let key = String::from_utf8_lossy(key);
                        self.unreadable =
                            Some(format!("the entry {key:?} of table {table} can't be read: {why}"));
                        return None;
                    }
                }
            }
        }
        Some(&self.buffers.answer[..])
    }

    /// First entry at or after `from` whose key starts with `prefix`: key and value, valid until
    /// the next call. A walk over a table takes a call for each entry. Costs O(log entries), and as
    /// much for each entry that the batch deleted in that range, once for several walks.
    pub fn table_next(&mut self, table: &str, prefix: &[u8], from: &[u8]) -> Option<(&[u8], &[u8])> {
        self.work(ROW_NS);
        // No key before the prefix starts with it.
        let from = from.max(prefix);
        let tables = self.context.tables;
        let index = self.indexed();
        let key = match index.changes(table) {
            false => tables.keys_from(table, from).next().filter(|k| k.starts_with(prefix))?.to_vec(),
            true => index.next_key(tables, table, prefix, from)?,
        };
        self.table_get(table, &key)?;
        let answer = &mut self.buffers.answer;
        // Both go into one answer, the value first: `table_get` put it there.
        let value_len = answer.len();
        answer.extend_from_slice(&key);
        let (value, key) = answer.split_at(value_len);
        Some((key, value))
    }
}
