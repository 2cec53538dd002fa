//! The record store: everything that outlives code lies here, as bytes.
//!
//! [`Store::put`], [`Store::delete`], and one [`Store::commit`] a pass. No reference into it is handed out: [`Store::read`]
//! lends the bytes to a closure. What points to a record is a [`Ref`], which its owner keeps.
//!
//! This store lies on the heap. Its interface is the one that a store in shared memory needs, where an update is a new
//! block: so `put` takes the old reference and returns the one to keep.

use std::num::NonZeroU32;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A [`greenroom_state::record::SessionRecord`]; key: session.
    Session,
    /// A session's state, MessagePack; key: session.
    State,
    /// Input that was not a whole message yet; key: session.
    Input,
    /// Output not sent yet; key: session.
    Output,
    /// The names of the topics that a session is on, a line each; key: session.
    Topics,
    /// An entry of a table; key: 0, the entry names its table.
    Entry,
}

/// Points to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ref(NonZeroU32);

/// The store's limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// See the module.
#[derive(Debug)]
pub struct Store {
    blocks: Vec<Block>,
    free: Vec<Ref>,
    epoch: u64,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Block {
    /// `None`: free.
    kind: Option<Kind>,
    key: u64,
    data: Vec<u8>,
}

/// A freed block keeps a buffer up to this size, so that the output of the next reply needs no allocation.
const KEPT_BYTES_MAX: usize = 4096;

impl Store {
    /// An empty store of at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Store {
        Store { blocks: Vec::new(), free: Vec::new(), epoch: 0, bytes: 0, bytes_max }
    }

    /// Bytes in all records.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Passes committed.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Records alive. O(records): for tests and inspection.
    pub fn count(&self, kind: Kind) -> usize {
        self.blocks.iter().filter(|b| b.kind == Some(kind)).count()
    }

    /// Whether `bytes` more would fit.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.bytes.saturating_add(bytes) <= self.bytes_max
    }

    /// Writes a record in place of `old`, and returns the reference to keep. When it is refused, `old` stays.
    pub fn put(&mut self, old: Option<Ref>, kind: Kind, key: u64, bytes: &[u8]) -> Result<Ref, Full> {
        let had = old.map_or(0, |r| self.block(r).data.len());
        if bytes.len() > had && !self.has_room(bytes.len() - had) {
            return Err(Full);
        }
        let r = old.unwrap_or_else(|| self.take());
        let block = self.block_mut(r);
        debug_assert!(
            old.is_none() || (block.kind, block.key) == (Some(kind), key),
            "a record changes its owner"
        );
        (block.kind, block.key) = (Some(kind), key);
        block.data.clear();
        block.data.extend_from_slice(bytes);
        self.bytes = self.bytes - had + bytes.len();
        Ok(r)
    }

    /// Appends to a record.
    pub fn append(&mut self, r: Ref, bytes: &[u8]) -> Result<(), Full> {
        if !self.has_room(bytes.len()) {
            return Err(Full);
        }
        self.block_mut(r).data.extend_from_slice(bytes);
        self.bytes += bytes.len();
        Ok(())
    }

    /// Deletes a record. Never fails, however full the store is.
    pub fn delete(&mut self, r: Ref) {
        let block = self.block_mut(r);
        debug_assert!(block.kind.is_some(), "deleted twice");
        block.kind = None;
        let len = block.data.len();
        if block.data.capacity() > KEPT_BYTES_MAX {
            block.data = Vec::new();
        }
        self.bytes -= len;
        self.free.push(r);
    }

    /// Lends a record's bytes.
    pub fn read<T>(&self, r: Ref, f: impl FnOnce(&[u8]) -> T) -> T {
        let block = self.block(r);
        debug_assert!(block.kind.is_some(), "read after it was deleted");
        f(&block.data)
    }

    /// Makes everything since the last commit count, at once.
    pub fn commit(&mut self) {
        self.epoch += 1;
    }

    fn take(&mut self) -> Ref {
        self.free.pop().unwrap_or_else(|| {
            self.blocks.push(Block { kind: None, key: 0, data: Vec::new() });
            let n = u32::try_from(self.blocks.len()).ok().and_then(NonZeroU32::new);
            Ref(n.expect("store_bytes_max is reached long before 2^32 records"))
        })
    }

    fn block(&self, r: Ref) -> &Block {
        &self.blocks[r.0.get() as usize - 1]
    }

    fn block_mut(&mut self, r: Ref) -> &mut Block {
        &mut self.blocks[r.0.get() as usize - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_store_refuses_and_keeps_what_it_has() {
        let mut s = Store::new(10);
        let a = s.put(None, Kind::State, 1, b"12345678").unwrap();
        assert_eq!(s.put(Some(a), Kind::State, 1, b"12345678901"), Err(Full));
        assert_eq!(s.put(None, Kind::State, 2, b"123"), Err(Full));
        assert_eq!(s.append(a, b"123"), Err(Full));
        s.read(a, |b| assert_eq!(b, b"12345678"));
        s.append(a, b"9").unwrap();
        s.delete(a);
        assert_eq!((s.bytes(), s.count(Kind::State)), (0, 0));
        let b = s.put(None, Kind::State, 2, b"1234567890").unwrap();
        assert_eq!(b, a, "blocks are used again");
    }
}
