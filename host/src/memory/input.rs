//! Input memory: a memory file that reads go to, outside the store's epoch.
//!
//! The kernel forgets bytes once they are read. If the worker dies before the commit, only this
//! file has them. So the owner of a place and the place's offset in the stream are noted before the
//! read. A successor learns from the kernel how many bytes were read, and finds them here.
//!
//! | bytes | content |
//! | --- | --- |
//! | 0 to 128 KiB | notes: owner, offset, place and epoch of each read of the pass |
//! | 4 MiB behind | places: reads, one behind the other |
//!
//! *Invariant*: a note counts if its epoch is the one that the pass under way will commit. The
//! commit raises the epoch, and all notes are void with one store. A place is used again only after
//! the commit, when its bytes are in records or were consumed.
//!
//! A note has no length: its bytes end where the next note of the owner begins, or where the
//! kernel's count ends. So a read needs no store behind it, which a death could prevent.
//!
//! A read costs a few stores beside the system call. A pass that reads little touches few pages, as
//! each pass begins at the front. Only the loop's thread uses the pool. If 4,096 reads or 4 MiB are
//! full, the pass is committed before it reads on.

use crate::sys::mapping::Mapping;
use rustix::fs::{FallocateFlags, fallocate};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{Ordering, compiler_fence};

/// Most bytes of one read; also a session's share of a pass.
pub const READ_BYTES: usize = 64 * 1024;
/// Most reads of a pass. With more, the pass is committed in between.
const NOTES_MAX: usize = 4096;
/// Bytes of a note: owner, offset, place, epoch, 8 bytes each.
const NOTE_BYTES: usize = 32;
/// Begin of the places.
const PLACES_AT: usize = NOTES_MAX * NOTE_BYTES;
/// Length of the file: notes, and 4 MiB of places.
const BYTES: usize = PLACES_AT + (4 << 20);

/// The input memory of a worker. The module has the contract.
pub struct Pool {
    mapping: Mapping,
    /// Notes of this pass whose reads brought bytes.
    notes: usize,
    /// Begin of the next place.
    next: usize,
}

impl Pool {
    /// Maps the file, which is fresh or a predecessor's. A predecessor's notes stay for
    /// [`Pool::find`], until [`Pool::place`] writes over them. Fails if the kernel has no memory.
    pub fn open(fd: &OwnedFd) -> io::Result<Pool> {
        rustix::io::retry_on_intr(|| fallocate(fd, FallocateFlags::empty(), 0, BYTES as u64))?;
        let mut mapping = Mapping::new(fd, BYTES)?;
        mapping.is_backed_to(BYTES);
        Ok(Pool { mapping, notes: 0, next: PLACES_AT })
    }

    /// Whether another read has a place before the next commit. If not, the caller commits first.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.notes < NOTES_MAX && BYTES - self.next >= READ_BYTES
    }

    /// The place for a read from a connection. The owner is the connection's number, and the next
    /// byte is at `offset` of its stream. The pass under way will commit `epoch`.
    ///
    /// The caller has checked [`Pool::has_room`], reads once, and calls [`Pool::taken`] if bytes
    /// came. Without that call, the next read has the same note and place.
    #[inline]
    pub fn place(&mut self, owner: u64, offset: u64, epoch: u64) -> &mut [u8] {
        let note = self.mapping.bytes_mut(self.notes * NOTE_BYTES, NOTE_BYTES);
        // The epoch makes the note count, so the old one goes first and the new one comes last. A
        // killed process's stores stand in program order, so the compiler alone must keep it.
        note[24..].copy_from_slice(&0u64.to_le_bytes());
        compiler_fence(Ordering::SeqCst);
        note[..8].copy_from_slice(&owner.to_le_bytes());
        note[8..16].copy_from_slice(&offset.to_le_bytes());
        note[16..24].copy_from_slice(&(self.next as u64).to_le_bytes());
        compiler_fence(Ordering::SeqCst);
        note[24..].copy_from_slice(&epoch.to_le_bytes());
        compiler_fence(Ordering::SeqCst);
        let place = self.mapping.bytes_mut(self.next, READ_BYTES);
        // After a reset the kernel may count the end of a stream as a byte. A successor then takes
        // one byte too many: a zero, and no byte of another session.
        place[0] = 0;
        place
    }

    /// The bytes that were read into the last place. The place is kept until the commit.
    #[inline]
    pub fn taken(&mut self, bytes: usize) -> &[u8] {
        let at = self.next;
        self.notes += 1;
        self.next += bytes.next_multiple_of(8);
        &self.mapping.bytes()[at..at + bytes]
    }

    /// Frees all places: the pass is committed, and input that did not run is in the records. Notes
    /// stay as they are, void by their epoch.
    #[inline]
    pub fn clear(&mut self) {
        (self.notes, self.next) = (0, PLACES_AT);
    }

    /// Finds input that a predecessor read in the pass that it did not commit: the `len` bytes of
    /// a stream from `offset` on. The kernel counts them. If they are not here, which is damage,
    /// the result is `None`.
    ///
    /// The epoch is the last committed one plus one. O(notes) for each connection with such bytes.
    /// Changes nothing, so a successor that dies leaves all to the next one.
    pub fn find(&self, owner: u64, offset: u64, len: usize, epoch: u64) -> Option<Vec<u8>> {
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| self.mapping.bytes()[at + i]));
        let mut pieces = Vec::new();
        for note in (0..NOTES_MAX).map(|n| n * NOTE_BYTES) {
            if word(note) == owner && word(note + 24) == epoch {
                pieces.push((word(note + 8), word(note + 16) as usize));
            }
        }
        pieces.sort_unstable();
        let end = offset + len as u64;
        let mut found = Vec::with_capacity(len);
        for (i, &(from, at)) in pieces.iter().enumerate() {
            // The kernel's count ends the last piece. A note whose read brought nothing is empty.
            let to = pieces.get(i + 1).map_or(end, |next| next.0).min(end);
            if from != offset + found.len() as u64 || to <= from {
                continue;
            }
            let n = (to - from) as usize;
            // A predecessor's memory is not trusted: a place beyond the file must not be read.
            if n > READ_BYTES || at < PLACES_AT || at > BYTES - n {
                return None;
            }
            found.extend_from_slice(&self.mapping.bytes()[at..at + n]);
        }
        (found.len() == len).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::records::memory_file;

    /// Reads bytes as a connection would.
    fn read(pool: &mut Pool, owner: u64, offset: u64, epoch: u64, bytes: &[u8]) {
        pool.place(owner, offset, epoch)[..bytes.len()].copy_from_slice(bytes);
        assert_eq!(pool.taken(bytes.len()), bytes);
    }

    #[test]
    fn a_successor_finds_what_the_last_pass_read() {
        let fd = memory_file("test").unwrap();
        let mut pool = Pool::open(&fd).unwrap();
        for n in 0..50 {
            read(&mut pool, n % 7, n, 8, b"an older pass");
        }
        pool.clear();
        read(&mut pool, 1, 100, 9, b"hello ");
        read(&mut pool, 2, 0, 9, b"other");
        read(&mut pool, 1, 106, 9, b"world");
        // Tried, and nothing was there.
        pool.place(1, 111, 9);
        drop(pool);
        let pool = Pool::open(&fd).unwrap();
        assert_eq!(pool.find(1, 100, 11, 9).unwrap(), b"hello world");
        assert_eq!(pool.find(1, 106, 5, 9).unwrap(), b"world");
        // Read, and killed before it was counted anywhere but in the kernel.
        assert_eq!(pool.find(1, 100, 8, 9).unwrap(), b"hello wo");
        assert_eq!(pool.find(2, 0, 5, 9).unwrap(), b"other");
        assert_eq!(pool.find(1, 99, 3, 9), None);
        assert_eq!(pool.find(3, 3, 3, 9), None, "an older pass's places are not this one's");
        assert_eq!(pool.find(1, 100, 11, 8), None);
    }

    #[test]
    fn there_is_room_for_a_whole_read_or_none() {
        let mut pool = Pool::open(&memory_file("test").unwrap()).unwrap();
        let mut reads = 0;
        while pool.has_room() {
            read(&mut pool, 1, reads * READ_BYTES as u64, 1, &[7; READ_BYTES]);
            reads += 1;
        }
        assert_eq!(reads, (4 << 20) / READ_BYTES as u64);
        pool.clear();
        assert!(pool.has_room());
        while pool.has_room() {
            read(&mut pool, 1, 0, 1, b"x");
        }
        assert_eq!(pool.notes, NOTES_MAX);
    }
}
