//! Entry in the index of a table: 32 bytes and the key.

use super::chunk::Item;
use super::entry::split_deadline;
use crate::store::layout::Ref;
use crate::store::records::Store;

/// Entry in the index.
#[derive(Debug)]
pub(super) struct Indexed {
    /// First bytes of the key, as [`Item::head_of`] has them.
    head: u64,
    pub(super) key: Box<[u8]>,
    /// Record of the entry.
    pub(super) at: Ref,
    /// Bytes of the value and of the deadline, if there is one.
    pub(super) more_bytes: u32,
}

impl Indexed {
    /// Entry of a key.
    pub(super) fn new(key: Box<[u8]>, at: Ref, more_bytes: u32) -> Indexed {
        Indexed { head: Indexed::head_of(&key), key, at, more_bytes }
    }
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
        self.key.len() + self.more_bytes as usize
    }

    /// First eight bytes of a key, with zeros behind a shorter one.
    fn head_of(key: &[u8]) -> u64 {
        if let Some(head) = key.first_chunk() {
            return u64::from_be_bytes(*head);
        }
        let mut head = [0; 8];
        head[..key.len()].copy_from_slice(key);
        u64::from_be_bytes(head)
    }

    fn head(&self) -> u64 {
        self.head
    }
}

/// Returns the deadline of an entry in milliseconds since 1970, if it has one, and the encoded
/// entry, by its record.
pub(super) fn entry_at(store: &Store, at: Ref) -> (Option<u64>, &[u8]) {
    let (kind, bytes) = store.kind_and_bytes(at);
    kind.and_then(|kind| split_deadline(kind, bytes)).unwrap_or((None, bytes))
}

/// Returns the deadline of an entry, by its record; `None`: it has none.
pub(super) fn until_of(store: &Store, at: Ref) -> Option<u64> {
    entry_at(store, at).0
}

/// Returns the version of an entry's value as stored.
pub(super) fn stored_version(store: &Store) -> impl Fn(&Indexed) -> u32 {
    |entry| store.key(entry.at) as u32
}
