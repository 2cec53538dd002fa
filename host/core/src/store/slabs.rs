//! Slabs of one size class: allocated, filled, reclaimed.
//!
//! A slab is one unit of 64 KiB with `64 KiB / size` blocks, or, for the classes above 64 KiB,
//! several adjacent units with one block. Slabs are made on demand and never moved. A slab is
//! reclaimed only when a limit is reached: a class that empties and fills again keeps its
//! slabs.
//!
//! The life of a unit, with its byte in the directory:
//!
//! | state | directory | next state |
//! | --- | --- | --- |
//! | never used | 0 | slab |
//! | slab | class + 1 (first unit of the slab) | free, once no block of the slab is in use |
//! | free | [`FREE_UNIT`] | slab, of any class, after its bytes are zeroed |
//!
//! *Invariant*: a directory entry is written only once the bytes behind it are zero. Zeroed
//! blocks have no birth, so a death at any write leaves every valid record as it was.
//!
//! Memory never shrinks. The units of a store with a lower use than before wait for the next
//! slab.

use super::block::{HEADER, Header};
use super::kind::Kind;
use super::layout::{
    CLASSES, DIRECTORY_AT, FREE_UNIT, Full, RESERVE_BYTES, Ref, UNIT, memory_bytes, offset, reference,
    slab_blocks, slab_units,
};
use super::records::Store;
use super::room::Room;

/// Bytes of a record with secrets, at most.
const SECRET_BYTES_MAX: usize = 256;

impl Store {
    /// Reserves room like [`Store::reserve`].
    pub(crate) fn reserve_room(&mut self, room: &Room) -> bool {
        if room.is_too_long {
            return false;
        }
        // A turn needs one or two of the eighteen classes, so a mask visits those alone.
        let (mut classes, mut grew) = (room.classes, false);
        while classes != 0 {
            let class = classes.trailing_zeros() as usize;
            classes &= classes - 1;
            let mut has = self.room_of(class);
            while has < room.blocks[class] {
                let before = has;
                if !self.add_slab(class, self.bytes_max) {
                    return false;
                }
                has = self.room_of(class);
                assert!(has > before, "a slab that was added has room");
                grew = true;
            }
        }
        // Close to the limit, a slab of one class may have been made from an empty slab of
        // another class that was counted before.
        !grew || (0..CLASSES.len()).all(|class| self.room_of(class) >= room.blocks[class])
    }

    /// Blocks of a class that a put can take without a new slab.
    fn room_of(&self, class: usize) -> usize {
        self.free[class].len() + self.fresh_blocks(class)
    }

    /// Counts the blocks of a class that were never used. Blocks in `free` are not among them.
    pub(super) fn fresh_blocks(&self, class: usize) -> usize {
        let (next, end) = self.fresh[class];
        (end - next) / CLASSES[class]
    }

    /// Frees blocks that no pin needs any more, `at_most` so many. A reader that took long
    /// leaves many, and a commit must not wait for all of them. O(blocks freed).
    pub(super) fn release(&mut self, at_most: usize) {
        for _ in 0..at_most {
            let Some(r) = self.pins.free_one() else { return };
            self.give_back(r);
        }
    }

    /// Takes a block of a class: a free one, else one that was never used, else one of a new
    /// slab. Fails if limit and reserve are used up, or if the memory cannot grow. O(1) but for
    /// a new slab.
    pub(super) fn take(&mut self, class: usize) -> Result<Ref, Full> {
        // Reservations stay below the limit. The reserve beyond it is for puts without one:
        // records of sessions that continue and close.
        if self.free[class].is_empty()
            && self.fresh_blocks(class) == 0
            && !self.add_slab(class, self.bytes_max + RESERVE_BYTES)
        {
            return Err(Full);
        }
        let r = match self.free[class].pop() {
            Some(r) => r,
            None => {
                let next = self.fresh[class].0;
                self.fresh[class].0 += CLASSES[class];
                reference(next)
            }
        };
        let unit = self.unit_of(r);
        self.empty_slabs -= usize::from(self.used[unit] == 0);
        self.used[unit] += 1;
        Ok(r)
    }

    /// Frees a block. The caller makes sure that no committed epoch, and no pin, needs its
    /// bytes: the next put may overwrite them.
    #[inline]
    pub(super) fn give_back(&mut self, r: Ref) {
        if self.has_secrets {
            self.wipe(r);
        }
        let unit = self.unit_of(r);
        self.used[unit] -= 1;
        self.empty_slabs += usize::from(self.used[unit] == 0);
        let class = self.class_of(r);
        self.free[class].push(r);
    }

    /// Wipes a block that nobody needs any more, if it holds secrets.
    pub(super) fn wipe(&mut self, r: Ref) {
        let at = offset(r);
        let header = Header::read(self.memory.bytes(), at);
        if header.kind == Kind::Tls as u8 {
            let len = (header.len as usize).min(CLASSES[self.class_of(r)] - HEADER);
            self.memory.write(at + HEADER, &[0; SECRET_BYTES_MAX][..len.min(SECRET_BYTES_MAX)]);
        }
    }

    /// Returns the first unit of the slab of a block.
    #[inline]
    pub(super) fn unit_of(&self, r: Ref) -> usize {
        // A slab of several units holds one block, which begins with the first of them.
        (offset(r) - self.units_at) / UNIT
    }

    /// Makes room for at least one more block of a class, if all slabs together then stay
    /// within `limit` bytes. The room is a new slab, or blocks that readers held back.
    ///
    /// At the limit, the cheap remedies come first. Empty slabs of other classes go, then
    /// blocks that no reader needs. In the end all readers lose theirs. False: nothing helped.
    /// O(units) below the limit, O(blocks) at it.
    pub(super) fn add_slab(&mut self, class: usize, limit: usize) -> bool {
        let want = slab_units(class);
        let over = |store: &Store| (store.units.len() - store.free_units + want) * UNIT > limit;
        if over(self) {
            self.reclaim(class);
        }
        // Two rounds: the first frees blocks whose readers have ended. The second ends the
        // readers, because a snapshot can be taken again and a refused turn fails.
        for last in [false, true] {
            if over(self) && !self.pins.are_none() {
                if last {
                    // Every reader fails at its unpin.
                    self.pins.give_up();
                }
                // Without a bound: a writer would be refused otherwise.
                let before = self.free[class].len();
                self.release(usize::MAX);
                if self.free[class].len() > before {
                    return true;
                }
                self.reclaim(class);
            }
        }
        if over(self) {
            return false;
        }
        let Some(first) = self.find_units(want) else { return false };
        // `fresh` describes one slab. Blocks of the previous one that were never used become
        // free ones.
        while self.fresh_blocks(class) > 0 {
            let next = self.fresh[class].0;
            self.fresh[class].0 += CLASSES[class];
            self.free[class].push(reference(next));
        }
        // The entry follows its zeroed blocks. Behind the entry nothing valid has changed: no
        // block of the slab has a birth.
        self.memory.mark();
        self.memory.write(DIRECTORY_AT + first, &[class as u8 + 1]);
        self.units[first..first + want].fill(class as u8 + 1);
        self.used[first] = 0;
        self.empty_slabs += 1;
        let begin = self.units_at + first * UNIT;
        self.fresh[class] = (begin, begin + slab_blocks(class) * CLASSES[class]);
        true
    }

    /// Finds adjacent units without a slab, and zeroes them. Free units come first, else new
    /// ones at the end. `None`: the memory cannot grow, or has its full size. O(units) and
    /// O(bytes zeroed).
    ///
    /// Free units that are not adjacent are of no use for a large class. The memory still grows
    /// then, as the caller counts free units as available.
    pub(super) fn find_units(&mut self, want: usize) -> Option<usize> {
        if self.free_units >= want {
            let found = self.units.windows(want).position(|w| w.iter().all(|u| *u == FREE_UNIT));
            if let Some(first) = found {
                for unit in first..first + want {
                    self.memory.write(self.units_at + unit * UNIT, &[0; UNIT]);
                }
                self.free_units -= want;
                return Some(first);
            }
        }
        // Memory beyond the last unit was never written. An entry comes before the blocks of
        // its slab, and no unit that was entered is ever removed.
        let first = self.units.len();
        let end = self.units_at + (first + want) * UNIT;
        if end > memory_bytes(self.bytes_max) || !self.memory.grow(end) {
            return None;
        }
        self.units.resize(first + want, 0);
        self.used.resize(first + want, 0);
        Some(first)
    }

    /// Frees the units of all slabs without a block in use, but for those of class `wanted`:
    /// the caller may have made them just now. O(blocks); called only when the limit is
    /// reached. No record changes.
    pub(super) fn reclaim(&mut self, wanted: usize) {
        if self.empty_slabs == 0 {
            return;
        }
        let (mut unit, mut kept_empty) = (0, 0);
        while unit < self.units.len() {
            if self.units[unit] == FREE_UNIT {
                unit += 1;
                continue;
            }
            let class = usize::from(self.units[unit]) - 1;
            let units = slab_units(class);
            if self.used[unit] == 0 && class == wanted {
                kept_empty += 1;
            } else if self.used[unit] == 0 {
                // From the last unit to the first: a death in between leaves the first entry,
                // and so a whole slab that is empty. In the other order, recovery could find
                // zeros that belong to no slab, and report damage.
                for u in (unit..unit + units).rev() {
                    self.memory.write(DIRECTORY_AT + u, &[FREE_UNIT]);
                    self.units[u] = FREE_UNIT;
                }
                self.free_units += units;
                // The newest slab of the class is gone, and its unused blocks with it.
                if (unit..unit + units).contains(&(self.fresh[class].0.saturating_sub(self.units_at) / UNIT))
                {
                    self.fresh[class] = (0, 0);
                }
            }
            unit += units;
        }
        // Free blocks of the slabs that are gone must not be handed out again.
        for class in 0..CLASSES.len() {
            let mut kept = std::mem::take(&mut self.free[class]);
            kept.retain(|r| self.units[self.unit_of(*r)] == class as u8 + 1);
            self.free[class] = kept;
        }
        self.empty_slabs = kept_empty;
    }
}
