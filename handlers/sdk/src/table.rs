//! Tables with typed values: maps that the host owns, that all sessions share, and that outlive
//! any build.
//!
//! Keys are bytes, in the order of bytes. Values are MessagePack with field names, written and
//! read by serde. Writes are effects: they count when the turn succeeds, and the turn itself
//! sees them at once. Each call crosses the ABI and decodes or encodes one value.
//!
//! Scans go in either direction, and may read keys alone. A [`Table`] of [`Bytes`] lends its values
//! where they lie.
//!
//! If the host refuses a write because of a limit, the turn fails after the callback returned.
//! A value that can't be decoded is an error of the read.

use crate::bounds::HasSchema;
use crate::bytes::{Bytes, encode, lent};
use crate::carried::{stored_as_is, try_samples};
use crate::encode::read;
use crate::fault::Fault;
use crate::migrate::Migrations;
use crate::turn::{Turn, nanoseconds};
use greenroom_state::abi::table::{HEARS_OF_EXPIRY, READS_KEYS};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use std::time::Duration;

/// Tables that a service owns: the shape of their values, and how values of older versions become
/// today's. The host checks both in every rehearsal, and converts values when an older or newer
/// build reads them.
///
/// ```
/// use greenroom_handler::{Handler, Migrations, Table, Tables, handler};
///
/// const NICKS: Table<u64> = Table::new("nicks");
/// const POINTS: Table<u64> = Table::new("points");
///
/// struct Game;
/// #[handler]
/// impl Handler for Game {
///     const SERVICE: &'static str = "game";
///     fn tables() -> Tables {
///         // Points were text in version 1.
///         let number = |old: String| old.parse::<u64>().map_err(|e| e.to_string());
///         Tables::none().own(&NICKS).own_at(&POINTS, 2, Migrations::none().from(1, number))
///     }
/// }
/// ```
#[derive(Default)]
pub struct Tables {
    pub(crate) owned: Vec<Owned>,
}

/// Reader of a key. Fails with a sentence on bytes that are none.
pub(crate) type ReadsKey = fn(&[u8]) -> Result<(), String>;

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
    /// Whether the service is told of entries that are over.
    pub(crate) hears_of_expiry: bool,
    /// Tries samples of the values' type.
    pub(crate) tries: fn() -> Result<(), String>,
    /// Reads a key, if keys have a type.
    pub(crate) reads_key: Option<ReadsKey>,
    /// Reads a value and writes it again.
    pub(crate) again: fn(&[u8]) -> Result<Vec<u8>, String>,
}

impl Owned {
    /// Flags of the table, as the host reads them.
    pub(crate) fn flags(&self) -> u32 {
        let hears = if self.hears_of_expiry { HEARS_OF_EXPIRY } else { 0 };
        hears | if self.reads_key.is_some() { READS_KEYS } else { 0 }
    }
}

impl Tables {
    /// No tables: the service only uses tables of others, or tables without an owner.
    pub fn none() -> Tables {
        Tables::default()
    }

    /// Adds a table whose values never changed their shape.
    #[must_use]
    pub fn own<V: Serialize + DeserializeOwned + HasSchema>(self, table: &Table<V>) -> Tables {
        self.own_at(table, 1, Migrations::none())
    }

    /// Adds a table whose values are of this version. The rules of
    /// [`crate::Handler::STATE_VERSION`] hold for it, too.
    #[must_use]
    pub fn own_at<V: Serialize + DeserializeOwned + HasSchema>(
        mut self,
        table: &Table<V>,
        version: u32,
        migrations: Migrations,
    ) -> Tables {
        let schema = V::schema;
        let again = |bytes: &[u8]| {
            let value: V = read(bytes)?;
            stored_as_is(&value)
        };
        let tries = || try_samples::<V>(&V::schema());
        let Table { name, hears_of_expiry, reads_key, .. } = *table;
        self.owned.push(Owned {
            name,
            version,
            schema,
            migrations,
            hears_of_expiry,
            tries,
            reads_key,
            again,
        });
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
    pub(crate) name: &'static str,
    /// Whether its owner is told of entries that are over.
    hears_of_expiry: bool,
    /// Reads a key, if keys have a type.
    reads_key: Option<ReadsKey>,
    /// Type of the values. A function pointer: a table holds no value, so it is `Send` and
    /// `Sync` anyway.
    values: PhantomData<fn() -> V>,
}

/// Reads and writes, by keys that are bytes.
///
/// ```
/// use greenroom_handler::testing::TestHost;
/// use greenroom_handler::{Handler, Result, Table, Tables, Turn, handler};
///
/// const FRUIT: Table<u32> = Table::new("fruit");
///
/// struct Store;
/// #[handler]
/// impl Handler for Store {
///     const SERVICE: &'static str = "store";
///     fn tables() -> Tables {
///         Tables::none().own(&FRUIT)
///     }
///     fn message(&self, turn: &mut Turn, _: &[u8]) -> Result {
///         assert!(FRUIT.is_empty(turn));
///         for (name, pieces) in [("apple", 3), ("apricot", 5), ("banana", 7)] {
///             FRUIT.put(turn, name, &pieces)?;
///         }
///         // The turn sees its own writes. Nobody else does before it has succeeded.
///         assert_eq!(FRUIT.get(turn, "banana")?, Some(7));
///         FRUIT.delete(turn, "banana");
///         FRUIT.drop_prefix(turn, "ap");
///         let left = FRUIT.len(turn);
///         turn.send_line(format!("{left} left"));
///         Ok(())
///     }
/// }
///
/// let mut host = TestHost::<Store>::new("{}").unwrap();
/// let peer = host.open();
/// assert_eq!(host.line(peer, "go"), "0 left\n");
/// ```
impl<V: Serialize + DeserializeOwned> Table<V> {
    /// Names a table: letters, digits, `-` and `_`.
    pub const fn new(name: &'static str) -> Table<V> {
        Table { name, hears_of_expiry: false, reads_key: None, values: PhantomData }
    }

    /// Has the service that owns the table ([`Tables::own`]) told of each entry that is over:
    /// [`crate::Action::Expired`].
    #[must_use]
    pub const fn hears_of_expiry(self) -> Table<V> {
        Table { hears_of_expiry: true, ..self }
    }

    /// Has keys read before an operator stores an entry.
    pub(crate) const fn with_keys(self, reads_key: ReadsKey) -> Table<V> {
        Table { reads_key: Some(reads_key), ..self }
    }

    /// Name of the table.
    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    /// Reads the value under a key. The turn's own writes are seen.
    pub fn get<S>(&self, turn: &mut Turn<'_, S>, key: impl AsRef<[u8]>) -> Result<Option<V>, Fault> {
        let mut value = None;
        turn.host.table_get(self.name, key.as_ref(), &mut |bytes| value = Some(rmp_serde::from_slice(bytes)));
        Ok(value.transpose()?)
    }

    /// Writes a value under a key. Fails if the value could not be read again.
    pub fn put<S>(&self, turn: &mut Turn<'_, S>, key: impl AsRef<[u8]>, value: &V) -> Result<(), Fault> {
        let value = stored_as_is(value).map_err(|e| self.refused(e))?;
        let status = turn.host.table_put(self.name, key.as_ref(), &value);
        turn.note_refusal("a table write", status);
        Ok(())
    }

    /// Writes a value under a key until a time of the calendar, as [`Turn::wall`] tells it: from
    /// then on the entry is gone for all who read. [`Table::len`] counts it until the host has
    /// deleted it, a little later. A time that is over deletes the entry; [`Table::put`] takes the
    /// time away.
    ///
    /// A deadline costs 20 bytes, without a timer and a turn of its own. If the clock is set back,
    /// what was over stays so.
    ///
    /// ```
    /// use greenroom_handler::{Fault, Table, Turn};
    /// use std::time::Duration;
    ///
    /// /// Each entry that is over is told to the service, as `Action::Expired`.
    /// const GUESTS: Table<String> = Table::new("guests").hears_of_expiry();
    ///
    /// fn let_in(turn: &mut Turn<'_, ()>, who: &str) -> Result<(), Fault> {
    ///     let until = turn.wall() + Duration::from_secs(3600);
    ///     GUESTS.put_until(turn, who, &"guest".to_owned(), until)
    /// }
    /// ```
    pub fn put_until<S>(
        &self,
        turn: &mut Turn<'_, S>,
        key: impl AsRef<[u8]>,
        value: &V,
        until: Duration,
    ) -> Result<(), Fault> {
        let value = stored_as_is(value).map_err(|e| self.refused(e))?;
        let status = turn.host.table_put_until(self.name, key.as_ref(), &value, nanoseconds(until));
        turn.note_refusal("a table write", status);
        Ok(())
    }

    /// Fault of a value that can't be stored.
    fn refused(&self, e: String) -> Fault {
        Fault::new(format!("a value of table {} can't be stored: {e}", self.name))
    }

    /// Deletes a key; nothing happens if it isn't there.
    pub fn delete<S>(&self, turn: &mut Turn<'_, S>, key: impl AsRef<[u8]>) {
        let status = turn.host.table_delete(self.name, key.as_ref());
        turn.note_refusal("a table write", status);
    }

    /// Drops all entries whose keys start with `prefix`, however many those are; empty: all. They
    /// are gone at once, for this turn, too. Their memory is free a little later: the host deletes
    /// them a share at a time. What is written under the prefix afterwards stays.
    pub fn drop_prefix<S>(&self, turn: &mut Turn<'_, S>, prefix: impl AsRef<[u8]>) {
        let status = turn.host.table_drop_prefix(self.name, prefix.as_ref());
        turn.note_refusal("a table write", status);
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

impl Table<Bytes> {
    /// Lends the bytes under a key to `read`, and returns what it makes of them. Stored bytes are
    /// not copied.
    ///
    /// ```
    /// use greenroom_handler::{Bytes, Fault, Table, Turn};
    ///
    /// const PAGES: Table<Bytes> = Table::new("pages");
    ///
    /// fn begins_with(turn: &mut Turn<'_, ()>, page: &str, text: &[u8]) -> Result<bool, Fault> {
    ///     Ok(PAGES.get_with(turn, page, |bytes| bytes.starts_with(text))?.unwrap_or(false))
    /// }
    /// ```
    pub fn get_with<S, R>(
        &self,
        turn: &mut Turn<'_, S>,
        key: impl AsRef<[u8]>,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, Fault> {
        let (mut read, mut result) = (Some(read), None);
        turn.host.table_get(self.name, key.as_ref(), &mut |value| {
            let Some(read) = read.take() else { return };
            result = Some(match lent(value) {
                Some(bytes) => Ok(read(bytes)),
                // A list of numbers, which the table had before.
                None => rmp_serde::from_slice(value).map(|Bytes(bytes)| read(&bytes)),
            });
        });
        Ok(result.transpose()?)
    }

    /// Writes bytes as [`Table::put_bytes`] does, with a deadline as in [`Table::put_until`].
    ///
    /// ```
    /// use greenroom_handler::{Bytes, Result, Table, Turn};
    /// use std::time::Duration;
    ///
    /// const PAGES: Table<Bytes> = Table::new("pages");
    ///
    /// fn cache(turn: &mut Turn, path: &str, page: &[u8], lasts: Option<Duration>) -> Result {
    ///     match lasts {
    ///         None => PAGES.put_bytes(turn, path, page),
    ///         Some(lasts) => {
    ///             let until = turn.wall() + lasts;
    ///             PAGES.put_bytes_until(turn, path, page, until)
    ///         }
    ///     }
    /// }
    /// ```
    pub fn put_bytes_until<S>(
        &self,
        turn: &mut Turn<'_, S>,
        key: impl AsRef<[u8]>,
        bytes: impl AsRef<[u8]>,
        until: Duration,
    ) -> Result<(), Fault> {
        let value = encode(bytes.as_ref()).map_err(|e| self.refused(e))?;
        let status = turn.host.table_put_until(self.name, key.as_ref(), &value, nanoseconds(until));
        turn.note_refusal("a table write", status);
        Ok(())
    }

    /// Writes bytes under a key, as [`Table::put`] does with [`Bytes`], without a copy before.
    pub fn put_bytes<S>(
        &self,
        turn: &mut Turn<'_, S>,
        key: impl AsRef<[u8]>,
        bytes: impl AsRef<[u8]>,
    ) -> Result<(), Fault> {
        let value = encode(bytes.as_ref()).map_err(|e| self.refused(e))?;
        let status = turn.host.table_put(self.name, key.as_ref(), &value);
        turn.note_refusal("a table write", status);
        Ok(())
    }
}
