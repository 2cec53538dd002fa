//! A block's header: when it is valid, whose it is, and a checksum.

use crate::store::memory::Memory;

/// Bytes of a header: born and dead (u64), key (u64), length and kind (u32), sum (u32).
pub(super) const HEADER: usize = 32;
/// `born` of a block that holds nothing. Fresh memory is zero, and epochs count from 1.
pub(super) const UNBORN: u64 = 0;
/// `dead` of a block that nobody deleted.
pub(super) const UNTIL_DELETED: u64 = u64::MAX;

const LEN_BITS: u32 = 24;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) born: u64,
    pub(super) dead: u64,
    pub(super) key: u64,
    pub(super) kind: u8,
    pub(super) len: u32,
    pub(super) sum: u32,
}

impl Header {
    #[inline]
    pub(super) fn read(bytes: &[u8], at: usize) -> Header {
        let b: &[u8; HEADER] = bytes[at..at + HEADER].try_into().expect("the range has this length");
        let word = |i: usize| u64::from_le_bytes(std::array::from_fn(|k| b[i + k]));
        let half = |i: usize| u32::from_le_bytes(std::array::from_fn(|k| b[i + k]));
        let tag = half(24);
        Header {
            born: word(0),
            dead: word(8),
            key: word(16),
            kind: (tag >> LEN_BITS) as u8,
            len: tag & ((1 << LEN_BITS) - 1),
            sum: half(28),
        }
    }

    /// Writes all but `born`, which was written before and keeps the block invalid meanwhile.
    #[inline]
    pub(super) fn write_rest(&self, memory: &mut dyn Memory, at: usize) {
        let mut b = [0; HEADER - 8];
        b[..8].copy_from_slice(&self.dead.to_le_bytes());
        b[8..16].copy_from_slice(&self.key.to_le_bytes());
        b[16..20].copy_from_slice(&(self.len | u32::from(self.kind) << LEN_BITS).to_le_bytes());
        b[20..].copy_from_slice(&self.sum.to_le_bytes());
        memory.write(at + 8, &b);
    }
}

/// The checksum: CRC-32 of the bytes, mixed with what else must not change.
#[inline]
pub(super) fn sum(kind: u8, key: u64, bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes) ^ mix(kind, key, bytes.len() as u32)
}

/// The checksum of a block to which `more` was appended.
pub(super) fn extend_sum(header: &Header, more: &[u8]) -> u32 {
    let before = header.sum ^ mix(header.kind, header.key, header.len);
    let mut crc = crc32fast::Hasher::new_with_initial(before);
    crc.update(more);
    crc.finalize() ^ mix(header.kind, header.key, header.len + more.len() as u32)
}

#[inline]
fn mix(kind: u8, key: u64, len: u32) -> u32 {
    let x = (key ^ u64::from(len) << 32 ^ u64::from(kind) << 24).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x ^ (x >> 32)) as u32
}
