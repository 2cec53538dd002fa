//! Room for records that are about to be written, counted in blocks of each size class.
//!
//! Whoever writes several records that must not fail adds up their lengths, and reserves the sum.
//! Until something else is written, the store has these blocks. A [`Room`] costs no allocation.

use super::layout::{CLASSES, class_for};

/// Blocks that are wanted. Lengths of records lead to size classes, as a put does.
#[derive(Debug, Default)]
pub(crate) struct Room {
    /// Blocks of each class.
    pub(super) blocks: [usize; CLASSES.len()],
    /// Classes of which any are wanted, a bit each.
    pub(super) classes: u32,
    /// Whether a record is longer than the largest block.
    pub(super) is_too_long: bool,
}

impl Room {
    /// Adds so many records of a length.
    #[inline]
    pub(crate) fn add(&mut self, len: usize, times: usize) {
        if times == 0 {
            return;
        }
        match class_for(len) {
            Some(class) => {
                self.blocks[class] += times;
                self.classes |= 1 << class;
            }
            None => self.is_too_long = true,
        }
    }
}
