//! Tables with typed values: maps that the host owns, that all sessions share, and that outlive
//! any build.
//!
//! Keys are bytes, in the order of bytes. Values are MessagePack with field names, written and
//! read by serde. Writes are effects: they count when the turn succeeds, and the turn itself
//! sees them at once. Each call crosses the ABI and decodes or encodes one value.
//!
//! If the host refuses a write because of a limit, the turn fails after the callback returned.
//! A value that can't be decoded is an error of the read.

use crate::encode::stored;
use crate::fault::Fault;
use crate::migrate::Migrations;
use crate::turn::Turn;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;

/// Tables that a service owns: the shape of their values, and how values of older versions become
/// today's. The host checks both in every rehearsal, and converts values when an older or newer
/// build reads them.
#[derive(Default)]
pub struct Tables {
    pub(crate) owned: Vec<Owned>,
}

/// Table that a service owns.
pub(crate) struct Owned {
    /// Name of the table.
    pub(crate) name: &'static str,
    /// Version of the values that this build writes.
    pub(crate) version: u32,
    /// Schema, made when it is asked for: conversions do without.
    pub(crate) schema: fn() -> serde_json::Value,
    /// Steps that lead to this version, and back.
    pub(crate) migrations: Migrations,
    /// Reads a value and writes it again.
    pub(crate) again: fn(&[u8]) -> Result<Vec<u8>, String>,
}

impl Tables {
    /// No tables: the service only uses tables of others, or tables without an owner.
    pub fn none() -> Tables {
        Tables::default()
    }

    /// Adds a table whose values never changed their shape.
    #[must_use]
    pub fn own<V: Serialize + DeserializeOwned + JsonSchema>(self, table: &Table<V>) -> Tables {
        self.own_at(table, 1, Migrations::none())
    }

    /// Adds a table whose values are of this version. The rules of
    /// [`crate::Handler::STATE_VERSION`] hold for it, too.
    #[must_use]
    pub fn own_at<V: Serialize + DeserializeOwned + JsonSchema>(
        mut self,
        table: &Table<V>,
        version: u32,
        migrations: Migrations,
    ) -> Tables {
        let schema = || schemars::schema_for!(V).to_value();
        let again = |bytes: &[u8]| {
            let value: V = rmp_serde::from_slice(bytes).map_err(|e| e.to_string())?;
            stored(&value)
        };
        self.owned.push(Owned { name: table.name, version, schema, migrations, again });
        self
    }
}

/// Name of a table and the type of its values. Keys are bytes, in order.
///
/// ```
/// # use greenroom_handler::Table;
/// const NICKS: Table<u64> = Table::new("nicks");
/// ```
pub struct Table<V> {
    /// Name of the table in the host, shared by all services.
    name: &'static str,
    /// Type of the values. A function pointer: a table holds no value, so it is `Send` and
    /// `Sync` anyway.
    values: PhantomData<fn() -> V>,
}

impl<V: Serialize + DeserializeOwned> Table<V> {
    /// Names a table: letters, digits, `-` and `_`.
    pub const fn new(name: &'static str) -> Table<V> {
        Table { name, values: PhantomData }
    }

    /// Reads the value under a key. The turn's own writes are seen.
    pub fn get<S>(&self, turn: &mut Turn<'_, S>, key: impl AsRef<[u8]>) -> Result<Option<V>, Fault> {
        let found = turn.host.table_get(self.name, key.as_ref());
        Ok(found.map(|value| rmp_serde::from_slice(&value)).transpose()?)
    }

    /// Writes a value under a key. Fails if the value could not be read again.
    pub fn put<S>(&self, turn: &mut Turn<'_, S>, key: impl AsRef<[u8]>, value: &V) -> Result<(), Fault> {
        let refused = |e| Fault::new(format!("a value of table {} can't be stored: {e}", self.name));
        let value = stored(value).map_err(refused)?;
        let status = turn.host.table_put(self.name, key.as_ref(), &value);
        turn.note_refusal("a table write", status);
        Ok(())
    }

    /// Deletes a key; nothing happens if it isn't there.
    pub fn delete<S>(&self, turn: &mut Turn<'_, S>, key: impl AsRef<[u8]>) {
        let status = turn.host.table_delete(self.name, key.as_ref());
        turn.note_refusal("a table write", status);
    }

    /// Reads the entries whose keys start with `prefix`, in order, at most `limit` of them.
    /// Fails at the first value that can't be decoded. One call of the host for each entry.
    pub fn scan<S>(
        &self,
        turn: &mut Turn<'_, S>,
        prefix: impl AsRef<[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, V)>, Fault> {
        self.scan_from(turn, prefix, b"", limit)
    }

    /// Reads as [`Table::scan`] does, from a key on. To go on behind a key, pass it with a zero
    /// byte appended.
    pub fn scan_from<S>(
        &self,
        turn: &mut Turn<'_, S>,
        prefix: impl AsRef<[u8]>,
        from: impl AsRef<[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, V)>, Fault> {
        let (mut found, mut from) = (Vec::new(), from.as_ref().to_vec());
        while found.len() < limit {
            let Some((key, value)) = turn.host.table_next(self.name, prefix.as_ref(), &from) else { break };
            // The next possible key in the order of bytes.
            from = [&key[..], &[0]].concat();
            found.push((key, rmp_serde::from_slice(&value)?));
        }
        Ok(found)
    }

    /// Number of entries, the turn's own writes included. Does not read the values.
    pub fn len<S>(&self, turn: &mut Turn<'_, S>) -> u64 {
        turn.host.table_len(self.name)
    }

    /// Whether it has no entries.
    pub fn is_empty<S>(&self, turn: &mut Turn<'_, S>) -> bool {
        self.len(turn) == 0
    }
}
