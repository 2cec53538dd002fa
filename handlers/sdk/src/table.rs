//! Typed tables: maps that the host owns, that all sessions share, and that outlive any build.

use crate::{Fault, Turn};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;

/// The name of a table and the type of its values. Keys are bytes, in order.
///
/// ```
/// # use greenroom_handler::Table;
/// const NICKS: Table<u64> = Table::new("nicks");
/// ```
pub struct Table<V> {
    name: &'static str,
    values: PhantomData<fn() -> V>,
}

impl<V: Serialize + DeserializeOwned> Table<V> {
    /// Names a table: letters, digits, `-` and `_`.
    pub const fn new(name: &'static str) -> Table<V> {
        Table { name, values: PhantomData }
    }

    /// The value under a key. The turn's own writes are seen.
    pub fn get<S>(&self, turn: &mut Turn<'_, S>, key: impl AsRef<[u8]>) -> Result<Option<V>, Fault> {
        let found = turn.host.table_get(self.name, key.as_ref());
        Ok(found.map(|value| rmp_serde::from_slice(&value)).transpose()?)
    }

    /// Writes a value under a key.
    pub fn put<S>(&self, turn: &mut Turn<'_, S>, key: impl AsRef<[u8]>, value: &V) -> Result<(), Fault> {
        let value = rmp_serde::to_vec_named(value)?;
        let status = turn.host.table_put(self.name, key.as_ref(), &value);
        turn.note("a table write", status);
        Ok(())
    }

    /// Deletes a key; no harm if it isn't there.
    pub fn delete<S>(&self, turn: &mut Turn<'_, S>, key: impl AsRef<[u8]>) {
        let status = turn.host.table_delete(self.name, key.as_ref());
        turn.note("a table write", status);
    }

    /// The entries whose keys start with `prefix`, in order, at most `limit` of them.
    pub fn scan<S>(
        &self,
        turn: &mut Turn<'_, S>,
        prefix: impl AsRef<[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, V)>, Fault> {
        let (mut found, mut from) = (Vec::new(), Vec::new());
        while found.len() < limit {
            let Some((key, value)) = turn.host.table_next(self.name, prefix.as_ref(), &from) else { break };
            from = [&key[..], &[0]].concat();
            found.push((key, rmp_serde::from_slice(&value)?));
        }
        Ok(found)
    }
}
