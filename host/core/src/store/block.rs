//! Block header: the epochs at which a block is valid, its owner, and a checksum.
//!
//! | bytes | field |
//! | --- | --- |
//! | 0 to 7 | born: epoch from which the block is live |
//! | 8 to 15 | dead: epoch from which the block is dead |
//! | 16 to 23 | key of the record |
//! | 24 to 27 | kind (top 8 bits), version of the format (2), length (22) |
//! | 28 to 31 | checksum |
//!
//! All numbers are little-endian, and the payload follows. The checksum covers payload, kind,
//! version, key and length. Born and dead stay outside, so a deletion changes one word; a
//! damaged birth or death is not found out.
//!
//! The checksum finds damage, not attacks. CRC-32 can be extended when bytes are appended.

use crate::store::memory::HEAD_BYTES;
use crc32fast::Hasher;
use std::sync::LazyLock;

/// Bytes of a header: born and dead (u64), key (u64), length, version and kind (u32), sum
/// (u32).
pub(super) const HEADER: usize = 32;
/// Place of all but `born` in a header.
pub(super) const REST_AT: usize = HEADER - HEAD_BYTES;
/// `born` of a block that holds nothing. Fresh memory is zero, and epochs count from 1.
pub(super) const UNBORN: u64 = 0;
/// `dead` of a block that no caller has deleted. No epoch reaches it.
pub(super) const UNTIL_DELETED: u64 = u64::MAX;

/// Bits of the length. The longest record has 32 bytes less than 4 MiB.
const LEN_BITS: u32 = 22;
/// Bits of the version.
const VERSION_BITS: u32 = 2;
/// Latest version of a record's format that a header can state. A kind that has used up its
/// versions continues as a kind of another number.
pub(super) const VERSION_MAX: u8 = (1 << VERSION_BITS) - 1;

/// Header of a block, decoded. The module has the layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// First epoch at which the block is live; [`UNBORN`]: none.
    pub(super) born: u64,
    /// First epoch at which the block is dead; [`UNTIL_DELETED`]: none.
    pub(super) dead: u64,
    /// Key of the record, by which its part finds it after a crash.
    pub(super) key: u64,
    /// Number of the kind. May be unknown in memory that a later build has written.
    pub(super) kind: u8,
    /// Version of the format of the record's bytes: at most [`VERSION_MAX`].
    pub(super) version: u8,
    /// Bytes of the payload. May be too large for the block if the memory is damaged.
    pub(super) len: u32,
    /// Checksum.
    pub(super) sum: u32,
}

impl Header {
    /// Decodes the header at an offset. Any bytes decode; the caller checks what it relies on.
    /// Panics if the memory ends before the header does.
    #[inline(always)]
    pub(super) fn read(bytes: &[u8], at: usize) -> Header {
        let b: &[u8; HEADER] = bytes[at..at + HEADER].try_into().expect("the range has this length");
        let tag = half(b, 24);
        Header {
            born: word(b, 0),
            dead: word(b, 8),
            key: word(b, 16),
            kind: (tag >> (LEN_BITS + VERSION_BITS)) as u8,
            version: (tag >> LEN_BITS) as u8 & VERSION_MAX,
            len: tag & ((1 << LEN_BITS) - 1),
            sum: half(b, 28),
        }
    }

    /// Encodes all but `born`, to be written at [`REST_AT`] of a block. The caller has written a
    /// birth after the last commit, which keeps the block invalid meanwhile.
    #[inline]
    pub(super) fn rest(&self) -> [u8; HEAD_BYTES] {
        let mut b = [0; HEAD_BYTES];
        b[..8].copy_from_slice(&self.dead.to_le_bytes());
        b[8..16].copy_from_slice(&self.key.to_le_bytes());
        let version_and_kind = u32::from(self.version) | u32::from(self.kind) << VERSION_BITS;
        b[16..20].copy_from_slice(&(self.len | version_and_kind << LEN_BITS).to_le_bytes());
        b[20..].copy_from_slice(&self.sum.to_le_bytes());
        b
    }
}

/// Decodes four bytes of a header. With little optimization a scan takes twice as long if this is
/// a call, or if the bytes are made an array first.
#[inline(always)]
fn half(b: &[u8; HEADER], i: usize) -> u32 {
    b[i] as u32 | (b[i + 1] as u32) << 8 | (b[i + 2] as u32) << 16 | (b[i + 3] as u32) << 24
}

/// Decodes eight bytes of a header.
#[inline(always)]
fn word(b: &[u8; HEADER], i: usize) -> u64 {
    u64::from(half(b, i)) | u64::from(half(b, i + 4)) << 32
}

/// Computes the checksum: CRC-32 of the payload, mixed with what else must not change.
/// O(bytes).
#[inline]
pub(super) fn sum(kind: u8, version: u8, key: u64, bytes: &[u8]) -> u32 {
    let mut hasher = FRESH.clone();
    hasher.update(bytes);
    hasher.finalize() ^ mix(kind, version, key, bytes.len() as u32)
}

/// Computes the checksum of a block to which `more` was appended. `header` is the one before.
/// O(bytes of `more`): the payload before is not read.
pub(super) fn extend_sum(header: &Header, more: &[u8]) -> u32 {
    let before = header.sum ^ mix(header.kind, header.version, header.key, header.len);
    let mut crc = Hasher::new_with_initial(before);
    crc.update(more);
    crc.finalize() ^ mix(header.kind, header.version, header.key, header.len + more.len() as u32)
}

/// Computes the CRC-32 of bytes that follow those of `crc`; 0: of none. O(bytes).
pub(super) fn extend_crc(crc: u32, bytes: &[u8]) -> u32 {
    let mut hasher = if crc == 0 { FRESH.clone() } else { Hasher::new_with_initial(crc) };
    hasher.update(bytes);
    hasher.finalize()
}

/// Hasher that has read nothing. A new one would ask the processor for its features each time,
/// which costs more than the sum of a short record.
static FRESH: LazyLock<Hasher> = LazyLock::new(Hasher::new);

/// Hashes kind, version, key and length into 32 bits.
#[inline]
fn mix(kind: u8, version: u8, key: u64, len: u32) -> u32 {
    // Version 0 adds nothing. Blocks of builds that know no versions have the sums of version
    // 0.
    let x = (key ^ u64::from(len) << 32 ^ u64::from(kind) << 24 ^ u64::from(version) << 22)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x ^ (x >> 32)) as u32
}
