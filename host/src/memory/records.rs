//! Memory of the records: a memory file, mapped once to its limit and grown by fallocate.
//!
//! The descriptor is the keeper's, too. A successor finds in the file what was written when this
//! process died: stores into a shared mapping stand once they are executed.
//!
//! The whole limit is mapped at the start, which costs addresses and no memory. So the memory never
//! moves, and growing is one system call, by steps of 1 MiB. Memory that was grown is not given
//! back.
//!
//! *Invariant*: at most one process maps the file. Other processes, and other threads' snapshots,
//! read it with pread ([`crate::memory::snapshot`]).
//!
//! fallocate reserves the memory of each step. If the kernel has none, growing fails, and the store
//! is full. Without it, a write could end the process with SIGBUS.

use crate::crash_points::Point;
use crate::sys::mapping::Mapping;
use greenroom_core::store::memory::{HEAD_BYTES, Memory};
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, fstat, memfd_create};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{Ordering, fence};

/// Bytes that the memory grows by at a time, to save system calls.
const STEP: usize = 1 << 20;

/// Makes an empty memory file, closed on exec. `name` shows under `/proc/PID/fd`. Lives as long as
/// some process has a descriptor or a mapping of it.
pub fn memory_file(name: &str) -> io::Result<OwnedFd> {
    Ok(memfd_create(name, MemfdFlags::CLOEXEC)?)
}

/// The records' memory. The module has the contract; [`Memory`] says what each method promises.
pub struct Region {
    fd: OwnedFd,
    mapping: Mapping,
    /// Bytes that are mapped.
    max: usize,
}

impl Region {
    /// Maps a memory file that may grow to `max` bytes, as it is. The caller is the only process
    /// that maps the file. Fails if the process has not so many addresses.
    pub fn open(fd: OwnedFd, max: usize) -> io::Result<Region> {
        let len = fstat(&fd)?.st_size as usize / STEP * STEP;
        // Another limit may have been in force when the file was made: all of it stays mapped.
        let max = max.max(len).next_multiple_of(STEP);
        let mut mapping = Mapping::new(&fd, max)?;
        mapping.is_backed_to(len);
        Ok(Region { mapping, fd, max })
    }
}

impl Memory for Region {
    #[inline]
    fn bytes(&self) -> &[u8] {
        self.mapping.bytes()
    }

    #[inline]
    fn write(&mut self, at: usize, bytes: &[u8]) {
        self.mapping.bytes_mut(at, bytes.len()).copy_from_slice(bytes);
    }

    #[inline]
    fn write_word(&mut self, at: usize, word: u64) {
        self.mapping.bytes_mut(at, 8).copy_from_slice(&word.to_le_bytes());
    }

    #[inline]
    fn write_two(&mut self, at: usize, head: &[u8; HEAD_BYTES], bytes: &[u8]) {
        let to = self.mapping.bytes_mut(at, HEAD_BYTES + bytes.len());
        let (to_head, to_bytes) = to.split_at_mut(HEAD_BYTES);
        to_head.copy_from_slice(head);
        to_bytes.copy_from_slice(bytes);
    }

    #[inline]
    fn mark(&mut self) {
        // A killed process's stores stand in program order. A reader of a pinned epoch runs beside
        // this one, so the processor must keep the order, too: on x86 that costs nothing.
        fence(Ordering::Release);
    }

    #[inline]
    fn commit(&mut self, at: usize, word: u64) {
        crate::crash_points::pass(Point::Commit);
        self.mapping.store_word(at, word);
    }

    fn grow(&mut self, len: usize) -> bool {
        let backed = self.mapping.bytes().len();
        if len <= backed {
            return true;
        }
        let to = len.next_multiple_of(STEP);
        // Beyond the mapping there is no address to write to, whatever the kernel could give.
        if to > self.max {
            return false;
        }
        let more = || fallocate(&self.fd, FallocateFlags::empty(), backed as u64, (to - backed) as u64);
        // A signal may interrupt the call, which grows nothing then.
        if rustix::io::retry_on_intr(more).is_err() {
            return false;
        }
        self.mapping.is_backed_to(to);
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
