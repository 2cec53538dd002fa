//! The record store: everything that outlives code lies here, as bytes, and outlives the process
//! that wrote it if its [`Memory`] does.
//!
//! [`Store::put`], [`Store::delete`], and one [`Store::commit`] a pass: **a whole pass becomes
//! valid by one atomic store of the epoch**. Nothing that was valid is overwritten before that.
//! What was being written when a process died is found and forgotten by [`Store::recover`], which
//! may itself be killed at any write and started again.
//!
//! - Memory is cut into units of 64 KiB. A slab is one unit, or several, of blocks of one size
//!   class; a directory says which class each unit has.
//! - A block is live at epoch E if and only if `born <= E < dead`. An update is a new block with
//!   born E+1, and the old one's dead set to E+1; a deletion only sets dead, so it never needs
//!   space.
//! - Recovery is one scan: what was born after E is erased, a death after E is undone.
//!
//! - A slab whose blocks are all free can become one of another class, so what a store once held
//!   doesn't decide what it can hold later.
//!
//! No reference into it leaves the core: [`Store::read`] lends the bytes to a closure. What points
//! to a record is a [`Ref`], which its owner keeps; an update gives a new one.

use super::block::{self, HEADER, Header, UNBORN, UNTIL_DELETED};
use super::kind::Kind;
use super::layout::{
    BYTES_MAX_AT, CLASSES, EPOCH_AT, FREE_UNIT, Full, LAYOUT, LAYOUT_AT, MAGIC, MAGIC_AT, Ref, UNIT,
    class_for, offset, slab_blocks, slab_units, units_at,
};
use super::memory::{Memory, Plain};
use super::pins::Pins;

/// Blocks that were held for a reader and are freed with a commit, beside twice as many as die with
/// it.
const RELEASED_PER_COMMIT: usize = 256;

/// A record store. The module has the contract.
pub struct Store {
    pub(super) memory: Box<dyn Memory>,
    pub(super) epoch: u64,
    pub(super) bytes_max: usize,
    /// Where the first unit begins: behind header and directory.
    pub(super) units_at: usize,
    /// Each unit's class + 1, or [`FREE_UNIT`], as in the directory; the units behind a slab's
    /// first have its class too.
    pub(super) units: Vec<u8>,
    /// Blocks in use of the slab that begins with a unit: live, or dying.
    pub(super) used: Vec<u32>,
    /// Slabs without a block in use.
    pub(super) empty_slabs: usize,
    /// Units that are free.
    pub(super) free_units: usize,
    /// Free blocks of each class.
    pub(super) free: [Vec<Ref>; CLASSES.len()],
    /// Blocks of each class's newest slab that were never used: the next one, and the slab's end.
    pub(super) fresh: [(usize, usize); CLASSES.len()],
    /// Blocks that die with this epoch.
    pub(super) dying: Vec<Ref>,
    pub(super) pins: Pins,
    /// In live blocks, as their classes count.
    pub(super) bytes: usize,
}

impl Store {
    /// An empty store of at most `bytes_max` bytes on the heap.
    pub fn new(bytes_max: usize) -> Store {
        Store::create(Box::new(Plain::default()), bytes_max)
            .unwrap_or_else(|Full| unreachable!("plain memory grows as far as the allocator lets it"))
    }

    /// An empty store in fresh memory, which is all zero.
    pub fn create(mut memory: Box<dyn Memory>, bytes_max: usize) -> Result<Store, Full> {
        let at = units_at(bytes_max);
        if !memory.grow(at) {
            return Err(Full);
        }
        memory.write(LAYOUT_AT, &LAYOUT.to_le_bytes());
        memory.write(BYTES_MAX_AT, &(bytes_max as u64).to_le_bytes());
        memory.mark();
        // The magic comes last: without it, there is no store.
        memory.write(MAGIC_AT, MAGIC);
        Ok(Store::in_memory(memory, 0, bytes_max))
    }

    /// A store that knows nothing of its blocks yet.
    pub(super) fn in_memory(memory: Box<dyn Memory>, epoch: u64, bytes_max: usize) -> Store {
        Store {
            memory,
            epoch,
            bytes_max,
            units_at: units_at(bytes_max),
            units: Vec::new(),
            used: Vec::new(),
            empty_slabs: 0,
            free_units: 0,
            free: Default::default(),
            fresh: Default::default(),
            dying: Vec::new(),
            pins: Pins::default(),
            bytes: 0,
        }
    }

    /// The memory as it is now: what a successor would find, were this process killed here.
    pub fn image(&self) -> &[u8] {
        self.memory.bytes()
    }

    /// Bytes in live blocks.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Passes committed.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Records alive of a kind, this pass's changes included. O(blocks): for tests and inspection.
    pub fn count(&self, kind: Kind) -> usize {
        let (mut count, mut unit) = (0, 0);
        while unit < self.units.len() {
            if self.units[unit] == FREE_UNIT {
                unit += 1;
                continue;
            }
            let class = usize::from(self.units[unit]) - 1;
            for i in 0..slab_blocks(class) {
                let at = self.units_at + unit * UNIT + i * CLASSES[class];
                let h = Header::read(self.memory.bytes(), at);
                count += usize::from(h.born != UNBORN && h.dead == UNTIL_DELETED && h.kind == kind as u8);
            }
            unit += slab_units(class);
        }
        count
    }

    /// Makes sure that records of these lengths fit, all of them, below the limit. Then putting
    /// them can't fail. False: they don't, and nothing has changed that matters.
    pub fn reserve(&mut self, lens: impl IntoIterator<Item = usize>) -> bool {
        self.reserve_all(lens.into_iter().map(|len| (len, 1)))
    }

    /// Reserves room like [`Store::reserve`], for so many records of each length.
    pub(crate) fn reserve_all(&mut self, records: impl IntoIterator<Item = (usize, usize)>) -> bool {
        let mut wanted = [0usize; CLASSES.len()];
        let mut classes = 0u32;
        for (len, times) in records {
            if times == 0 {
                continue;
            }
            let Some(class) = class_for(len) else { return false };
            wanted[class] += times;
            classes |= 1 << class;
        }
        // Of eighteen, a turn needs one or two.
        let mut grew = false;
        while classes != 0 {
            let class = classes.trailing_zeros() as usize;
            classes &= classes - 1;
            let mut has = self.free[class].len() + self.fresh_blocks(class);
            while has < wanted[class] {
                let before = has;
                if !self.add_slab(class, self.bytes_max) {
                    return false;
                }
                has = self.free[class].len() + self.fresh_blocks(class);
                assert!(has > before, "a slab that was added has room");
                grew = true;
            }
        }
        // Close to the limit, room for one class may have been made of another's.
        let has = |class: usize| self.free[class].len() + self.fresh_blocks(class) >= wanted[class];
        !grew || (0..CLASSES.len()).all(has)
    }

    /// Writes a record in place of `old`, and returns the reference to keep. When it is refused,
    /// `old` stays.
    pub fn put(&mut self, old: Option<Ref>, kind: Kind, key: u64, bytes: &[u8]) -> Result<Ref, Full> {
        let class = class_for(bytes.len()).ok_or(Full)?;
        if let Some(r) = old
            && self.is_new(r)
            && self.class_of(r) == class
        {
            // Made in this pass, so nobody depends on it.
            self.fill(r, kind, key, bytes);
            return Ok(r);
        }
        let r = self.take(class)?;
        self.bytes += CLASSES[class];
        // Born first: from here on it is not valid before the next commit, whatever else is in it.
        self.write_word(offset(r), self.epoch + 1);
        self.memory.mark();
        self.fill(r, kind, key, bytes);
        if let Some(old) = old {
            self.delete(old);
        }
        Ok(r)
    }

    /// Appends to a record that was made in this pass. False: it must be a record of its own.
    pub fn append(&mut self, r: Ref, bytes: &[u8]) -> bool {
        let at = offset(r);
        let header = Header::read(self.memory.bytes(), at);
        let len = header.len as usize + bytes.len();
        if !self.is_new(r) || HEADER + len > CLASSES[self.class_of(r)] {
            return false;
        }
        self.memory.write(at + HEADER + header.len as usize, bytes);
        let sum = block::extend_sum(&header, bytes);
        Header { len: len as u32, sum, ..header }.write_rest(&mut *self.memory, at);
        true
    }

    /// Deletes a record. Never fails, however full the store is.
    pub fn delete(&mut self, r: Ref) {
        let class = self.class_of(r);
        self.bytes -= CLASSES[class];
        debug_assert_eq!(Header::read(self.memory.bytes(), offset(r)).dead, UNTIL_DELETED, "deleted twice");
        let new = self.is_new(r);
        self.write_word(offset(r) + 8, self.epoch + 1);
        match new {
            // It never was valid, and with dead = born never will be.
            true => self.give_back(r),
            false => self.dying.push(r),
        }
    }

    /// Lends a record's bytes.
    #[inline]
    pub fn read<T>(&self, r: Ref, f: impl FnOnce(&[u8]) -> T) -> T {
        f(self.bytes_of(r))
    }

    /// A record's bytes, for who needs several records' at once.
    #[inline]
    pub(crate) fn bytes_of(&self, r: Ref) -> &[u8] {
        let at = offset(r);
        let header = Header::read(self.memory.bytes(), at);
        debug_assert_eq!(header.dead, UNTIL_DELETED, "read after it was deleted");
        &self.memory.bytes()[at + HEADER..at + HEADER + header.len as usize]
    }

    /// The kind of a record.
    pub(crate) fn kind(&self, r: Ref) -> Option<Kind> {
        Kind::from_number(Header::read(self.memory.bytes(), offset(r)).kind)
    }

    /// The key that a record was written under.
    pub fn key(&self, r: Ref) -> u64 {
        Header::read(self.memory.bytes(), offset(r)).key
    }

    /// Makes everything since the last commit count, at once.
    pub fn commit(&mut self) {
        self.epoch += 1;
        self.memory.commit(EPOCH_AT, self.epoch);
        let mut dying = std::mem::take(&mut self.dying);
        if self.pins.are_none() {
            for r in dying.drain(..) {
                self.give_back(r);
            }
        } else {
            let at_most = RELEASED_PER_COMMIT + 2 * dying.len();
            for r in dying.drain(..) {
                let bytes = CLASSES[self.class_of(r)];
                self.pins.hold(self.epoch, r, bytes);
            }
            self.release(at_most);
        }
        self.dying = dying;
    }

    /// Keeps what the last commit left readable from outside ([`super::snapshot::copy_at`]) until
    /// [`Store::unpin`]. Returns its epoch.
    ///
    /// It costs the memory of what is replaced meanwhile. Beyond `bytes_max` of that, the pins are
    /// given up, not the writers.
    pub fn pin(&mut self, bytes_max: usize) -> u64 {
        self.pins.add(self.epoch, bytes_max)
    }

    /// Lets go of a pin. False: it was given up before, and what was read since can't be trusted.
    pub fn unpin(&mut self, epoch: u64) -> bool {
        self.pins.remove(epoch)
    }

    #[inline]
    pub(super) fn is_new(&self, r: Ref) -> bool {
        Header::read(self.memory.bytes(), offset(r)).born == self.epoch + 1
    }

    #[inline]
    pub(super) fn class_of(&self, r: Ref) -> usize {
        usize::from(self.units[(offset(r) - self.units_at) / UNIT]) - 1
    }

    pub(super) fn write_word(&mut self, at: usize, word: u64) {
        self.memory.write(at, &word.to_le_bytes());
    }

    pub(super) fn fill(&mut self, r: Ref, kind: Kind, key: u64, bytes: &[u8]) {
        let at = offset(r);
        let sum = block::sum(kind as u8, key, bytes);
        let header = Header {
            born: self.epoch + 1,
            dead: UNTIL_DELETED,
            key,
            kind: kind as u8,
            len: bytes.len() as u32,
            sum,
        };
        header.write_rest(&mut *self.memory, at);
        self.memory.write(at + HEADER, bytes);
    }
}
