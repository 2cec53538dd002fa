//! Scans of a table: entries or keys of a range, in either direction.

use crate::fault::Fault;
use crate::table::Table;
use crate::turn::Turn;
use greenroom_state::abi::table::{BACKWARDS, KEY_ALONE};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Entries and keys of a range: by prefix, and at most so many.
///
/// ```
/// use greenroom_handler::testing::TestHost;
/// use greenroom_handler::{Handler, Result, Table, Turn, handler};
///
/// const FRUIT: Table<u32> = Table::new("fruit");
///
/// struct Store;
/// #[handler]
/// impl Handler for Store {
///     const SERVICE: &'static str = "store";
///     fn message(&self, turn: &mut Turn, _: &[u8]) -> Result {
///         for (name, pieces) in [("apple", 3), ("apricot", 5), ("banana", 7)] {
///             FRUIT.put(turn, name, &pieces)?;
///         }
///         let entry = |key: &str, pieces| (key.as_bytes().to_vec(), pieces);
///         // By prefix, and at most so many; "" is any.
///         assert_eq!(FRUIT.scan(turn, "ap", 1)?, [entry("apple", 3)]);
///         // A zero byte behind a key: what comes after it.
///         assert_eq!(FRUIT.scan_from(turn, "ap", "apple\0", 9)?, [entry("apricot", 5)]);
///         assert_eq!(FRUIT.scan_back(turn, "", 1)?, [entry("banana", 7)]);
///         assert_eq!(FRUIT.scan_back_from(turn, "", "banana", 1)?, [entry("apricot", 5)]);
///         // Keys alone.
///         assert_eq!(FRUIT.keys(turn, "", 9).len(), 3);
///         assert_eq!(FRUIT.keys_from(turn, "", "b", 9), [b"banana"]);
///         assert_eq!(FRUIT.keys_back(turn, "ap", 1), [b"apricot"]);
///         assert_eq!(FRUIT.keys_back_from(turn, "ap", "apricot", 9), [b"apple"]);
///         turn.send_line("found");
///         Ok(())
///     }
/// }
///
/// let mut host = TestHost::<Store>::new("{}").unwrap();
/// let peer = host.open();
/// assert_eq!(host.line(peer, "go"), "found\n");
/// ```
impl<V: Serialize + DeserializeOwned> Table<V> {
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
        self.entries(turn, (prefix.as_ref(), from.as_ref()), 0, limit)
    }

    /// Reads as [`Table::scan`] does, from the last key to the first.
    pub fn scan_back<S>(
        &self,
        turn: &mut Turn<'_, S>,
        prefix: impl AsRef<[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, V)>, Fault> {
        self.scan_back_from(turn, prefix, b"", limit)
    }

    /// Reads as [`Table::scan_back`] does, only keys before `before`; empty: all. To go on, pass
    /// the last key that was read.
    pub fn scan_back_from<S>(
        &self,
        turn: &mut Turn<'_, S>,
        prefix: impl AsRef<[u8]>,
        before: impl AsRef<[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, V)>, Fault> {
        self.entries(turn, (prefix.as_ref(), before.as_ref()), BACKWARDS, limit)
    }

    /// Keys that start with `prefix`, in order, at most `limit` of them. Values are not read.
    pub fn keys<S>(&self, turn: &mut Turn<'_, S>, prefix: impl AsRef<[u8]>, limit: usize) -> Vec<Vec<u8>> {
        self.keys_from(turn, prefix, b"", limit)
    }

    /// Keys as those of [`Table::keys`], from one on, as in [`Table::scan_from`].
    pub fn keys_from<S>(
        &self,
        turn: &mut Turn<'_, S>,
        prefix: impl AsRef<[u8]>,
        from: impl AsRef<[u8]>,
        limit: usize,
    ) -> Vec<Vec<u8>> {
        self.found_keys(turn, (prefix.as_ref(), from.as_ref()), 0, limit)
    }

    /// Keys that start with `prefix`, from the last to the first, at most `limit` of them.
    pub fn keys_back<S>(
        &self,
        turn: &mut Turn<'_, S>,
        prefix: impl AsRef<[u8]>,
        limit: usize,
    ) -> Vec<Vec<u8>> {
        self.keys_back_from(turn, prefix, b"", limit)
    }

    /// Keys as those of [`Table::keys_back`], only before `before`, as in
    /// [`Table::scan_back_from`].
    pub fn keys_back_from<S>(
        &self,
        turn: &mut Turn<'_, S>,
        prefix: impl AsRef<[u8]>,
        before: impl AsRef<[u8]>,
        limit: usize,
    ) -> Vec<Vec<u8>> {
        self.found_keys(turn, (prefix.as_ref(), before.as_ref()), BACKWARDS, limit)
    }

    /// Entries of a range (prefix and bound) in the direction that `flags` say.
    fn entries<S>(
        &self,
        turn: &mut Turn<'_, S>,
        range: (&[u8], &[u8]),
        flags: u32,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, V)>, Fault> {
        let mut values = Vec::new();
        let mut read = |value: &[u8]| match rmp_serde::from_slice(value) {
            Ok(value) => {
                values.push(value);
                Ok(())
            }
            Err(e) => Err(e.into()),
        };
        let keys = self.each(turn, range, flags, limit, &mut read)?;
        Ok(keys.into_iter().zip(values).collect())
    }

    /// Keys of a range, likewise.
    fn found_keys<S>(
        &self,
        turn: &mut Turn<'_, S>,
        range: (&[u8], &[u8]),
        flags: u32,
        limit: usize,
    ) -> Vec<Vec<u8>> {
        let keys = self.each(turn, range, flags | KEY_ALONE, limit, &mut |_| Ok(()));
        keys.unwrap_or_default()
    }

    /// Keys of a range, and each value for `read`, whose error ends the scan.
    fn each<S>(
        &self,
        turn: &mut Turn<'_, S>,
        (prefix, from): (&[u8], &[u8]),
        flags: u32,
        limit: usize,
        read: &mut dyn FnMut(&[u8]) -> Result<(), Fault>,
    ) -> Result<Vec<Vec<u8>>, Fault> {
        let (mut keys, mut from) = (Vec::new(), from.to_vec());
        while keys.len() < limit {
            let mut outcome = Ok(());
            let next = turn.host.table_seek(self.name, (prefix, &from), flags, &mut |value| {
                outcome = read(value);
            });
            let Some(key) = next else { break };
            outcome?;
            from.clone_from(&key);
            if flags & BACKWARDS == 0 {
                // The next possible key in the order of bytes.
                from.push(0);
            } else if key.is_empty() {
                // No key is before the empty one, and an empty bound would be none.
                keys.push(key);
                break;
            }
            keys.push(key);
        }
        Ok(keys)
    }
}
