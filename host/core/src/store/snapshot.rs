//! Reads a pinned epoch out of memory that its owner goes on writing to.
//!
//! A block that was live at the pinned epoch keeps its bytes, and its birth, until the pin is let go of; only its death may be
//! noted meanwhile. Any other block may be half written. What tells them apart is the birth, which is written before anything
//! else of a block: each slab is read twice, and a block counts if its birth was the same, and early enough, both times.

use super::block::{HEADER, Header, UNBORN};
use super::{
    CLASSES, DIRECTORY_AT, EPOCH_AT, FREE_UNIT, UNIT, header, memory_bytes, slab_blocks, slab_units, units_at,
};

/// Copies a store as it was at a pinned epoch, for [`super::Store::recover`] to read. `len` is how long the memory is, `read` fills
/// a buffer from a place in it.
pub fn copy_at(
    len: usize,
    epoch: u64,
    bytes_max: usize,
    mut read: impl FnMut(usize, &mut [u8]) -> Result<(), String>,
) -> Result<Vec<u8>, String> {
    let mut image = vec![0; len];
    let head = DIRECTORY_AT.min(len);
    read(0, &mut image[..head])?;
    image[EPOCH_AT..EPOCH_AT + 8].copy_from_slice(&epoch.to_le_bytes());
    let (bytes_max, _) = header(&image, bytes_max)?;
    let at = units_at(bytes_max);
    read(DIRECTORY_AT, &mut image[DIRECTORY_AT..at])?;
    let (mut unit, units) = (0, (memory_bytes(bytes_max) - at) / UNIT);
    let mut again = Vec::new();
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
        read(begin, &mut image[begin..end])?;
        again.resize(end - begin, 0);
        read(begin, &mut again)?;
        let mut class_now = [0];
        read(DIRECTORY_AT + unit, &mut class_now)?;
        if class_now[0] != n {
            // It was empty, and became a slab of another class: nothing of the epoch is in it.
            image[begin..end].fill(0);
            unit += slab_units(class);
            continue;
        }
        for i in 0..slab_blocks(class) {
            let block = i * CLASSES[class];
            let born = Header::read(&image[begin..end], block).born;
            if born != Header::read(&again, block).born || born > epoch {
                image[begin + block..begin + block + HEADER].fill(0);
                debug_assert_eq!(UNBORN, 0);
            }
        }
        unit += slab_units(class);
    }
    Ok(image)
}
