//! Snapshot: a pinned epoch, copied out of memory that its owner goes on writing to.
//!
//! A block that was live at the pinned epoch keeps its bytes and its birth until the pin is
//! removed. Only its death may be noted meanwhile, and recovery undoes that. Any other block
//! may be half written.
//!
//! The birth tells them apart, because it is written before anything else of a block. Each slab
//! is read twice. A block counts if its birth was the same both times, and at or before the
//! epoch.
//!
//! Readers are rehearsals, saves and the trial of an upgrade. They run in other threads or
//! processes, stop nobody, and allocate the copy themselves. The owner answers at the unpin
//! whether the pin was held all the time; if not, the reader discards what it has.
//!
//! The copy is a store, which [`crate::store::records::Store::recover`] reads as any other. A
//! format of its own would need a second decoder.

use super::block::{self, HEADER, Header, UNBORN};
use super::kind::Kind;
use super::layout::{
    CLASSES, DIRECTORY_AT, EPOCH_AT, FREE_UNIT, UNIT, header, memory_bytes, slab_blocks, slab_units, units_at,
};

/// Record that was live at the pinned epoch, as a filter sees it.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Kind of the record.
    pub kind: Kind,
    /// Key that the record was written under.
    pub key: u64,
    /// Payload of the record.
    pub bytes: &'a [u8],
    /// Version of the format of `bytes`.
    version: u8,
    /// Checksum as stored.
    sum: u32,
}

impl Seen<'_> {
    /// Returns whether the checksum is right: the bytes are those that were written. O(bytes).
    pub fn is_whole(&self) -> bool {
        block::sum(self.kind as u8, self.version, self.key, self.bytes) == self.sum
    }
}

/// Copies a store as it was at a pinned epoch, for [`crate::store::records::Store::recover`] to
/// read.
///
/// The caller takes `len`, the bytes of the memory, after the pin. A call of `read` fills a
/// buffer from an offset in the memory. If the store's layout does not state its limit,
/// `bytes_max` counts.
///
/// A record that `keeps` does not want is left out, and costs no memory. A live block that
/// cannot be shown to `keeps` stays, so that recovery names it.
///
/// Fails if `read` does, or if the memory holds no store. Reads the memory in use twice; the
/// result has `len` bytes, of which only pages with kept blocks take memory.
pub fn copy_at(
    len: usize,
    epoch: u64,
    bytes_max: usize,
    mut read: impl FnMut(usize, &mut [u8]) -> Result<(), String>,
    mut keeps: impl FnMut(&Seen<'_>) -> bool,
) -> Result<Vec<u8>, String> {
    // Zeroed memory fresh from the system: pages that nothing is copied to are never made.
    let mut image = vec![0; len];
    let head = DIRECTORY_AT.min(len);
    read(0, &mut image[..head])?;
    // The owner may have committed since. With the pinned epoch in the header, recovery undoes
    // the deaths after it.
    image[EPOCH_AT..EPOCH_AT + 8].copy_from_slice(&epoch.to_le_bytes());
    let (bytes_max, _) = header(&image, bytes_max)?;
    let at = units_at(bytes_max);
    read(DIRECTORY_AT, &mut image[DIRECTORY_AT..at])?;
    let (mut unit, units) = (0, (memory_bytes(bytes_max) - at) / UNIT);
    let (mut slab, mut again) = (Vec::new(), Vec::new());
    while unit < units {
        let n = image[DIRECTORY_AT + unit];
        if n == 0 {
            break;
        }
        if n == FREE_UNIT || usize::from(n) > CLASSES.len() {
            unit += 1;
            continue;
        }
        let class = usize::from(n) - 1;
        let (begin, end) = (at + unit * UNIT, at + (unit + slab_units(class)) * UNIT);
        if end > len {
            // The memory has grown since `len` was taken, so nothing of the epoch is in the slab.
            image[DIRECTORY_AT + unit..at].fill(0);
            break;
        }
        slab.resize(end - begin, 0);
        read(begin, &mut slab)?;
        again.resize(end - begin, 0);
        read(begin, &mut again)?;
        // The directory was read once, at the beginning. If the entry differs by now, the slab
        // was empty and became one of another class: no block of the epoch is in it.
        let mut class_now = [0];
        read(DIRECTORY_AT + unit, &mut class_now)?;
        let mut kept = false;
        if class_now[0] == n {
            for at in (0..slab_blocks(class)).map(|i| i * CLASSES[class]) {
                let header = Header::read(&slab, at);
                let block = &slab[at..at + CLASSES[class]];
                // The comparison of births excludes a block that was filled between the two
                // reads.
                let stood = header.born == Header::read(&again, at).born;
                if stood && is_live(&header, epoch) && seen(&header, block).is_none_or(|s| keeps(&s)) {
                    image[begin + at..][..block.len()].copy_from_slice(block);
                    kept = true;
                }
            }
        }
        if !kept {
            // Recovery of the copy skips the slab. Its pages stay without memory.
            image[DIRECTORY_AT + unit..][..slab_units(class)].fill(FREE_UNIT);
        }
        unit += slab_units(class);
    }
    Ok(image)
}

/// Returns whether a block was live at an epoch. A death after it may be noted already.
fn is_live(header: &Header, epoch: u64) -> bool {
    header.born != UNBORN && header.born <= epoch && epoch < header.dead
}

/// Decodes a live block for the filter; `None`: its length or kind cannot be true.
fn seen<'a>(header: &Header, block: &'a [u8]) -> Option<Seen<'a>> {
    let bytes = block.get(HEADER..HEADER + header.len as usize)?;
    let Header { version, key, sum, .. } = *header;
    // A format of a later build means nothing to the reader.
    let kind = Kind::from_number(header.kind).filter(|k| version <= k.version())?;
    Some(Seen { kind, key, bytes, version, sum })
}
