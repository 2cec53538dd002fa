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
//! Readers are rehearsals, the trial of an upgrade, and saves, which copy nothing. They run in
//! other threads or processes, stop nobody, and allocate the copy themselves. The owner answers at
//! the unpin whether the pin was held all the time; if not, the reader discards what it has.
//!
//! The copy is a store, which [`crate::store::records::Store::recover`] reads as any other. A
//! format of its own would need a second decoder.

use super::block::{self, HEADER, Header, UNBORN};
use super::kind::Kind;
use super::layout::{
    CLASSES, DIRECTORY_AT, EPOCH_AT, FREE_UNIT, STORE_BYTES_LIMIT, UNIT, header, memory_bytes, slab_blocks,
    slab_units, units_at,
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
    let head = Head::read(len, bytes_max, &mut read)?;
    let at = head.bytes.len();
    // Zeroed memory fresh from the system: pages that nothing is copied to are never made.
    let mut image = vec![0; len];
    image[..at].copy_from_slice(&head.bytes);
    // The owner may have committed since. With the pinned epoch in the header, recovery undoes
    // the deaths after it.
    image[EPOCH_AT..EPOCH_AT + 8].copy_from_slice(&epoch.to_le_bytes());
    let end = walk(&head, len, read, |slab| {
        let mut kept = false;
        for (offset, header, block) in slab.live_at(epoch) {
            if seen(&header, block).is_none_or(|s| keeps(&s)) {
                image[slab.begin + offset..][..block.len()].copy_from_slice(block);
                kept = true;
            }
        }
        if !kept {
            // Recovery of the copy skips the slab. Its pages stay without memory.
            image[DIRECTORY_AT + slab.unit..][..slab_units(slab.class)].fill(FREE_UNIT);
        }
        Ok(())
    })?;
    image[(DIRECTORY_AT + end).min(at)..at].fill(0);
    Ok(image)
}

/// Shows each record of a store as it was at a pinned epoch, in no order. Arguments and failures
/// are those of [`copy_at`]; an error of `each` ends the walk, too. A block that cannot be decoded
/// is left out.
///
/// Reads the memory in use twice, and holds two slabs of it at a time.
pub fn each_at(
    len: usize,
    epoch: u64,
    bytes_max: usize,
    mut read: impl FnMut(usize, &mut [u8]) -> Result<(), String>,
    mut each: impl FnMut(&Seen<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let head = Head::read(len, bytes_max, &mut read)?;
    let walked = walk(&head, len, read, |slab| {
        slab.live_at(epoch).filter_map(|(_, header, block)| seen(&header, block)).try_for_each(|s| each(&s))
    });
    walked.map(|_| ())
}

/// Begin of the memory: header and directory of slabs.
struct Head {
    bytes: Vec<u8>,
    /// Units behind it.
    units: usize,
}

impl Head {
    fn read(
        len: usize,
        bytes_max: usize,
        read: &mut impl FnMut(usize, &mut [u8]) -> Result<(), String>,
    ) -> Result<Head, String> {
        let mut bytes = vec![0; units_at(STORE_BYTES_LIMIT).min(len)];
        read(0, &mut bytes)?;
        let (bytes_max, _) = header(&bytes, bytes_max)?;
        let at = units_at(bytes_max);
        bytes.truncate(at);
        Ok(Head { bytes, units: (memory_bytes(bytes_max) - at) / UNIT })
    }
}

/// A slab, read twice. If it became one of another class meanwhile, no block of the epoch is in it.
struct Slab<'a> {
    /// First unit of the slab.
    unit: usize,
    class: usize,
    /// Offset of the slab in the memory.
    begin: usize,
    bytes: &'a [u8],
    again: &'a [u8],
    /// The class is the same still.
    stands: bool,
}

impl<'a> Slab<'a> {
    /// Blocks that were live at an epoch: offset in the slab, header, bytes.
    fn live_at(&self, epoch: u64) -> impl Iterator<Item = (usize, Header, &'a [u8])> {
        let Slab { class, bytes, again, stands, .. } = *self;
        let blocks = if stands { slab_blocks(class) } else { 0 };
        (0..blocks).map(move |i| i * CLASSES[class]).filter_map(move |at| {
            let header = Header::read(bytes, at);
            // The comparison of births excludes a block that was filled between the two reads.
            let stood = header.born == Header::read(again, at).born;
            (stood && is_live(&header, epoch)).then(|| (at, header, &bytes[at..at + CLASSES[class]]))
        })
    }
}

/// Reads slab after slab. Returns the unit behind the last one.
fn walk(
    head: &Head,
    len: usize,
    mut read: impl FnMut(usize, &mut [u8]) -> Result<(), String>,
    mut each: impl FnMut(&Slab<'_>) -> Result<(), String>,
) -> Result<usize, String> {
    let at = head.bytes.len();
    let (mut bytes, mut again) = (Vec::new(), Vec::new());
    let mut unit = 0;
    while unit < head.units {
        let n = head.bytes[DIRECTORY_AT + unit];
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
            break;
        }
        bytes.resize(end - begin, 0);
        read(begin, &mut bytes)?;
        again.resize(end - begin, 0);
        read(begin, &mut again)?;
        // The directory was read once, at the beginning. If the entry differs by now, the slab
        // was empty and became one of another class.
        let mut class_now = [0];
        read(DIRECTORY_AT + unit, &mut class_now)?;
        each(&Slab { unit, class, begin, bytes: &bytes, again: &again, stands: class_now[0] == n })?;
        unit += slab_units(class);
    }
    Ok(unit)
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
