//! Epochs that somebody outside reads: the blocks that were live then are not used again while they
//! do.

use crate::store::layout::Ref;
use std::collections::{BTreeMap, VecDeque};

/// See the module.
#[derive(Default)]
pub(super) struct Pins {
    /// How many readers each epoch has.
    readers: BTreeMap<u64, usize>,
    /// Blocks that died since, with the epoch of their death, in order. In pieces, as one that
    /// grows to a million is moved as a whole, and the loop would wait for that.
    held: VecDeque<VecDeque<Held>>,
    held_bytes: usize,
    bytes_max: usize,
}

/// Epoch of its death, where it is, how large.
type Held = (u64, Ref, usize);
/// Blocks of one piece.
const PIECE: usize = 1024;

impl Pins {
    pub(super) fn are_none(&self) -> bool {
        self.readers.is_empty() && self.held.is_empty()
    }

    pub(super) fn add(&mut self, epoch: u64, bytes_max: usize) -> u64 {
        *self.readers.entry(epoch).or_default() += 1;
        self.bytes_max = bytes_max;
        epoch
    }

    /// False: it is not pinned (any more).
    pub(super) fn remove(&mut self, epoch: u64) -> bool {
        let Some(n) = self.readers.get_mut(&epoch) else { return false };
        *n -= 1;
        if *n == 0 {
            self.readers.remove(&epoch);
        }
        true
    }

    /// Keeps a block that died with an epoch. Too many of them, and the readers have to do without.
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

    /// No reader counts any more.
    pub(super) fn give_up(&mut self) {
        self.readers.clear();
    }

    /// A block that no reader needs: it died no later than the oldest pinned epoch.
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
