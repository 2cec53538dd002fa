//! Entry in the index of a table: 24 bytes and the key.

use super::chunks::Item;
use crate::store::layout::Ref;
use crate::store::records::Store;

/// Entry in the index.
#[derive(Debug)]
pub(super) struct Indexed {
    pub(super) key: Box<[u8]>,
    /// Record of the entry.
    pub(super) at: Ref,
    /// Bytes of the value.
    pub(super) value_len: u32,
}

impl Item for Indexed {
    type Key = [u8];
    type Owned = Box<[u8]>;

    fn key(&self) -> &[u8] {
        &self.key
    }

    fn owned(key: &[u8]) -> Box<[u8]> {
        key.into()
    }

    fn bytes(&self) -> usize {
        self.key.len() + self.value_len as usize
    }
}

/// Returns the version of an entry's value as stored.
pub(super) fn stored_version(store: &Store) -> impl Fn(&Indexed) -> u32 {
    |entry| store.key(entry.at) as u32
}
