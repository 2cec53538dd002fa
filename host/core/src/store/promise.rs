//! Promise: the blocks that a reservation still has, checked by builds with assertions.
//!
//! A reservation counts blocks by size class. A record of another class than the one reserved
//! would use up the store's reserve, which is for records that must not fail. So whoever reserves
//! lists the records, and each block taken until the end must be among them. Other builds check
//! nothing and store nothing.

#[cfg(debug_assertions)]
use super::layout::CLASSES;
use super::room::Room;

/// Blocks of each class that may be taken; none are counted outside a promise.
#[derive(Debug, Default)]
pub(super) struct Promise {
    #[cfg(debug_assertions)]
    blocks: Option<[usize; CLASSES.len()]>,
}

impl Promise {
    /// Begins with the blocks of this room.
    #[inline]
    pub(super) fn begin(&mut self, room: &Room) {
        #[cfg(debug_assertions)]
        {
            self.blocks = Some(room.blocks);
        }
        let _ = room;
    }

    /// Ends what [`Promise::begin`] began.
    #[inline]
    pub(super) fn end(&mut self) {
        #[cfg(debug_assertions)]
        {
            self.blocks = None;
        }
    }

    /// Counts a block that is taken. Panics in a build with assertions if it was not promised.
    #[inline]
    pub(super) fn take(&mut self, class: usize) {
        #[cfg(debug_assertions)]
        if let Some(blocks) = &mut self.blocks {
            assert!(blocks[class] > 0, "a record of {} bytes was not reserved", CLASSES[class]);
            blocks[class] -= 1;
        }
        let _ = class;
    }
}
