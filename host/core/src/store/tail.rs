//! Tail of a record: bytes that grow behind its payload, in the same block.
//!
//! A record that grows by a byte at a time would be written anew each time, as a whole. A tail is
//! appended in place: no committed epoch and no reader of a pinned one looks behind the bytes that
//! its own [`Tail`] names. The caller keeps that in a record of its own, with a checksum, as the
//! checksum of the block leaves the tail out.
//!
//! The caller alone knows the tail. An update or a deletion of the record ends it.

use super::block::{self, HEADER, Header};
use super::layout::{CLASSES, Ref, offset};
use super::records::Store;

/// Bytes behind a record's payload that count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tail {
    /// Number of the bytes.
    len: u32,
    /// CRC-32 of them.
    crc: u32,
}

impl Tail {
    /// Bytes of an encoded tail.
    pub(crate) const BYTES: usize = 8;

    /// Encodes the tail: length and checksum, little-endian.
    pub(crate) fn encode(self) -> [u8; Tail::BYTES] {
        let mut bytes = [0; Tail::BYTES];
        bytes[..4].copy_from_slice(&self.len.to_le_bytes());
        bytes[4..].copy_from_slice(&self.crc.to_le_bytes());
        bytes
    }

    /// Decodes a tail. `None`: the bytes are none.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Tail> {
        let bytes: &[u8; Tail::BYTES] = bytes.try_into().ok()?;
        let half = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        Some(Tail { len: half(0), crc: half(4) })
    }
}

impl Store {
    /// Appends bytes to the tail of a record, and returns the longer tail. It counts once the
    /// caller has put it. `None`: the block has no room, and nothing has changed. O(bytes).
    pub(crate) fn extend_tail(&mut self, r: Ref, tail: Tail, bytes: &[u8]) -> Option<Tail> {
        let at = offset(r);
        let end = HEADER + Header::read(self.memory.bytes(), at).len as usize + tail.len as usize;
        if end + bytes.len() > CLASSES[self.class_of(r)] {
            return None;
        }
        self.memory.write(at + end, bytes);
        Some(Tail { len: tail.len + bytes.len() as u32, crc: block::extend_crc(tail.crc, bytes) })
    }

    /// Payload of a record and its tail, in one piece.
    pub(crate) fn bytes_with_tail(&self, r: Ref, tail: Tail) -> &[u8] {
        let (at, len) = (offset(r) + HEADER, self.bytes_of(r).len() + tail.len as usize);
        &self.memory.bytes()[at..at + len]
    }

    /// Whether a tail that recovery found lies in the block, and has the bytes that were appended.
    /// O(bytes of the tail).
    pub(crate) fn has_tail(&self, r: Ref, tail: Tail) -> bool {
        let len = self.bytes_of(r).len();
        HEADER + len + tail.len as usize <= CLASSES[self.class_of(r)]
            && block::extend_crc(0, &self.bytes_with_tail(r, tail)[len..]) == tail.crc
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::kind::Kind;

    #[test]
    fn a_tail_grows_in_its_block_and_damage_is_found() {
        let mut store = Store::new(1 << 20);
        let r = store.put(None, Kind::Input, 1, &[7; 600]).unwrap();
        store.commit();
        let mut tail = Tail::default();
        // The block has 1,024 bytes, 32 of which are its header.
        for n in 0..392 {
            tail = store.extend_tail(r, tail, &[n as u8]).unwrap();
        }
        assert_eq!(store.extend_tail(r, tail, &[0]), None);
        let bytes = store.bytes_with_tail(r, tail);
        assert_eq!((bytes.len(), bytes[599], bytes[600], bytes[991]), (992, 7, 0, 391_u32 as u8));
        assert_eq!(store.read(r, <[u8]>::len), 600, "the record itself is as it was");
        assert_eq!(Tail::decode(&tail.encode()), Some(tail));
        assert!(store.has_tail(r, tail) && !store.has_tail(r, Tail { len: 393, ..tail }));
        // An earlier tail is whole, too: a reader of an earlier epoch has that one.
        assert!(store.has_tail(r, Tail::default()));
        assert!(!store.has_tail(r, Tail { crc: tail.crc ^ 1, ..tail }));
    }
}
