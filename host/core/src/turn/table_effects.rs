//! Reads and writes of tables, with the batch's own writes visible.
//!
//! Tables are shared by all sessions. A turn sees the entries as the last applied batch left
//! them. The effects of its own batch are laid over them, and the newest effect on a key
//! decides. Nobody else sees what a turn wrote before it is applied.
//!
//! Values are converted to the version that the called build reads. A value that can't be
//! converted fails the turn.
//!
//! A read searches the effects of the batch from the newest on: O(effects), beside O(log
//! entries). Limits on tables are checked by an upper bound first, and exactly only near the
//! limit.

use super::staging::Staging;
use crate::limits::names::Limit;
use crate::turn::effect::Effect;
use crate::turn::effect::Part;
use crate::turn::staging::TurnContext;
use greenroom_state::abi::status;

impl Staging<'_> {
    /// Number of entries of a table, with this batch's writes. O(effects · writes to the table).
    pub fn table_len(&self, table: &str) -> u64 {
        let bytes = &self.buffers.bytes;
        let mut len = self.context.tables.count(table) as i64;
        let mut seen: Vec<&[u8]> = Vec::new();
        // From the newest on: only the last effect on a key counts.
        for effect in self.buffers.effects.iter().rev() {
            let (t, key, now) = match effect {
                Effect::Put { table, key, .. } => (table, key, true),
                Effect::Delete { table, key } => (table, key, false),
                _ => continue,
            };
            let key = &bytes[key.clone()];
            if &bytes[t.clone()] == table.as_bytes() && !seen.contains(&key) {
                seen.push(key);
                len += i64::from(now) - i64::from(self.context.tables.has(table, key));
            }
        }
        len.max(0) as u64
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
        // A new table is counted once for a batch.
        if !tables.contains(table)
            && !self.has_begun(table)
            && self.tables_after(table) > self.context.limits.tables_max
        {
            return self.refuse(Limit::TablesMax);
        }
        let (max, more) = (self.context.limits.table_bytes_max, key.len() + value.len());
        // The bound takes all that the batch wrote as written to this table, under keys that are
        // new. A turn that was refused once is not looked at again: each exact look costs
        // O(effects).
        const FULL: Limit = Limit::TableBytesMax;
        let full = || self.refusal == Some(FULL) || self.table_bytes_after(table, key, value) > max;
        if tables.bytes(table) + self.buffers.put_bytes + more > max && full() {
            return self.refuse(FULL);
        }
        self.buffers.put_bytes += more;
        self.stage(|s| {
            let (table, key) = (s.copy(table.as_bytes())?, s.copy(key)?);
            Some(Effect::Put { table, key, value: s.copy(value)? })
        })
    }

    /// Whether this batch has written to a table before: then the table was counted.
    fn has_begun(&self, table: &str) -> bool {
        let bytes = &self.buffers.bytes;
        let is =
            |e: &Effect| matches!(e, Effect::Put { table: t, .. } if &bytes[t.clone()] == table.as_bytes());
        self.buffers.effects.iter().any(is)
    }

    /// Tables with this new one and those staged so far. O(effects · new tables).
    fn tables_after(&self, table: &str) -> usize {
        let mut new = vec![table];
        for effect in &self.buffers.effects {
            if let Effect::Put { table, .. } = effect
                && let name = self.buffers.text(table)
                && !self.context.tables.contains(name)
                && !new.contains(&name)
            {
                new.push(name);
            }
        }
        self.context.tables.len() + new.len()
    }

    /// Bytes that a table would have with this write and what was staged so far. Keys and values
    /// count. O(effects).
    fn table_bytes_after(&self, table: &str, key: &[u8], value: &[u8]) -> usize {
        let TurnContext { store, tables, .. } = self.context;
        let stored = |key: &[u8]| tables.entry_bytes(store, table, key);
        let mut bytes = (tables.bytes(table) + key.len() + value.len()) as i64 - stored(key) as i64;
        // The new write is the newest on its key, so older effects on the key are skipped.
        let mut seen = std::collections::HashSet::from([key]);
        for effect in self.buffers.effects.iter().rev() {
            let (t, key, now) = match effect {
                Effect::Put { table, key, value } => (table, key, key.len() + value.len()),
                Effect::Delete { table, key } => (table, key, 0),
                _ => continue,
            };
            let key = &self.buffers.bytes[key.clone()];
            if self.buffers.text(t) == table && seen.insert(key) {
                bytes += now as i64 - stored(key) as i64;
            }
        }
        // Not negative: each key takes away what is stored of it, once.
        bytes.max(0) as usize
    }

    /// Deletes a table's entry. If there is none, nothing happens. The last entry takes the
    /// table along.
    pub fn table_delete(&mut self, table: &str, key: &[u8]) -> u32 {
        self.stage(|s| Some(Effect::Delete { table: s.copy(table.as_bytes())?, key: s.copy(key)? }))
    }

    /// Effect of this batch on an entry: its new value, `Some(None)` for a deletion, `None` for
    /// nothing. O(effects).
    fn overlay(&self, table: &str, key: &[u8]) -> Option<Option<Part>> {
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
                let TurnContext { store, tables, convert, .. } = self.context;
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
    /// the next call. A walk over a table takes a call for each entry. Costs O(effects) for each
    /// of the batch's writes in that range, and for each stored entry that the batch deleted.
    pub fn table_next(&mut self, table: &str, prefix: &[u8], from: &[u8]) -> Option<(&[u8], &[u8])> {
        // No key before the prefix starts with it.
        let from = from.max(prefix);
        let bytes = &self.buffers.bytes;
        let tables = self.context.tables;
        let kept = tables
            .keys_from(table, from)
            .take_while(|k| k.starts_with(prefix))
            .find(|k| self.overlay(table, k) != Some(None));
        let staged = self.buffers.effects.iter().filter_map(|e| match e {
            Effect::Put { table: t, key, .. } if &bytes[t.clone()] == table.as_bytes() => {
                Some(&bytes[key.clone()])
            }
            _ => None,
        });
        let staged = staged
            .filter(|k| *k >= from && k.starts_with(prefix))
            .filter(|k| matches!(self.overlay(table, k), Some(Some(_))))
            .min();
        // A key that is stored and staged is in both, and its staged value is read.
        let key = match (kept, staged) {
            (Some(a), Some(b)) => a.min(b),
            (a, b) => a.or(b)?,
        }
        .to_vec();
        self.table_get(table, &key)?;
        let answer = &mut self.buffers.answer;
        // Both go into one answer, the value first: `table_get` put it there.
        let value_len = answer.len();
        answer.extend_from_slice(&key);
        let (value, key) = answer.split_at(value_len);
        Some((key, value))
    }
}
