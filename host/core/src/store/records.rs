//! Record store: bytes that outlive code, and the process that wrote them if its [`Memory`]
//! does.
//!
//! *Invariant*: **a whole pass becomes valid by one atomic store of the epoch**. Nothing valid
//! is overwritten before that. The caller uses [`Store::put`] and [`Store::delete`] during a
//! pass, and [`Store::commit`] once at its end.
//!
//! - Memory consists of units of 64 KiB. A slab is one unit, or several, with blocks of one
//!   size class. A directory holds the class of each unit.
//! - A block is live at epoch E if and only if `born <= E < dead`.
//! - An update writes a new block with born E+1, and sets the old one's dead to E+1.
//! - A deletion only sets dead, so a full store never refuses it.
//! - A slab whose blocks are all free can become one of another class. The sizes that a store
//!   once held do not decide what fits later.
//!
//! The life of a block, where E is the last committed epoch:
//!
//! | state | born | dead | left by |
//! | --- | --- | --- | --- |
//! | never used, or erased | 0 | any | put |
//! | free | at most E+1 | at most E, or born | put |
//! | new | E+1 | never | commit; or delete, which frees the block at once |
//! | live | at most E | never | delete |
//! | dying | at most E | E+1 | commit, which frees the block unless a pin holds it |
//!
//! If the process dies, [`Store::recover`] scans the memory once. The scan erases births after
//! E and undoes deaths after E. A recovery may itself be killed at any write and started again.
//!
//! A read costs O(1), a write O(bytes of the record), a commit O(records that died in the
//! pass).
//!
//! No reference into the memory leaves the core: [`Store::read`] lends the bytes to a closure.
//! The owner of a record keeps a [`Ref`] to it; an update gives a new one. The store keeps no
//! index by key: each part has its own, and a `Ref` needs 4 bytes.

use super::block::{self, HEADER, Header, REST_AT, UNBORN, UNTIL_DELETED};
use super::bytes_by_kind::BytesByKind;
use super::kind::Kind;
use super::layout::{
    BYTES_MAX_AT, CLASSES, EPOCH_AT, FREE_UNIT, Full, LAYOUT, LAYOUT_AT, MAGIC, MAGIC_AT, Ref, UNIT,
    class_for, offset, slab_blocks, slab_units, units_at,
};
use super::memory::{Memory, Plain};
use super::pins::Pins;
use super::promise::Promise;
use super::room::Room;

/// Blocks held for readers that a commit may free, beside two for each block that dies with it.
/// The bound keeps a commit short after a long read; the factor of two lets the backlog shrink.
const RELEASED_PER_COMMIT: usize = 256;

/// Record store. The module has the contract.
///
/// The memory holds the truth. All other fields but `pins` can be derived from it, and recovery
/// does.
pub struct Store {
    /// Bytes of header, directory and blocks.
    pub(super) memory: Box<dyn Memory>,
    /// Number of the last committed pass. Blocks born in the current pass have the next one.
    pub(super) epoch: u64,
    /// Limit of all slabs together, in bytes. The reserve lies beyond.
    pub(super) bytes_max: usize,
    /// Offset of the first unit, behind header and directory.
    pub(super) units_at: usize,
    /// Class + 1 of each unit, or [`FREE_UNIT`]. All units of a slab have its class here; the
    /// directory has it for the first one alone.
    pub(super) units: Vec<u8>,
    /// Blocks in use (new, live, dying or held) of the slab that begins with a unit. 0 for the
    /// other units of a slab.
    pub(super) used: Vec<u32>,
    /// Slabs without a block in use. If there is none, reclaiming is pointless.
    pub(super) empty_slabs: usize,
    /// Units that belonged to a slab and are free.
    pub(super) free_units: usize,
    /// Free blocks of each class that were used before, or found by recovery.
    pub(super) free: [Vec<Ref>; CLASSES.len()],
    /// Offsets of the blocks of each class's newest slab that were never used: the next one,
    /// and the slab's end. Equal if there is none.
    pub(super) fresh: [(usize, usize); CLASSES.len()],
    /// Blocks that die with the commit of this pass.
    pub(super) dying: Vec<Ref>,
    /// Readers outside, and the blocks that are held for them.
    pub(super) pins: Pins,
    /// Blocks that a reservation still has.
    promise: Promise,
    /// Whether a block may hold secrets, so that blocks are looked at when they are freed.
    pub(super) has_secrets: bool,
    /// Bytes of new and live blocks. A block counts with the size of its class.
    pub(super) bytes: usize,
    /// Those bytes by kind of record.
    pub(super) by_kind: BytesByKind,
}

impl Store {
    /// Creates an empty store of at most `bytes_max` bytes on the heap, which dies with the
    /// process.
    pub fn new(bytes_max: usize) -> Store {
        Store::create(Box::new(Plain::default()), bytes_max)
            .unwrap_or_else(|Full| unreachable!("plain memory grows as far as the allocator lets it"))
    }

    /// Creates an empty store in fresh memory, which is all zero. Fails if the memory cannot
    /// grow to header and directory. A creation that a death cuts off leaves no store.
    pub fn create(mut memory: Box<dyn Memory>, bytes_max: usize) -> Result<Store, Full> {
        let at = units_at(bytes_max);
        if !memory.grow(at) {
            return Err(Full);
        }
        memory.write(LAYOUT_AT, &LAYOUT.to_le_bytes());
        memory.write(BYTES_MAX_AT, &(bytes_max as u64).to_le_bytes());
        memory.mark();
        // The magic comes last: recovery takes memory without it for memory without a store.
        memory.write(MAGIC_AT, MAGIC);
        Ok(Store::in_memory(memory, 0, bytes_max))
    }

    /// Makes a store that has no units yet. A fresh store has none; recovery adds those that it
    /// finds.
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
            promise: Promise::default(),
            has_secrets: false,
            bytes: 0,
            by_kind: BytesByKind::default(),
        }
    }

    /// Returns the memory at this moment. A successor would find these bytes if this process
    /// died here.
    pub fn image(&self) -> &[u8] {
        self.memory.bytes()
    }

    /// Returns the bytes of all records, as their classes count, changes of this pass included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Lends the kinds whose bytes have changed since the last call, by their numbers, to `each`
    /// with the bytes. Costs nothing for the other kinds.
    pub(crate) fn take_bytes_by_kind(&mut self, each: impl FnMut(usize, u64)) {
        self.by_kind.take_changed(each);
    }

    /// Returns the number of passes committed.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Counts the records of a kind, changes of this pass included. O(blocks): for tests.
    pub fn count(&self, kind: Kind) -> usize {
        self.counts([kind])[0]
    }

    /// Counts the records of several kinds by one scan, as [`Store::count`] does.
    pub fn counts<const N: usize>(&self, kinds: [Kind; N]) -> [usize; N] {
        let (memory, mut of_kind, mut unit) = (self.memory.bytes(), [0; 1 << u8::BITS], 0);
        while unit < self.units.len() {
            if self.units[unit] == FREE_UNIT {
                unit += 1;
                continue;
            }
            let class = usize::from(self.units[unit]) - 1;
            let mut at = self.units_at + unit * UNIT;
            for _ in 0..slab_blocks(class) {
                let h = Header::read(memory, at);
                of_kind[usize::from(h.kind)] += usize::from(h.born != UNBORN && h.dead == UNTIL_DELETED);
                at += CLASSES[class];
            }
            unit += slab_units(class);
        }
        kinds.map(|kind| of_kind[kind as usize])
    }

    /// Makes room for one record of each of these lengths, all at once, below the limit. Then
    /// putting them cannot fail. The promise ends with the next put of another record.
    ///
    /// False: they do not fit, and no record has changed. Pins may have been given up, and
    /// slabs added, in either case. O(records), and O(blocks) at the limit.
    pub fn reserve(&mut self, lens: impl IntoIterator<Item = usize>) -> bool {
        let mut room = Room::default();
        lens.into_iter().for_each(|len| room.add(len, 1));
        self.reserve_room(&room)
    }

    /// Writes a record in place of `old`, and returns the reference to keep. The record becomes
    /// valid with the next commit.
    ///
    /// Fails if the record is longer than [`super::layout::RECORD_BYTES_MAX`], or if limit and
    /// reserve are used up; `old` stays then. Cannot fail after a [`Store::reserve`] for its
    /// length. A put without reservation may use the reserve: that is for records that must not
    /// fail.
    pub fn put(&mut self, old: Option<Ref>, kind: Kind, key: u64, bytes: &[u8]) -> Result<Ref, Full> {
        let class = class_for(bytes.len()).ok_or(Full)?;
        let old = old.map(|r| (r, self.is_new(r)));
        self.has_secrets |= kind == Kind::Tls;
        if let Some((r, true)) = old
            && self.class_of(r) == class
        {
            // The block was born in this pass, so no committed epoch depends on its bytes.
            self.by_kind.move_to(self.kind_number(r), kind as u8, CLASSES[class]);
            self.fill(r, kind, key, bytes);
            return Ok(r);
        }
        self.promise.take(class);
        let r = self.take(class)?;
        self.bytes += CLASSES[class];
        self.by_kind.add(kind as u8, CLASSES[class]);
        // The birth comes first. From here on the block is invalid until the next commit, so
        // death, key and payload may be cut off anywhere. Snapshots rely on this order, too.
        self.write_word(offset(r), self.epoch + 1);
        self.memory.mark();
        self.fill(r, kind, key, bytes);
        // The old record goes last: a refused put must leave it.
        if let Some((old, is_new)) = old {
            self.end(old, is_new);
        }
        Ok(r)
    }

    /// Notes that only the records of this room, which were reserved, may be written until
    /// [`Store::end_promise`]. A build with assertions checks it.
    #[inline]
    pub(crate) fn promise(&mut self, room: &Room) {
        self.promise.begin(room);
    }

    /// Ends what [`Store::promise`] began.
    #[inline]
    pub(crate) fn end_promise(&mut self) {
        self.promise.end();
    }

    /// Appends bytes to a record that was put in this pass, without a new block. O(bytes
    /// appended). False: the record is older or its block is full, and nothing has changed; the
    /// caller puts another record.
    pub fn append(&mut self, r: Ref, bytes: &[u8]) -> bool {
        let at = offset(r);
        let header = Header::read(self.memory.bytes(), at);
        let len = header.len as usize + bytes.len();
        if !self.is_new(r) || HEADER + len > CLASSES[self.class_of(r)] {
            return false;
        }
        self.memory.write(at + HEADER + header.len as usize, bytes);
        let sum = block::extend_sum(&header, bytes);
        let rest = Header { len: len as u32, sum, ..header }.rest();
        self.memory.write(at + REST_AT, &rest);
        true
    }

    /// Deletes a record. Never fails, however full the store is. The caller forgets the
    /// reference: the block may be used again at once if it was born in this pass, else after
    /// the commit.
    pub fn delete(&mut self, r: Ref) {
        self.end(r, self.is_new(r));
    }

    /// Deletes a record as above. `is_new`: its block was born in this pass.
    fn end(&mut self, r: Ref, is_new: bool) {
        let class = self.class_of(r);
        self.bytes -= CLASSES[class];
        self.by_kind.remove(self.kind_number(r), CLASSES[class]);
        debug_assert_eq!(Header::read(self.memory.bytes(), offset(r)).dead, UNTIL_DELETED, "deleted twice");
        self.write_word(offset(r) + 8, self.epoch + 1);
        match is_new {
            // The block was never valid; with dead = born no epoch makes it so.
            true => self.give_back(r),
            false => self.dying.push(r),
        }
    }

    /// Lends the bytes of a record to `f`. O(1), without a copy.
    #[inline]
    pub fn read<T>(&self, r: Ref, f: impl FnOnce(&[u8]) -> T) -> T {
        f(self.bytes_of(r))
    }

    /// Returns the bytes of a record, for callers that need several records at once. Changes of
    /// this pass are seen. The caller has not deleted the record.
    #[inline]
    pub(crate) fn bytes_of(&self, r: Ref) -> &[u8] {
        self.kind_and_bytes(r).1
    }

    /// Returns the kind of a record, and its bytes as [`Store::bytes_of`] does.
    #[inline]
    pub(crate) fn kind_and_bytes(&self, r: Ref) -> (Option<Kind>, &[u8]) {
        let (at, all) = (offset(r), self.memory.bytes());
        let header = Header::read(all, at);
        debug_assert_eq!(header.dead, UNTIL_DELETED, "read after it was deleted");
        (Kind::from_number(header.kind), &all[at + HEADER..at + HEADER + header.len as usize])
    }

    /// Returns the number of a record's kind.
    #[inline]
    fn kind_number(&self, r: Ref) -> u8 {
        Header::read(self.memory.bytes(), offset(r)).kind
    }

    /// Returns the kind of a record.
    pub(crate) fn kind(&self, r: Ref) -> Option<Kind> {
        Kind::from_number(Header::read(self.memory.bytes(), offset(r)).kind)
    }

    /// Returns the key that a record was written under.
    pub fn key(&self, r: Ref) -> u64 {
        Header::read(self.memory.bytes(), offset(r)).key
    }

    /// Makes all changes since the last commit valid, at once. Cannot fail, and makes no system
    /// call.
    ///
    /// O(records that died in the pass). If readers hold blocks, so many of those are freed
    /// besides that the backlog shrinks.
    pub fn commit(&mut self) {
        self.epoch += 1;
        // The one word that decides. A death before it leaves the previous commit, a death
        // behind it this one.
        self.memory.commit(EPOCH_AT, self.epoch);
        // Blocks are freed only behind the commit: the next pass may overwrite them, and a
        // recovery to the previous epoch would have needed them.
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

    /// Keeps the last commit readable from outside ([`super::snapshot::copy_at`]) until
    /// [`Store::unpin`]. Returns its epoch. The caller does so between two passes or in one;
    /// changes of that pass are not part of the epoch.
    ///
    /// Costs the memory of the blocks that die meanwhile. Beyond `bytes_max` of them, all pins
    /// are given up: readers fail, writers go on. A later call sets `bytes_max` for all pins.
    pub fn pin(&mut self, bytes_max: usize) -> u64 {
        self.pins.add(self.epoch, bytes_max)
    }

    /// Ends one pin of an epoch. False: the pin was given up before, and the reader must
    /// discard what the copy holds.
    pub fn unpin(&mut self, epoch: u64) -> bool {
        self.pins.remove(epoch)
    }

    /// Returns whether a block was born in this pass.
    #[inline]
    pub(super) fn is_new(&self, r: Ref) -> bool {
        Header::read(self.memory.bytes(), offset(r)).born == self.epoch + 1
    }

    /// Returns the size class of a block.
    #[inline]
    pub(super) fn class_of(&self, r: Ref) -> usize {
        usize::from(self.units[(offset(r) - self.units_at) / UNIT]) - 1
    }

    /// Writes a word that needs no order of its own.
    pub(super) fn write_word(&mut self, at: usize, word: u64) {
        self.memory.write_word(at, word);
    }

    /// Writes header and payload of a block whose birth is written. A death in between leaves a
    /// birth after the last commit, which recovery erases.
    #[inline]
    pub(super) fn fill(&mut self, r: Ref, kind: Kind, key: u64, bytes: &[u8]) {
        let at = offset(r);
        let sum = block::sum(kind as u8, kind.version(), key, bytes);
        let header = Header {
            born: self.epoch + 1,
            dead: UNTIL_DELETED,
            key,
            kind: kind as u8,
            version: kind.version(),
            len: bytes.len() as u32,
            sum,
        };
        self.memory.write_two(at + REST_AT, &header.rest(), bytes);
    }
}
