//! Recovery: one scan of the memory that another process left.

use super::block::{self, HEADER, Header, UNBORN, UNTIL_DELETED};
use super::kind::Kind;
use super::layout::{
    BYTES_MAX_AT, CLASSES, DIRECTORY_AT, FREE_UNIT, LAYOUT, LAYOUT_AT, Ref, UNIT, header, memory_bytes,
    reference, slab_blocks, slab_units, units_at,
};
use super::memory::Memory;
use super::records::Store;

/// A record that recovery found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// What points to it.
    pub at: Ref,
    /// What it is.
    pub kind: Kind,
    /// Whose it is.
    pub key: u64,
}

/// What recovery found.
pub struct Recovered {
    /// The store, at the last epoch that was committed.
    pub store: Store,
    /// Every record, in the order of their places.
    pub records: Vec<Found>,
    /// Blocks that were live and whose checksum is wrong: they are erased. Kind (0: unknown) and
    /// key as far as they can be read.
    pub damaged: Vec<(u8, u64)>,
}

impl Store {
    /// Reads a store that another process left. `bytes_max` is the limit of one whose layout didn't
    /// state it. Whatever the memory holds, this ends: what can't be trusted is erased and named.
    pub fn recover(mut memory: Box<dyn Memory>, bytes_max: usize) -> Result<Recovered, String> {
        let (bytes_max, epoch) = header(memory.bytes(), bytes_max)?;
        let at = units_at(bytes_max);
        // From here on it is of this layout. The layout comes last, since it says that the limit
        // counts.
        memory.write(BYTES_MAX_AT, &(bytes_max as u64).to_le_bytes());
        memory.mark();
        memory.write(LAYOUT_AT, &LAYOUT.to_le_bytes());
        let mut store = Store::in_memory(memory, epoch, bytes_max);
        let (mut records, mut damaged) = (Vec::new(), Vec::new());
        // Units that have memory; behind them nothing was ever entered.
        let slots = (memory_bytes(bytes_max).min(store.memory.bytes().len()) - at) / UNIT;
        let behind = DIRECTORY_AT + slots..DIRECTORY_AT + (memory_bytes(bytes_max) - at) / UNIT;
        for entry in behind {
            if store.memory.bytes()[entry] != 0 {
                damaged.push((0, 0));
                store.memory.write(entry, &[0]);
            }
        }
        // Behind the last unit that was ever used the directory is zero; a zero before it is
        // damage.
        let directory = &store.memory.bytes()[DIRECTORY_AT..DIRECTORY_AT + slots];
        let end = directory.iter().rposition(|n| *n != 0).map_or(0, |last| last + 1);
        while store.units.len() < slots {
            let first = store.units.len();
            let class = match store.memory.bytes()[DIRECTORY_AT + first] {
                0 if first >= end => break,
                n if n != 0 && usize::from(n) <= CLASSES.len() => usize::from(n) - 1,
                n => {
                    if n != FREE_UNIT {
                        // Its class can't be known, so it holds nothing that can be trusted.
                        damaged.push((0, u64::from(n)));
                        store.memory.write(DIRECTORY_AT + first, &[FREE_UNIT]);
                    }
                    store.units.push(FREE_UNIT);
                    store.used.push(0);
                    store.free_units += 1;
                    continue;
                }
            };
            let begin = at + first * UNIT;
            if begin + slab_units(class) * UNIT > store.memory.bytes().len() {
                // No slab is entered before its memory is there.
                damaged.push((0, class as u64));
                store.memory.write(DIRECTORY_AT + first, &[FREE_UNIT]);
                store.units.push(FREE_UNIT);
                store.used.push(0);
                store.free_units += 1;
                continue;
            }
            store.units.extend(std::iter::repeat_n(class as u8 + 1, slab_units(class)));
            store.used.extend(std::iter::repeat_n(0, slab_units(class)));
            let free = store.free[class].len();
            for i in 0..slab_blocks(class) {
                store.recover_block(begin + i * CLASSES[class], class, &mut records, &mut damaged);
            }
            // The first one is to be taken first, too.
            store.free[class][free..].reverse();
            store.empty_slabs += usize::from(store.used[first] == 0);
        }
        Ok(Recovered { store, records, damaged })
    }

    fn recover_block(
        &mut self,
        at: usize,
        class: usize,
        records: &mut Vec<Found>,
        damaged: &mut Vec<(u8, u64)>,
    ) {
        let mut header = Header::read(self.memory.bytes(), at);
        let r = reference(at);
        if header.born > self.epoch && header.born != UNBORN {
            self.write_word(at, UNBORN);
            header.born = UNBORN;
        } else if header.born != UNBORN && header.dead > self.epoch && header.dead != UNTIL_DELETED {
            header.dead = UNTIL_DELETED;
            self.write_word(at + 8, UNTIL_DELETED);
        }
        if header.born == UNBORN || header.dead <= self.epoch {
            self.free[class].push(r);
            return;
        }
        let len = header.len as usize;
        let kind = Kind::from_number(header.kind).filter(|_| HEADER + len <= CLASSES[class]);
        let sound = kind.is_some()
            && block::sum(header.kind, header.key, &self.memory.bytes()[at + HEADER..at + HEADER + len])
                == header.sum;
        match kind {
            Some(kind) if sound => {
                self.bytes += CLASSES[class];
                let unit = self.unit_of(r);
                self.used[unit] += 1;
                records.push(Found { at: r, kind, key: header.key });
            }
            _ => {
                damaged.push((header.kind, header.key));
                self.write_word(at, UNBORN);
                self.free[class].push(r);
            }
        }
    }
}
