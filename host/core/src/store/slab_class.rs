//! Class of a slab whose directory byte is damaged, judged by the blocks.
//!
//! A page of the directory tells the classes of 256 MiB of records, and has no checksum. Each live
//! block has one, and the length in its header tells the class that a put has chosen.
//!
//! A free unit is never judged: what lies there was written by peers, too, and may look like
//! blocks.

use super::block::{self, HEADER, Header, UNBORN};
use super::layout::{CLASSES, UNIT, class_for, slab_blocks, slab_units};
use super::records::Store;

impl Store {
    /// Returns whether the first live block of a slab is none of its class: the block or the class
    /// is damaged. O(blocks) and a checksum; for most slabs O(1).
    pub(super) fn may_be_of_another_class(&self, begin: usize, class: usize) -> bool {
        let first = self.live_blocks(begin, class).next();
        first.is_some_and(|(at, header)| !self.is_of(at, &header, class))
    }

    /// Returns the class that the most live blocks from an offset on have. Among equals `written`
    /// counts, the class in the directory. `None`: no block has one. O(classes × bytes of the
    /// slab).
    pub(super) fn class_by_blocks(&self, begin: usize, written: Option<usize>) -> Option<usize> {
        let (mut best, mut most) = (None, 0);
        for class in written.into_iter().chain(0..CLASSES.len()) {
            if !self.has_memory_for(begin, class) {
                continue;
            }
            let blocks = self.live_blocks(begin, class);
            let whole = blocks.filter(|(at, header)| self.is_of(*at, header, class)).count();
            if whole > most {
                (best, most) = (Some(class), whole);
            }
        }
        best
    }

    /// Returns whether the memory reaches to the end of a slab.
    pub(super) fn has_memory_for(&self, begin: usize, class: usize) -> bool {
        begin + slab_units(class) * UNIT <= self.memory.bytes().len()
    }

    /// Returns whether a block has the class that a put chooses for its length, and its checksum is
    /// right.
    fn is_of(&self, at: usize, header: &Header, class: usize) -> bool {
        let payload = at + HEADER..at + HEADER + header.len as usize;
        class_for(header.len as usize) == Some(class)
            && block::sum(header.kind, header.version, header.key, &self.memory.bytes()[payload])
                == header.sum
    }

    /// Blocks of a slab that are live as of the last commit, by their births and deaths.
    fn live_blocks(&self, begin: usize, class: usize) -> impl Iterator<Item = (usize, Header)> {
        let all = (0..slab_blocks(class)).map(move |i| begin + i * CLASSES[class]);
        all.map(|at| (at, Header::read(self.memory.bytes(), at)))
            .filter(|(_, h)| h.born != UNBORN && h.born <= self.epoch && h.dead > self.epoch)
    }
}
