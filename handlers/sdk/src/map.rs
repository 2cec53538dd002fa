//! Tables with typed keys: a [`Table`] whose keys are written and read as [`Key`] has it.

use crate::fault::Fault;
use crate::key::{Key, KeyPart};
use crate::table::Table;
use crate::turn::Turn;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::type_name;
use std::marker::PhantomData;
use std::time::Duration;

/// Table with typed keys, in their order. What it holds, [`Table`] says; an owner names it by
/// [`Map::table`].
///
/// Text and bytes are passed as `&str` and `&[u8]`, tuples as tuples of such parts.
///
/// ```
/// use greenroom_handler::{Map, Result, Turn};
///
/// /// Points by game and player.
/// const POINTS: Map<(u32, String), i64> = Map::new("points");
///
/// fn score(turn: &mut Turn, game: u32, player: &str) -> Result {
///     let points = POINTS.get(turn, (game, player))?.unwrap_or(0);
///     POINTS.put(turn, (game, player), &(points + 1))?;
///     for ((_, player), points) in POINTS.scan_under(turn, (game,), 10)? {
///         turn.send_line(format!("{player}: {points}"));
///     }
///     Ok(())
/// }
/// ```
pub struct Map<K, V> {
    table: Table<V>,
    /// Type of the keys, of which it holds none.
    keys: PhantomData<fn() -> K>,
}

/// Reads, writes and ranges, by keys of the type.
///
/// ```
/// use greenroom_handler::testing::TestHost;
/// use greenroom_handler::{Action, Handler, Map, Result, Tables, Turn, handler};
/// use std::time::Duration;
///
/// /// Points by game and player.
/// const POINTS: Map<(u32, String), i64> = Map::new("points").hears_of_expiry();
///
/// struct Games;
/// #[handler]
/// impl Handler for Games {
///     const SERVICE: &'static str = "games";
///     fn tables() -> Tables {
///         Tables::none().own(POINTS.table())
///     }
///     fn message(&self, turn: &mut Turn, _: &[u8]) -> Result {
///         POINTS.put(turn, (1, "ann"), &3)?;
///         POINTS.put(turn, (1, "bob"), &5)?;
///         let until = turn.wall() + Duration::from_secs(60);
///         POINTS.put_until(turn, (2, "ann"), &7, until)?;
///         assert_eq!(POINTS.get(turn, (1, "bob"))?, Some(5));
///         // In the order of keys: by game, then by player.
///         let first = ((1, "ann".to_owned()), 3);
///         assert_eq!(POINTS.scan(turn, 1)?, [first]);
///         assert_eq!(POINTS.scan_from(turn, (1, "b"), 9)?.len(), 2);
///         assert_eq!(POINTS.scan_back(turn, 1)?, [((2, "ann".to_owned()), 7)]);
///         // One game.
///         assert_eq!(POINTS.scan_under(turn, (1,), 9)?.len(), 2);
///         assert_eq!(POINTS.scan_back_under(turn, (1,), 1)?, [((1, "bob".to_owned()), 5)]);
///         POINTS.delete(turn, (1, "bob"));
///         POINTS.drop_under(turn, (1,));
///         assert!(POINTS.len(turn) == 1 && !POINTS.is_empty(turn));
///         turn.subscribe("ends");
///         Ok(())
///     }
///     fn handle_service(&self, turn: &mut Turn, action: Action) -> Result {
///         if let Action::Expired { key, .. } = action {
///             let (game, player) = POINTS.key(key)?;
///             turn.broadcast_line("ends", format!("game {game} is over for {player}"));
///         }
///         Ok(())
///     }
/// }
///
/// let mut host = TestHost::<Games>::new("{}").unwrap();
/// let peer = host.open();
/// host.line(peer, "play");
/// host.advance(Duration::from_secs(61));
/// assert_eq!(host.output(peer), "game 2 is over for ann\n");
/// ```
impl<K: Key, V: Serialize + DeserializeOwned> Map<K, V> {
    /// Names a table: letters, digits, `-` and `_`.
    pub const fn new(name: &'static str) -> Map<K, V> {
        Map { table: Table::new(name).with_keys(read::<K>), keys: PhantomData }
    }

    /// Has its owner told of entries that are over, as [`Table::hears_of_expiry`] has it. The key
    /// that comes is for [`Map::key`].
    #[must_use]
    pub const fn hears_of_expiry(self) -> Map<K, V> {
        Map { table: self.table.hears_of_expiry(), ..self }
    }

    /// Table with plain keys, for [`crate::Tables::own`] and for scans of its own.
    pub const fn table(&self) -> &Table<V> {
        &self.table
    }

    /// Reads a key, such as that of [`crate::Action::Expired`].
    pub fn key(&self, bytes: &[u8]) -> Result<K, Fault> {
        K::read_last(bytes)
            .ok_or_else(|| Fault::new(format!("table {}: {}", self.table.name(), no_key::<K>(bytes))))
    }

    /// Reads the value under a key. The turn's own writes are seen.
    pub fn get<S>(&self, turn: &mut Turn<'_, S>, key: impl KeyPart<K>) -> Result<Option<V>, Fault> {
        self.table.get(turn, whole(&key))
    }

    /// Writes a value under a key. Fails if the value could not be read again.
    pub fn put<S>(&self, turn: &mut Turn<'_, S>, key: impl KeyPart<K>, value: &V) -> Result<(), Fault> {
        self.table.put(turn, whole(&key), value)
    }

    /// Writes a value until a time of the calendar, as [`Table::put_until`] does.
    pub fn put_until<S>(
        &self,
        turn: &mut Turn<'_, S>,
        key: impl KeyPart<K>,
        value: &V,
        until: Duration,
    ) -> Result<(), Fault> {
        self.table.put_until(turn, whole(&key), value, until)
    }

    /// Deletes a key; nothing happens if it isn't there.
    pub fn delete<S>(&self, turn: &mut Turn<'_, S>, key: impl KeyPart<K>) {
        self.table.delete(turn, whole(&key));
    }

    /// First `limit` entries, in the order of keys.
    pub fn scan<S>(&self, turn: &mut Turn<'_, S>, limit: usize) -> Result<Vec<(K, V)>, Fault> {
        self.typed(self.table.scan(turn, b"", limit)?)
    }

    /// First `limit` entries whose keys are not before `from`.
    pub fn scan_from<S>(
        &self,
        turn: &mut Turn<'_, S>,
        from: impl KeyPart<K>,
        limit: usize,
    ) -> Result<Vec<(K, V)>, Fault> {
        self.typed(self.table.scan_from(turn, b"", whole(&from), limit)?)
    }

    /// Last `limit` entries, from the last to the first.
    pub fn scan_back<S>(&self, turn: &mut Turn<'_, S>, limit: usize) -> Result<Vec<(K, V)>, Fault> {
        self.typed(self.table.scan_back(turn, b"", limit)?)
    }

    /// First `limit` entries whose keys begin with these parts of a tuple.
    pub fn scan_under<S, P>(
        &self,
        turn: &mut Turn<'_, S>,
        parts: impl KeyPart<P>,
        limit: usize,
    ) -> Result<Vec<(K, V)>, Fault>
    where
        K: Under<P>,
    {
        self.typed(self.table.scan(turn, begin(&parts), limit)?)
    }

    /// Last `limit` entries whose keys begin with these parts, from the last to the first.
    pub fn scan_back_under<S, P>(
        &self,
        turn: &mut Turn<'_, S>,
        parts: impl KeyPart<P>,
        limit: usize,
    ) -> Result<Vec<(K, V)>, Fault>
    where
        K: Under<P>,
    {
        self.typed(self.table.scan_back(turn, begin(&parts), limit)?)
    }

    /// Drops all entries whose keys begin with these parts, as [`Table::drop_prefix`] does.
    pub fn drop_under<S, P>(&self, turn: &mut Turn<'_, S>, parts: impl KeyPart<P>)
    where
        K: Under<P>,
    {
        self.table.drop_prefix(turn, begin(&parts));
    }

    /// Number of entries, the turn's own writes included.
    pub fn len<S>(&self, turn: &mut Turn<'_, S>) -> u64 {
        self.table.len(turn)
    }

    /// Whether it has no entries.
    pub fn is_empty<S>(&self, turn: &mut Turn<'_, S>) -> bool {
        self.table.is_empty(turn)
    }

    /// Entries with their keys read.
    fn typed(&self, entries: Vec<(Vec<u8>, V)>) -> Result<Vec<(K, V)>, Fault> {
        entries.into_iter().map(|(key, value)| Ok((self.key(&key)?, value))).collect()
    }
}

/// Key whose first parts are `P`, a shorter tuple.
///
/// ```
/// use greenroom_handler::{Map, Result, Turn};
///
/// /// Mail by user, folder and number.
/// const MAIL: Map<(String, String, u32), String> = Map::new("mail");
///
/// fn count(turn: &mut Turn, user: &str, folder: &str) -> Result<usize> {
///     // `(String, String, u32): Under<(String, String)>`
///     Ok(MAIL.scan_under(turn, (user, folder), usize::MAX)?.len())
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{P}` is not the beginning of the key `{Self}`",
    note = "the beginning of a tuple is a shorter tuple, such as `(game,)` for `(game, player)`"
)]
pub trait Under<P> {}

impl<A, B> Under<(A,)> for (A, B) {}
impl<A, B, C> Under<(A,)> for (A, B, C) {}
impl<A, B, C> Under<(A, B)> for (A, B, C) {}
impl<A, B, C, D> Under<(A,)> for (A, B, C, D) {}
impl<A, B, C, D> Under<(A, B)> for (A, B, C, D) {}
impl<A, B, C, D> Under<(A, B, C)> for (A, B, C, D) {}

/// Bytes of a whole key.
fn whole<K>(key: &impl KeyPart<K>) -> Vec<u8> {
    let mut bytes = Vec::new();
    key.put_last(&mut bytes);
    bytes
}

/// Bytes of the first parts of a key.
fn begin<P>(parts: &impl KeyPart<P>) -> Vec<u8> {
    let mut bytes = Vec::new();
    parts.put(&mut bytes);
    bytes
}
/// Reads a key that an operator gives.
fn read<K: Key>(bytes: &[u8]) -> Result<(), String> {
    let given = "a key that is no text is given by its bytes, as {\"$b64\": \"...\"}";
    K::read_last(bytes).map(drop).ok_or_else(|| format!("{}; {given}", no_key::<K>(bytes)))
}

/// Words on bytes that are no key.
fn no_key<K>(bytes: &[u8]) -> String {
    format!("{bytes:02x?} is no {}", type_name::<K>())
}
