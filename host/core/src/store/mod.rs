//! The record store: everything that outlives code lies here, as bytes, and outlives the process that wrote it if its
//! [`Memory`] does.
//!
//! [`Store::put`], [`Store::delete`], and one [`Store::commit`] a pass: **a whole pass becomes valid by one atomic store of the
//! epoch**. Nothing that was valid is overwritten before that. What was being written when a process died is found and
//! forgotten by [`Store::recover`], which may itself be killed at any write and started again.
//!
//! - Memory is cut into units of 64 KiB. A slab is one unit, or several, of blocks of one size class; a directory
//!   says which class each unit has.
//! - A block is live at epoch E if and only if `born <= E < dead`. An update is a new block with born E+1, and the old one's
//!   dead set to E+1; a deletion only sets dead, so it never needs space.
//! - Recovery is one scan: what was born after E is erased, a death after E is undone.
//!
//! - A slab whose blocks are all free can become one of another class, so what a store once held doesn't decide what it can
//!   hold later.
//!
//! No reference into it leaves the core: [`Store::read`] lends the bytes to a closure. What points to a record is a [`Ref`],
//! which its owner keeps; an update gives a new one.

mod block;
mod memory;
mod pins;
mod snapshot;

pub use memory::{Memory, Plain};
pub use snapshot::{Seen, copy_at};

use block::{HEADER, Header, UNBORN, UNTIL_DELETED};
use pins::Pins;
use std::num::NonZeroU32;

/// What a record is. The numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A [`greenroom_state::record::SessionRecord`]; key: session.
    Session = 1,
    /// A session's state, MessagePack; key: session.
    State = 2,
    /// Input that was not a whole message yet; key: session.
    Input = 3,
    /// Output not sent yet, behind its offset in the stream (u64, little-endian); key: session.
    Output = 4,
    /// The names of the topics that a session is on, a line each; key: session.
    Topics = 5,
    /// An entry of a table; key: 0, the entry names its table.
    Entry = 6,
    /// A service's name; key: its number, which the sessions' records hold.
    Service = 7,
    /// A library and the builds that it runs, as the shell writes it; key: the shell's.
    Library = 8,
    /// The ports that are held, as the shell writes it; key: 0.
    Ports = 9,
    /// The highest number of a connection that was served (u64, little-endian); key: 0.
    Served = 10,
    /// Why a session is quarantined until another build takes it on: the turn that must not run (u64, little-endian), and
    /// the reason; key: session.
    Quarantine = 11,
    /// A line of the ledger, as the shell writes it; key: counts up.
    Ledger = 12,
    /// An action that waits for its turn, as `pending.rs` says; key: session.
    Action = 13,
    /// What several actions carry; key: its number, which they name.
    Payload = 14,
    /// A timer, as `timers.rs` says; key: session.
    Timer = 15,
    /// A job, as `jobs.rs` says; key: session.
    Job = 16,
    /// A connection that is being made, as `connects.rs` says; key: session.
    Connect = 17,
    /// Output not sent yet whose bytes are a payload's: its offset in the stream, the payload's number (u64 each, little-endian) and
    /// length (u32); key: session.
    Shared = 18,
    /// The configuration in force, as the shell writes it, if it isn't the one that the host was started with; key: 0.
    Config = 19,
}

impl Kind {
    pub(crate) fn from_number(n: u8) -> Option<Kind> {
        use Kind::*;
        const ALL: [Kind; 19] = [
            Session, State, Input, Output, Topics, Entry, Service, Library, Ports, Served, Quarantine,
            Ledger, Action, Payload, Timer, Job, Connect, Shared, Config,
        ];
        // They are numbered from 1, in this order.
        ALL.get(usize::from(n).wrapping_sub(1)).copied()
    }
}

/// Points to a record: its place, in steps of 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ref(NonZeroU32);

/// The store's limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

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
    /// Blocks that were live and whose checksum is wrong: they are erased. Kind (0: unknown) and key as far as they can be read.
    pub damaged: Vec<(u8, u64)>,
}

const GRAIN: usize = 32;
const UNIT: usize = 64 * 1024;
/// Block sizes, header included. The third fits a session's record exactly.
const CLASSES: [usize; 18] = [
    64, 96, 160, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131_072, 262_144, 524_288, 1_048_576,
    2_097_152, 4_194_304,
];
/// The longest record, in bytes.
pub const RECORD_BYTES_MAX: usize = CLASSES[CLASSES.len() - 1] - HEADER;
/// The largest limit of a store: 32-bit references in steps of 32 bytes reach 128 GiB, less header and reserve.
pub const STORE_BYTES_LIMIT: usize = 127 << 30;
/// Memory beyond the limit, for what must not fail when the store is full: the records of sessions that go on and close.
const RESERVE_BYTES: usize = 64 << 20;

const MAGIC: &[u8; 8] = b"GREENRM\n";
/// 1 did not state the limit, which decides where the first unit begins. Both are read.
const LAYOUT: u64 = 2;
const MAGIC_AT: usize = 0;
const LAYOUT_AT: usize = 8;
const BYTES_MAX_AT: usize = 16;
/// In the directory: a unit that belonged to a slab and is free. Units that were never used are 0.
const FREE_UNIT: u8 = 0xfe;
const EPOCH_AT: usize = 64;
/// Blocks that were held for a reader and are freed with a commit, beside twice as many as die with it.
const RELEASED_PER_COMMIT: usize = 256;
/// Centuries of a million passes a second: an epoch beyond it was never reached.
const EPOCH_MAX: u64 = 1 << 56;
const DIRECTORY_AT: usize = 4096;

/// See the module.
pub struct Store {
    memory: Box<dyn Memory>,
    epoch: u64,
    bytes_max: usize,
    /// Where the first unit begins: behind header and directory.
    units_at: usize,
    /// Each unit's class + 1, or [`FREE_UNIT`], as in the directory; the units behind a slab's first have its class too.
    units: Vec<u8>,
    /// Blocks in use of the slab that begins with a unit: live, or dying.
    used: Vec<u32>,
    /// Slabs without a block in use.
    empty_slabs: usize,
    /// Units that are free.
    free_units: usize,
    /// Free blocks of each class.
    free: [Vec<Ref>; CLASSES.len()],
    /// Blocks of each class's newest slab that were never used: the next one, and the slab's end.
    fresh: [(usize, usize); CLASSES.len()],
    /// Blocks that die with this epoch.
    dying: Vec<Ref>,
    pins: Pins,
    /// In live blocks, as their classes count.
    bytes: usize,
}

fn class_for(len: usize) -> Option<usize> {
    CLASSES.iter().position(|size| *size >= HEADER + len)
}

fn slab_units(class: usize) -> usize {
    CLASSES[class].div_ceil(UNIT)
}

fn slab_blocks(class: usize) -> usize {
    (UNIT / CLASSES[class]).max(1)
}

fn units_at(bytes_max: usize) -> usize {
    let units = (bytes_max + RESERVE_BYTES).div_ceil(UNIT);
    (DIRECTORY_AT + units).next_multiple_of(UNIT)
}

/// How much memory a store with this limit may use: what its [`Memory`] must be able to grow to.
pub fn memory_bytes(bytes_max: usize) -> usize {
    units_at(bytes_max) + (bytes_max + RESERVE_BYTES).next_multiple_of(UNIT)
}

/// Reads the limit and the epoch of a store. `bytes_max` is the limit of one whose layout didn't state it.
fn header(bytes: &[u8], bytes_max: usize) -> Result<(usize, u64), String> {
    if bytes.len() < DIRECTORY_AT {
        return Err("the memory is smaller than a store's header".into());
    }
    if &bytes[MAGIC_AT..MAGIC_AT + 8] != MAGIC {
        return Err("the memory holds no store".into());
    }
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    let bytes_max = match word(LAYOUT_AT) {
        1 => bytes_max,
        2 => word(BYTES_MAX_AT) as usize,
        other => return Err(format!("the store has layout {other}, this version reads 1 and {LAYOUT}")),
    };
    if bytes_max > STORE_BYTES_LIMIT || bytes.len() < units_at(bytes_max) {
        return Err(format!("the store's limit is damaged: {bytes_max}"));
    }
    let epoch = word(EPOCH_AT);
    if epoch > EPOCH_MAX {
        return Err(format!("the store's epoch is damaged: {epoch:#x}"));
    }
    Ok((bytes_max, epoch))
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
    fn in_memory(memory: Box<dyn Memory>, epoch: u64, bytes_max: usize) -> Store {
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

    /// Reads a store that another process left. `bytes_max` is the limit of one whose layout didn't state it. Whatever the
    /// memory holds, this ends: what can't be trusted is erased and named.
    pub fn recover(mut memory: Box<dyn Memory>, bytes_max: usize) -> Result<Recovered, String> {
        let (bytes_max, epoch) = header(memory.bytes(), bytes_max)?;
        let at = units_at(bytes_max);
        // From here on it is of this layout. The layout comes last, since it says that the limit counts.
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
        // Behind the last unit that was ever used the directory is zero; a zero before it is damage.
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

    /// Makes sure that records of these lengths fit, all of them, below the limit. Then putting them can't fail. False: they
    /// don't, and nothing has changed that matters.
    pub fn reserve(&mut self, lens: impl IntoIterator<Item = usize>) -> bool {
        let mut wanted = [0usize; CLASSES.len()];
        let mut classes = 0u32;
        for len in lens {
            let Some(class) = class_for(len) else { return false };
            wanted[class] += 1;
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

    fn fresh_blocks(&self, class: usize) -> usize {
        let (next, end) = self.fresh[class];
        (end - next) / CLASSES[class]
    }

    /// Writes a record in place of `old`, and returns the reference to keep. When it is refused, `old` stays.
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

    /// What a record is.
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

    /// Keeps what the last commit left readable from outside ([`copy_at`]) until [`Store::unpin`]. Returns its
    /// epoch.
    ///
    /// It costs the memory of what is replaced meanwhile. Beyond `bytes_max` of that, the pins are given up, not the writers.
    pub fn pin(&mut self, bytes_max: usize) -> u64 {
        self.pins.add(self.epoch, bytes_max)
    }

    /// Lets go of a pin. False: it was given up before, and what was read since can't be trusted.
    pub fn unpin(&mut self, epoch: u64) -> bool {
        self.pins.remove(epoch)
    }

    /// Frees blocks that no pin needs any more, so many at most: a reader that took long leaves many, and nobody is to wait for
    /// all of them.
    fn release(&mut self, at_most: usize) {
        for _ in 0..at_most {
            let Some(r) = self.pins.free_one() else { return };
            self.give_back(r);
        }
    }

    #[inline]
    fn is_new(&self, r: Ref) -> bool {
        Header::read(self.memory.bytes(), offset(r)).born == self.epoch + 1
    }

    #[inline]
    fn class_of(&self, r: Ref) -> usize {
        usize::from(self.units[(offset(r) - self.units_at) / UNIT]) - 1
    }

    fn write_word(&mut self, at: usize, word: u64) {
        self.memory.write(at, &word.to_le_bytes());
    }

    fn fill(&mut self, r: Ref, kind: Kind, key: u64, bytes: &[u8]) {
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

    /// A block of a class: a free one, else one that was never used.
    fn take(&mut self, class: usize) -> Result<Ref, Full> {
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
    fn give_back(&mut self, r: Ref) {
        let unit = self.unit_of(r);
        self.used[unit] -= 1;
        self.empty_slabs += usize::from(self.used[unit] == 0);
        let class = self.class_of(r);
        self.free[class].push(r);
    }

    /// The first unit of a block's slab.
    #[inline]
    fn unit_of(&self, r: Ref) -> usize {
        // Slabs of several units hold one block, which begins with the first of them.
        (offset(r) - self.units_at) / UNIT
    }

    /// Makes a slab of a class, if all slabs together then stay within `limit` bytes.
    fn add_slab(&mut self, class: usize, limit: usize) -> bool {
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
        // Its memory is zero, and so are its blocks' births: entering the slab changes nothing that is valid.
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
    fn find_units(&mut self, want: usize) -> Option<usize> {
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

    /// Gives back the units of all slabs without a block in use, but for those of the class that `wanted` more of: they may have been
    /// made for just that. O(blocks), and only done when the limit is reached and it helps.
    fn reclaim(&mut self, wanted: usize) {
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

fn offset(r: Ref) -> usize {
    r.0.get() as usize * GRAIN
}

fn reference(at: usize) -> Ref {
    let n = u32::try_from(at / GRAIN).ok().and_then(NonZeroU32::new);
    Ref(n.expect("a block lies behind the header and below 128 GiB"))
}

#[cfg(test)]
mod tests;
