//! Writes to tables.
//!
//! Tables are shared by all sessions. Nobody else sees what a turn wrote before it is applied;
//! its own batch does ([`super::table_reads`]). Limits on tables are checked by an upper bound
//! first, and exactly only near the limit.

use super::context::TurnContext;
use super::staging::Staging;
use crate::limits::budget::DROPPED_ROW_NS;
use crate::limits::names::Limit;
use crate::tables::entry::deadline_bytes;
use crate::turn::effect::Effect;
use greenroom_state::abi::status;

impl Staging<'_> {
    /// Writes a table's entry. A table comes into being with its first entry. Refused as
    /// [`status::INVALID`] if the table's name is none, and as [`status::LIMIT`] over the limits
    /// of keys, values, tables and the table's bytes.
    pub fn table_put(&mut self, table: &str, key: &[u8], value: &[u8]) -> u32 {
        self.put(table, key, value, None)
    }

    /// Writes a table's entry as [`Staging::table_put`] does, until a time of the calendar in
    /// nanoseconds since 1970: from then on it is gone. A time that is over deletes the entry.
    pub fn table_put_until(&mut self, table: &str, key: &[u8], value: &[u8], until_ns: u64) -> u32 {
        // Never early: what is left of a millisecond counts as a whole one.
        let until = until_ns.div_ceil(1_000_000);
        match self.context.tables.is_over(until) {
            true => self.table_delete(table, key),
            false => self.put(table, key, value, Some(until)),
        }
    }

    /// Writes a table's entry.
    fn put(&mut self, table: &str, key: &[u8], value: &[u8], until: Option<u64>) -> u32 {
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
        let (max, more) =
            (self.context.limits.table_bytes_max, key.len() + value.len() + deadline_bytes(until));
        // The bound takes all that the batch wrote as written to this table, under keys that are
        // new.
        if tables.bytes(table) + self.buffers.put_bytes + more > max
            && self.table_bytes_after(table, key, more) > max
        {
            return self.refuse(Limit::TableBytesMax);
        }
        self.buffers.put_bytes += more;
        self.stage(|s| {
            let (table, key) = (s.copy(table.as_bytes())?, s.copy(key)?);
            Some(Effect::Put { table, key, value: s.copy(value)?, until })
        })
    }

    /// Bytes that a table would have with what was staged so far and an entry of `more` bytes:
    /// keys, values and deadlines count.
    fn table_bytes_after(&mut self, table: &str, key: &[u8], more: usize) -> usize {
        let tables = self.context.tables;
        let index = self.indexed();
        let before = match index.newest(table, key) {
            Some(staged) => staged.map_or(0, |v| v.entry_bytes(key)),
            None => tables.entry_bytes(table, key).unwrap_or(0),
        };
        let bytes = tables.bytes(table) as i64 + index.change(table).bytes;
        (bytes + more as i64 - before as i64).max(0) as usize
    }

    /// Drops all entries of a table whose keys start with `prefix`, however many those are. Their
    /// memory is free a little later.
    pub fn table_drop_prefix(&mut self, table: &str, prefix: &[u8]) -> u32 {
        if prefix.len() > self.context.limits.table_key_bytes_max {
            return self.refuse(Limit::TableKeyBytesMax);
        }
        let status = self.stage(|s| {
            Some(Effect::DropPrefix { table: s.copy(table.as_bytes())?, prefix: s.copy(prefix)? })
        });
        let TurnContext { tables, .. } = *self.context;
        self.work(tables.count_prefix(table, prefix).0 as u64 * DROPPED_ROW_NS);
        status
    }

    /// Deletes a table's entry. If there is none, nothing happens. The last entry takes the
    /// table along.
    pub fn table_delete(&mut self, table: &str, key: &[u8]) -> u32 {
        self.stage(|s| Some(Effect::Delete { table: s.copy(table.as_bytes())?, key: s.copy(key)? }))
    }
}
