//! Slabs of one size class: allocated, filled, reclaimed.

use super::layout::{
    CLASSES, DIRECTORY_AT, FREE_UNIT, Full, RESERVE_BYTES, Ref, UNIT, memory_bytes, offset, reference,
    slab_blocks, slab_units,
};
use super::records::Store;

impl Store {
    pub(super) fn fresh_blocks(&self, class: usize) -> usize {
        let (next, end) = self.fresh[class];
        (end - next) / CLASSES[class]
    }

    /// Frees blocks that no pin needs any more, so many at most: a reader that took long leaves
    /// many, and nobody is to wait for all of them.
    pub(super) fn release(&mut self, at_most: usize) {
        for _ in 0..at_most {
            let Some(r) = self.pins.free_one() else { return };
            self.give_back(r);
        }
    }

    /// A block of a class: a free one, else one that was never used.
    pub(super) fn take(&mut self, class: usize) -> Result<Ref, Full> {
        // Beyond the limit lies the reserve.
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

    /// A block is free again.
    pub(super) fn give_back(&mut self, r: Ref) {
        let unit = self.unit_of(r);
        self.used[unit] -= 1;
        self.empty_slabs += usize::from(self.used[unit] == 0);
        let class = self.class_of(r);
        self.free[class].push(r);
    }

    /// The first unit of a block's slab.
    #[inline]
    pub(super) fn unit_of(&self, r: Ref) -> usize {
        // Slabs of several units hold one block, which begins with the first of them.
        (offset(r) - self.units_at) / UNIT
    }

    /// Makes a slab of a class, if all slabs together then stay within `limit` bytes.
    pub(super) fn add_slab(&mut self, class: usize, limit: usize) -> bool {
        let want = slab_units(class);
        let over = |store: &Store| (store.units.len() - store.free_units + want) * UNIT > limit;
        if over(self) {
            self.reclaim(class);
        }
        for last in [false, true] {
            if over(self) && !self.pins.are_none() {
                if last {
                    // Readers have to do without before a writer is refused.
                    self.pins.give_up();
                }
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
        // What never was used of the slab before is free like any other.
        while self.fresh_blocks(class) > 0 {
            let next = self.fresh[class].0;
            self.fresh[class].0 += CLASSES[class];
            self.free[class].push(reference(next));
        }
        // Its memory is zero, and so are its blocks' births: entering the slab changes nothing that
        // is valid.
        self.memory.mark();
        self.memory.write(DIRECTORY_AT + first, &[class as u8 + 1]);
        self.units[first..first + want].fill(class as u8 + 1);
        self.used[first] = 0;
        self.empty_slabs += 1;
        let begin = self.units_at + first * UNIT;
        self.fresh[class] = (begin, begin + slab_blocks(class) * CLASSES[class]);
        true
    }

    /// Adjacent units without a slab, zeroed: free ones, else new ones.
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
        let first = self.units.len();
        let end = self.units_at + (first + want) * UNIT;
        if end > memory_bytes(self.bytes_max) || !self.memory.grow(end) {
            return None;
        }
        self.units.resize(first + want, 0);
        self.used.resize(first + want, 0);
        Some(first)
    }

    /// Gives back the units of all slabs without a block in use, but for those of the class that
    /// `wanted` more of: they may have been made for just that. O(blocks), and only done when the
    /// limit is reached and it helps.
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
                // The first one last: until then the slab is whole, and empty.
                for u in (unit..unit + units).rev() {
                    self.memory.write(DIRECTORY_AT + u, &[FREE_UNIT]);
                    self.units[u] = FREE_UNIT;
                }
                self.free_units += units;
                if (unit..unit + units).contains(&(self.fresh[class].0.saturating_sub(self.units_at) / UNIT))
                {
                    self.fresh[class] = (0, 0);
                }
            }
            unit += units;
        }
        for class in 0..CLASSES.len() {
            let mut kept = std::mem::take(&mut self.free[class]);
            kept.retain(|r| self.units[self.unit_of(*r)] == class as u8 + 1);
            self.free[class] = kept;
        }
        self.empty_slabs = kept_empty;
    }
}
