//! Memory layout: header, directory, units of 64 KiB, size classes.

use super::block::HEADER;
use std::num::NonZeroU32;

/// Points to a record: its place, in steps of 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ref(NonZeroU32);

/// The store's limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

pub(super) const GRAIN: usize = 32;
pub(super) const UNIT: usize = 64 * 1024;
/// Block sizes, header included. The third fits a session's record exactly.
pub(super) const CLASSES: [usize; 18] = [
    64, 96, 160, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131_072, 262_144, 524_288, 1_048_576,
    2_097_152, 4_194_304,
];
/// The longest record, in bytes.
pub const RECORD_BYTES_MAX: usize = CLASSES[CLASSES.len() - 1] - HEADER;
/// The largest limit of a store: 32-bit references in steps of 32 bytes reach 128 GiB, less header
/// and reserve.
pub const STORE_BYTES_LIMIT: usize = 127 << 30;
/// Memory beyond the limit, for what must not fail when the store is full: the records of sessions
/// that go on and close.
pub(super) const RESERVE_BYTES: usize = 64 << 20;

pub(super) const MAGIC: &[u8; 8] = b"GREENRM\n";
/// 1 did not state the limit, which decides where the first unit begins. Both are read.
pub(super) const LAYOUT: u64 = 2;
pub(super) const MAGIC_AT: usize = 0;
pub(super) const LAYOUT_AT: usize = 8;
pub(super) const BYTES_MAX_AT: usize = 16;
/// In the directory: a unit that belonged to a slab and is free. Units that were never used are 0.
pub(super) const FREE_UNIT: u8 = 0xfe;
pub(super) const EPOCH_AT: usize = 64;
/// Centuries of a million passes a second: an epoch beyond it was never reached.
pub(super) const EPOCH_MAX: u64 = 1 << 56;
pub(super) const DIRECTORY_AT: usize = 4096;

pub(super) fn class_for(len: usize) -> Option<usize> {
    CLASSES.iter().position(|size| *size >= HEADER + len)
}

pub(super) fn slab_units(class: usize) -> usize {
    CLASSES[class].div_ceil(UNIT)
}

pub(super) fn slab_blocks(class: usize) -> usize {
    (UNIT / CLASSES[class]).max(1)
}

pub(super) fn units_at(bytes_max: usize) -> usize {
    let units = (bytes_max + RESERVE_BYTES).div_ceil(UNIT);
    (DIRECTORY_AT + units).next_multiple_of(UNIT)
}

/// How much memory a store with this limit may use: what its [`super::memory::Memory`] must be able
/// to grow to.
pub fn memory_bytes(bytes_max: usize) -> usize {
    units_at(bytes_max) + (bytes_max + RESERVE_BYTES).next_multiple_of(UNIT)
}

/// Reads the limit and the epoch of a store. `bytes_max` is the limit of one whose layout didn't
/// state it.
pub(super) fn header(bytes: &[u8], bytes_max: usize) -> Result<(usize, u64), String> {
    if bytes.len() < DIRECTORY_AT {
        return Err("the memory is smaller than a store's header".into());
    }
    if &bytes[MAGIC_AT..MAGIC_AT + 8] != MAGIC {
        return Err("the memory holds no store".into());
    }
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    let bytes_max = match word(LAYOUT_AT) {
        1 => bytes_max,
        2 => word(BYTES_MAX_AT) as usize,
        other => return Err(format!("the store has layout {other}, this version reads 1 and {LAYOUT}")),
    };
    if bytes_max > STORE_BYTES_LIMIT || bytes.len() < units_at(bytes_max) {
        return Err(format!("the store's limit is damaged: {bytes_max}"));
    }
    let epoch = word(EPOCH_AT);
    if epoch > EPOCH_MAX {
        return Err(format!("the store's epoch is damaged: {epoch:#x}"));
    }
    Ok((bytes_max, epoch))
}

pub(super) fn offset(r: Ref) -> usize {
    r.0.get() as usize * GRAIN
}

pub(super) fn reference(at: usize) -> Ref {
    let n = u32::try_from(at / GRAIN).ok().and_then(NonZeroU32::new);
    Ref(n.expect("a block lies behind the header and below 128 GiB"))
}
