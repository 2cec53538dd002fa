//! The memory in which the records lie: a memfd, mapped once to its limit and grown by fallocate.
//! Its descriptor is the keeper's, and a successor finds in it what was written when this process
//! died.

use crate::crash_points::Point;
use crate::sys::mapping::Mapping;
use greenroom_core::store::memory::Memory;
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, fstat, memfd_create};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{Ordering, compiler_fence};

/// It grows by so much at a time, to save system calls.
const STEP: usize = 1 << 20;

/// A fresh memory file.
pub fn memory_file(name: &str) -> io::Result<OwnedFd> {
    Ok(memfd_create(name, MemfdFlags::CLOEXEC)?)
}

/// See the module.
pub struct Region {
    fd: OwnedFd,
    mapping: Mapping,
    /// Mapped.
    max: usize,
    /// Backed by memory.
    len: usize,
}

impl Region {
    /// Maps a memory file that may grow to `max` bytes, as it is.
    pub fn open(fd: OwnedFd, max: usize) -> io::Result<Region> {
        let len = fstat(&fd)?.st_size as usize / STEP * STEP;
        // Another limit may have been in force when it was made.
        let max = max.max(len).next_multiple_of(STEP);
        Ok(Region { mapping: Mapping::new(&fd, max)?, fd, max, len })
    }
}

impl Memory for Region {
    #[inline]
    fn bytes(&self) -> &[u8] {
        self.mapping.bytes(self.len)
    }

    #[inline]
    fn write(&mut self, at: usize, bytes: &[u8]) {
        assert!(at <= self.len && bytes.len() <= self.len - at, "a write beyond the region");
        self.mapping.bytes_mut(at, bytes.len()).copy_from_slice(bytes);
    }

    #[inline]
    fn mark(&mut self) {
        // A killed process's stores stay, in program order: only the compiler must keep it.
        compiler_fence(Ordering::SeqCst);
    }

    #[inline]
    fn commit(&mut self, at: usize, word: u64) {
        assert!(at + 8 <= self.len, "the epoch lies in the region");
        crate::crash_points::pass(Point::Commit);
        self.mapping.store_word(at, word);
    }

    fn grow(&mut self, len: usize) -> bool {
        if len <= self.len {
            return true;
        }
        let to = len.next_multiple_of(STEP);
        if to > self.max {
            return false;
        }
        let more = || fallocate(&self.fd, FallocateFlags::empty(), self.len as u64, (to - self.len) as u64);
        // A signal may interrupt it.
        if rustix::io::retry_on_intr(more).is_err() {
            return false;
        }
        self.len = to;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenroom_core::store::kind::Kind;
    use greenroom_core::store::layout::memory_bytes;
    use greenroom_core::store::records::Store;

    #[test]
    fn a_successor_finds_what_was_committed() {
        let limit = 8 << 20;
        let fd = memory_file("test").unwrap();
        let open = || Region::open(fd.try_clone().unwrap(), memory_bytes(limit)).unwrap();
        let mut store = Store::create(Box::new(open()), limit).unwrap();
        let refs: Vec<_> =
            (0..5000).map(|k| store.put(None, Kind::State, k, &k.to_le_bytes()).unwrap()).collect();
        store.commit();
        for (k, r) in refs.iter().enumerate() {
            store.read(*r, |b| assert_eq!(b, k.to_le_bytes()));
        }
        store.put(None, Kind::State, 5000, b"never committed").unwrap();
        drop(store);
        let found = Store::recover(Box::new(open()), limit).unwrap();
        assert_eq!((found.records.len(), found.erased.len()), (5000, 0));
    }

    #[test]
    fn it_grows_to_its_limit_and_is_zero() {
        let mut region = Region::open(memory_file("test").unwrap(), 3 << 20).unwrap();
        assert!(region.grow(1) && region.grow(3 << 20) && !region.grow((3 << 20) + 1));
        assert!(region.bytes().iter().all(|b| *b == 0));
        region.write(8, b"12345678");
        region.commit(8, 7);
        assert_eq!(region.bytes()[8..16], 7u64.to_le_bytes());
    }
}
