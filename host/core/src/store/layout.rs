//! Memory layout: header, directory, units of 64 KiB, size classes.
//!
//! | offset | bytes |
//! | --- | --- |
//! | 0 | magic, number of the layout, limit in bytes (u64 each) |
//! | 64 | epoch (u64): its store commits a pass |
//! | 4096 | directory: one byte for each unit that limit and reserve allow |
//! | `units_at` | units; a slab is one unit, or several adjacent ones |
//!
//! All numbers are little-endian. Header and directory have no checksum. A magic, layout, limit
//! or epoch that cannot be true refuses the whole store; a directory byte that cannot be true
//! is put right by the blocks of its unit, or costs the unit.
//!
//! The limit decides where the first unit begins, so the header states it. A successor whose
//! configuration has another limit still finds the units. The limit of a store never changes.
//!
//! The epoch has a cache line of its own, apart from words that are written once.

use super::block::HEADER;
use std::num::NonZeroU32;

/// Reference to a record: the offset of its block, in steps of 32 bytes. 4 bytes, also as an
/// `Option`.
///
/// A reference stays valid until its record is updated or deleted. A successor gets references
/// of its own from recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ref(NonZeroU32);

/// Error of a write that limit and reserve leave no room for. Nothing has changed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// Step of a reference, in bytes. Every block size is a multiple of it.
pub(super) const GRAIN: usize = 32;
/// Bytes of a unit, the smallest piece of memory that a slab consists of.
pub(super) const UNIT: usize = 64 * 1024;
/// Block sizes in bytes, header included. The third fits a session's record exactly. A size is
/// at most twice the one before, so a record fills more than half of its block, but for the
/// smallest class.
pub(super) const CLASSES: [usize; 18] = [
    64, 96, 160, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131_072, 262_144, 524_288, 1_048_576,
    2_097_152, 4_194_304,
];
/// Longest record, in bytes: the largest block without its header.
pub const RECORD_BYTES_MAX: usize = CLASSES[CLASSES.len() - 1] - HEADER;
/// Largest limit of a store, in bytes. 32-bit references in steps of 32 bytes reach 128 GiB;
/// header and reserve need a part of that.
pub const STORE_BYTES_LIMIT: usize = 127 << 30;
/// Bytes beyond the limit, for records that must not fail when the store is full: those of
/// sessions that continue and close. Reservations never use them.
pub(super) const RESERVE_BYTES: usize = 64 << 20;

/// First bytes of a store. Written last, when the store is made.
pub(super) const MAGIC: &[u8; 8] = b"GREENRM\n";
/// Number of the layout that is written. Layout 1 did not state the limit, which decides where
/// the first unit begins. Both are read.
pub(super) const LAYOUT: u64 = 2;
/// Offset of the magic.
pub(super) const MAGIC_AT: usize = 0;
/// Offset of the layout's number (u64).
pub(super) const LAYOUT_AT: usize = 8;
/// Offset of the limit in bytes (u64).
pub(super) const BYTES_MAX_AT: usize = 16;
/// Directory byte of a unit that belonged to a slab and is free. The byte of a unit that was
/// never used is 0; that of a slab is its class + 1.
pub(super) const FREE_UNIT: u8 = 0xfe;
/// Offset of the epoch (u64, aligned). Its store commits a pass.
pub(super) const EPOCH_AT: usize = 64;
/// Largest epoch that is believed. A million passes a second reach it after two thousand years,
/// so a larger one is damage.
pub(super) const EPOCH_MAX: u64 = 1 << 56;
/// Offset of the directory.
pub(super) const DIRECTORY_AT: usize = 4096;

/// Returns the smallest class whose blocks hold a record of `len` bytes; `None`: the record is
/// too long.
pub(super) fn class_for(len: usize) -> Option<usize> {
    CLASSES.iter().position(|size| *size >= HEADER + len)
}

/// Returns the units of a slab of a class.
pub(super) fn slab_units(class: usize) -> usize {
    CLASSES[class].div_ceil(UNIT)
}

/// Returns the blocks of a slab of a class. A slab of several units has one.
pub(super) fn slab_blocks(class: usize) -> usize {
    (UNIT / CLASSES[class]).max(1)
}

/// Returns the offset of the first unit of a store with this limit. The directory before it has
/// a byte for each unit of limit and reserve.
pub(super) fn units_at(bytes_max: usize) -> usize {
    let units = (bytes_max + RESERVE_BYTES).div_ceil(UNIT);
    (DIRECTORY_AT + units).next_multiple_of(UNIT)
}

/// Returns the bytes of memory that a store with this limit may use: header, directory, limit
/// and reserve. Its [`super::memory::Memory`] must be able to grow to them.
pub fn memory_bytes(bytes_max: usize) -> usize {
    units_at(bytes_max) + (bytes_max + RESERVE_BYTES).next_multiple_of(UNIT)
}

/// Reads limit and epoch of a store. `bytes_max` is the limit of a store whose layout does not
/// state it. Fails if the memory holds no store, a later layout, or a limit or epoch that
/// cannot be true.
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

/// Returns the offset of a block in the memory.
pub(super) fn offset(r: Ref) -> usize {
    r.0.get() as usize * GRAIN
}

/// Returns the reference to the block at an offset, a multiple of [`GRAIN`] beyond the header.
pub(super) fn reference(at: usize) -> Ref {
    let n = u32::try_from(at / GRAIN).ok().and_then(NonZeroU32::new);
    Ref(n.expect("a block lies behind the header and below 128 GiB"))
}
