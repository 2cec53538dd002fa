//! Reads a pinned epoch out of memory that its owner goes on writing to.
//!
//! A block that was live at the pinned epoch keeps its bytes, and its birth, until the pin is let
//! go of; only its death may be noted meanwhile. Any other block may be half written. What tells
//! them apart is the birth, which is written before anything else of a block: each slab is read
//! twice, and a block counts if its birth was the same, and early enough, both times.

use super::block::{self, HEADER, Header, UNBORN};
use super::kind::Kind;
use super::layout::{
    CLASSES, DIRECTORY_AT, EPOCH_AT, FREE_UNIT, UNIT, header, memory_bytes, slab_blocks, slab_units, units_at,
};

/// A record that was live at the pinned epoch.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// What it is.
    pub kind: Kind,
    /// Whose it is.
    pub key: u64,
    /// What it holds.
    pub bytes: &'a [u8],
    sum: u32,
}

impl Seen<'_> {
    /// Whether its checksum says that this is what was written.
    pub fn is_whole(&self) -> bool {
        block::sum(self.kind as u8, self.key, self.bytes) == self.sum
    }
}

/// Copies a store as it was at a pinned epoch, for [`crate::store::records::Store::recover`] to
/// read. `len` is how long the memory is, `read` fills a buffer from a place in it. What `keeps`
/// doesn't want is left out, and costs no memory; what isn't fit to be shown to it stays.
pub fn copy_at(
    len: usize,
    epoch: u64,
    bytes_max: usize,
    mut read: impl FnMut(usize, &mut [u8]) -> Result<(), String>,
    mut keeps: impl FnMut(&Seen<'_>) -> bool,
) -> Result<Vec<u8>, String> {
    // Zero, and fresh from the system: pages that nothing is copied to are never made.
    let mut image = vec![0; len];
    let head = DIRECTORY_AT.min(len);
    read(0, &mut image[..head])?;
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
            // Grown after the pin, so nothing of the epoch is in it.
            image[DIRECTORY_AT + unit..at].fill(0);
            break;
        }
        slab.resize(end - begin, 0);
        read(begin, &mut slab)?;
        again.resize(end - begin, 0);
        read(begin, &mut again)?;
        let mut class_now = [0];
        read(DIRECTORY_AT + unit, &mut class_now)?;
        let mut kept = false;
        // Otherwise it was empty, and became a slab of another class: nothing of the epoch is in
        // it.
        if class_now[0] == n {
            for at in (0..slab_blocks(class)).map(|i| i * CLASSES[class]) {
                let header = Header::read(&slab, at);
                let block = &slab[at..at + CLASSES[class]];
                let stood = header.born == Header::read(&again, at).born;
                if stood && is_live(&header, epoch) && seen(&header, block).is_none_or(|s| keeps(&s)) {
                    image[begin + at..][..block.len()].copy_from_slice(block);
                    kept = true;
                }
            }
        }
        if !kept {
            // Whoever recovers the copy need not look for it.
            image[DIRECTORY_AT + unit..][..slab_units(class)].fill(FREE_UNIT);
        }
        unit += slab_units(class);
    }
    Ok(image)
}

fn is_live(header: &Header, epoch: u64) -> bool {
    header.born != UNBORN && header.born <= epoch && epoch < header.dead
}

/// A live block as it is shown; `None`: it is damaged.
fn seen<'a>(header: &Header, block: &'a [u8]) -> Option<Seen<'a>> {
    let bytes = block.get(HEADER..HEADER + header.len as usize)?;
    Some(Seen { kind: Kind::from_number(header.kind)?, key: header.key, bytes, sum: header.sum })
}
