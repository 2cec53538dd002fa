//! Pins: epochs that readers outside the core read, and the blocks that are held for them.
//!
//! A reader (a rehearsal, a save, the trial of an upgrade) copies the memory file while the
//! worker goes on. A block that dies after the pinned epoch is held: its bytes stay until the
//! pin is removed.
//!
//! - A block is held if pins or held blocks exist when it dies, even if no reader needs it.
//! - A held block may be freed once it died no later than the oldest pinned epoch. Each commit
//!   frees some.
//! - If the held bytes exceed their limit, all pins are given up. The readers learn of it at
//!   their unpin; the loop never waits for them.
//!
//! Pins lie on the heap and end with the process. A successor begins without any, so an unpin
//! of a predecessor's pin fails there.
//!
//! The alternative, a copy of the memory at the pin, would stop the loop for its length.

use crate::store::layout::Ref;
use std::collections::{BTreeMap, VecDeque};

/// Readers by epoch, and the held blocks.
#[derive(Default)]
pub(super) struct Pins {
    /// Readers of each pinned epoch. An epoch without readers is not in the map, so the first
    /// key is the oldest pin.
    readers: BTreeMap<u64, usize>,
    /// Blocks that died since the oldest pin, in the order of their deaths, so the front is
    /// free first.
    ///
    /// The queue consists of pieces. A single queue that grows to a million blocks would be
    /// moved as a whole, and the loop would wait for that.
    held: VecDeque<VecDeque<Held>>,
    /// Bytes of the held blocks, as their classes count.
    held_bytes: usize,
    /// Bytes of held blocks beyond which all pins are given up. The newest pin sets the limit.
    bytes_max: usize,
}

/// Epoch of a block's death, its reference, and its size in bytes.
type Held = (u64, Ref, usize);
/// Blocks of one piece: about 24 KiB, one allocation.
const PIECE: usize = 1024;

impl Pins {
    /// Returns whether no epoch is pinned and no block is held. If so, a commit frees blocks
    /// without a detour.
    pub(super) fn are_none(&self) -> bool {
        self.readers.is_empty() && self.held.is_empty()
    }

    /// Adds a reader of an epoch, which is the last committed one. Returns the epoch.
    pub(super) fn add(&mut self, epoch: u64, bytes_max: usize) -> u64 {
        *self.readers.entry(epoch).or_default() += 1;
        self.bytes_max = bytes_max;
        epoch
    }

    /// Removes a reader of an epoch. The blocks held for it are freed by later commits. False:
    /// the epoch is not pinned, because the pin was given up or never made.
    pub(super) fn remove(&mut self, epoch: u64) -> bool {
        let Some(n) = self.readers.get_mut(&epoch) else { return false };
        *n -= 1;
        if *n == 0 {
            self.readers.remove(&epoch);
        }
        true
    }

    /// Keeps a block that died with epoch `dead`. Blocks come in the order of their deaths.
    /// Beyond the limit all pins are given up. O(1); one allocation for each [`PIECE`] blocks.
    pub(super) fn hold(&mut self, dead: u64, r: Ref, bytes: usize) {
        match self.held.back_mut() {
            Some(piece) if piece.len() < PIECE => piece.push_back((dead, r, bytes)),
            _ => {
                let mut piece = VecDeque::with_capacity(PIECE);
                piece.push_back((dead, r, bytes));
                self.held.push_back(piece);
            }
        }
        self.held_bytes += bytes;
        if self.held_bytes > self.bytes_max {
            self.give_up();
        }
    }

    /// Gives up all pins, so that every held block may be freed. The readers learn of it when
    /// they unpin.
    pub(super) fn give_up(&mut self) {
        self.readers.clear();
    }

    /// Takes off the oldest held block, if no reader needs it. A reader of epoch P needs a
    /// block that was live at P, and a block that died at or before P was not. O(log pins).
    pub(super) fn free_one(&mut self) -> Option<Ref> {
        let oldest = self.readers.first_key_value().map_or(u64::MAX, |(epoch, _)| *epoch);
        let piece = self.held.front_mut()?;
        let &(dead, r, bytes) = piece.front()?;
        if dead > oldest {
            return None;
        }
        piece.pop_front();
        if piece.is_empty() {
            self.held.pop_front();
        }
        self.held_bytes -= bytes;
        Some(r)
    }
}
