//! Recovery: one scan of the memory that another process left.
//!
//! The scan finds exactly the records of the last commit, and leaves memory in which only those
//! are valid. For each block, where E is the epoch in the header:
//!
//! | born | dead | becomes |
//! | --- | --- | --- |
//! | 0 | any | free |
//! | after E | any | erased, and free: its pass was never committed |
//! | at most E | at most E | free |
//! | at most E | after E | live again: the deletion was never committed |
//! | at most E | never | live |
//!
//! A live block with a wrong checksum, or of a kind or version that this build does not know,
//! is erased and named. Whatever the memory holds, the scan ends. A directory byte has no
//! checksum: one that is no class, or not that of the slab's first live block, is judged by the
//! blocks (`slab_class.rs`), and put right. A slab that is free by its byte stays so.
//!
//! *Repeatable*: each write undoes something that was never committed, or erases a block for
//! good. A recovery that is killed at any write and begun again finds the same records. Blocks
//! that the first one erased are not named a second time.
//!
//! Costs O(blocks), and a checksum of each live record. The worker runs it before anything
//! else, and so does each reader of a snapshot on its copy.

use super::block::{self, HEADER, Header, UNBORN, UNTIL_DELETED};
use super::kind::Kind;
use super::layout::{
    BYTES_MAX_AT, CLASSES, DIRECTORY_AT, FREE_UNIT, LAYOUT, LAYOUT_AT, Ref, UNIT, header, memory_bytes,
    reference, slab_blocks, slab_units, units_at,
};
use super::memory::Memory;
use super::records::Store;

/// Record that recovery found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Reference to the record, in the store beside.
    pub at: Ref,
    /// Kind of the record: it decides which part takes the record in.
    pub kind: Kind,
    /// Version of its format, which its decoder goes by.
    pub version: u8,
    /// Key that the record was written under.
    pub key: u64,
}

/// Findings of a recovery.
pub struct Recovered {
    /// Store at the last epoch that was committed. Nothing of a later pass is in it.
    pub store: Store,
    /// Records that are live, in the order of their offsets.
    pub records: Vec<Found>,
    /// Blocks that were live and cannot be read: the store no longer has them.
    pub erased: Vec<Erased>,
    /// Directory bytes that were damaged and are put right: nothing is lost by them.
    pub mended: usize,
    /// Records are those of a copy, which was made without secrets of sessions.
    pub without_secrets: bool,
}

/// Live block that recovery erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erased {
    /// Number of its [`Kind`], as far as it can be read; 0: unknown.
    pub kind: u8,
    /// Key of the record, as far as it can be read.
    pub key: u64,
    /// Whether the checksum is right. Then a later build wrote the record, in a format that
    /// this one cannot read.
    pub is_later: bool,
}

impl Erased {
    /// Names a block, or a directory byte as `key`, that is damaged.
    fn damaged(kind: u8, key: u64) -> Erased {
        Erased { kind, key, is_later: false }
    }
}

impl Store {
    /// Reads a store that another process left. `bytes_max` is the limit of a store whose
    /// layout does not state it. The caller makes sure that no other process writes to the
    /// memory.
    ///
    /// Fails if header or epoch cannot be true ([`super::layout`]); the memory is unchanged
    /// then, and holds no store that can be used. Damage behind the header never fails: it is
    /// erased and named.
    pub fn recover(mut memory: Box<dyn Memory>, bytes_max: usize) -> Result<Recovered, String> {
        let (bytes_max, epoch) = header(memory.bytes(), bytes_max)?;
        let at = units_at(bytes_max);
        // A store of layout 1 becomes one of layout 2. The limit comes first: a death in
        // between leaves layout 1, which ignores it. In the other order, a limit of 0 would
        // count.
        memory.write(BYTES_MAX_AT, &(bytes_max as u64).to_le_bytes());
        memory.mark();
        memory.write(LAYOUT_AT, &LAYOUT.to_le_bytes());
        let mut store = Store::in_memory(memory, epoch, bytes_max);
        let (mut records, mut erased, mut mended) = (Vec::new(), Vec::new(), 0);
        // Units that have memory. An entry is written only once its unit has memory, so a byte
        // behind these is damage. Left alone, it would become a slab as the memory grows.
        let slots = (memory_bytes(bytes_max).min(store.memory.bytes().len()) - at) / UNIT;
        let behind = DIRECTORY_AT + slots..DIRECTORY_AT + (memory_bytes(bytes_max) - at) / UNIT;
        for entry in behind {
            if store.memory.bytes()[entry] != 0 {
                erased.push(Erased::damaged(0, 0));
                store.memory.write(entry, &[0]);
            }
        }
        // Units are used in order. Behind the last one that was ever used the directory is
        // zero; a zero before it that no slab covers is damage.
        let directory = &store.memory.bytes()[DIRECTORY_AT..DIRECTORY_AT + slots];
        let end = directory.iter().rposition(|n| *n != 0).map_or(0, |last| last + 1);
        while store.units.len() < slots {
            let first = store.units.len();
            let begin = at + first * UNIT;
            let byte = store.memory.bytes()[DIRECTORY_AT + first];
            // No slab is entered before its memory is there, so a class beyond it is wrong.
            let written = usize::from(byte).checked_sub(1).filter(|c| *c < CLASSES.len());
            let written = written.filter(|c| store.has_memory_for(begin, *c));
            let class = match written {
                _ if byte == FREE_UNIT => None,
                Some(class) if !store.may_be_of_another_class(begin, class) => written,
                _ => store.class_by_blocks(begin, written).or(written),
            };
            let Some(class) = class else {
                if byte == 0 && first >= end {
                    break;
                }
                if byte != FREE_UNIT {
                    // The class is lost, so no block border in the unit can be trusted.
                    erased.push(Erased::damaged(0, u64::from(byte)));
                    store.memory.write(DIRECTORY_AT + first, &[FREE_UNIT]);
                }
                store.units.push(FREE_UNIT);
                store.used.push(0);
                store.free_units += 1;
                continue;
            };
            if written != Some(class) {
                store.memory.write(DIRECTORY_AT + first, &[class as u8 + 1]);
                mended += 1;
            }
            store.units.extend(std::iter::repeat_n(class as u8 + 1, slab_units(class)));
            store.used.extend(std::iter::repeat_n(0, slab_units(class)));
            let free = store.free[class].len();
            for i in 0..slab_blocks(class) {
                store.recover_block(begin + i * CLASSES[class], class, &mut records, &mut erased);
            }
            // Free blocks are taken from the end of the list. The lowest comes first then.
            store.free[class][free..].reverse();
            store.empty_slabs += usize::from(store.used[first] == 0);
        }
        Ok(Recovered { store, records, erased, mended, without_secrets: false })
    }

    /// Decides about one block: free, erased or live. Repairs birth and death where a pass was
    /// cut off.
    fn recover_block(&mut self, at: usize, class: usize, records: &mut Vec<Found>, erased: &mut Vec<Erased>) {
        let mut header = Header::read(self.memory.bytes(), at);
        let r = reference(at);
        if header.born > self.epoch && header.born != UNBORN {
            self.write_word(at, UNBORN);
            header.born = UNBORN;
        } else if header.born != UNBORN && header.dead > self.epoch && header.dead != UNTIL_DELETED {
            header.dead = UNTIL_DELETED;
            self.write_word(at + 8, UNTIL_DELETED);
        }
        let may_hold_secrets = header.kind == Kind::Tls as u8;
        self.has_secrets |= may_hold_secrets;
        if header.born == UNBORN || header.dead <= self.epoch {
            // The pass that was cut off may have written them.
            if may_hold_secrets {
                self.wipe(r);
            }
            self.free[class].push(r);
            return;
        }
        // Only here the rest of the header counts. In a free block it may be half written.
        let Header { version, key, len, .. } = header;
        let bytes = self.memory.bytes()[at + HEADER..at + CLASSES[class]].get(..len as usize);
        let is_whole = bytes.is_some_and(|b| block::sum(header.kind, version, key, b) == header.sum);
        match Kind::from_number(header.kind).filter(|k| is_whole && version <= k.version()) {
            Some(kind) => {
                self.bytes += CLASSES[class];
                self.by_kind.add(header.kind, CLASSES[class]);
                let unit = self.unit_of(r);
                self.used[unit] += 1;
                records.push(Found { at: r, kind, version, key });
            }
            None => {
                erased.push(Erased { kind: header.kind, key, is_later: is_whole });
                // The erasure outlives this process: a successor must not take the block for a
                // record, nor name it.
                self.write_word(at, UNBORN);
                self.free[class].push(r);
            }
        }
    }
}
