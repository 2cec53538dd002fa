//! The memory in which the records lie: a memfd, mapped once to its limit and grown by fallocate. Its descriptor may be handed
//! to another process, which finds what was written when this one has died.
//!
//! One process maps it at a time: two writers, or a reader beside a writer, would make every `&[u8]` into it a lie.

use greenroom_core::store::Memory;
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use std::ffi::c_void;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence, fence};

/// It grows by so much at a time, to save system calls.
const STEP: usize = 1 << 20;

/// See the module.
pub struct Region {
    fd: OwnedFd,
    base: *mut u8,
    /// Mapped.
    max: usize,
    /// Backed by memory: touching what lies behind is a SIGBUS.
    len: usize,
}

// SAFETY: the mapping belongs to this value alone, whichever thread has it.
unsafe impl Send for Region {}

impl Region {
    /// An empty region that may grow to `max` bytes.
    pub fn create(max: usize) -> io::Result<Region> {
        let fd = memfd_create("greenroom-records", MemfdFlags::CLOEXEC)?;
        let max = max.next_multiple_of(STEP);
        // SAFETY: a fresh mapping at an address of the kernel's choice replaces nothing.
        let base = unsafe {
            mmap(std::ptr::null_mut(), max, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &fd, 0)
        }?;
        // SAFETY: the range was mapped just now. A core dump of gigabytes would hold up whoever takes over.
        let _ = unsafe { madvise(base, max, Advice::LinuxDontDump) };
        Ok(Region { fd, base: base.cast(), max, len: 0 })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference into it outlives the value.
        let _ = unsafe { munmap(self.base.cast::<c_void>(), self.max) };
    }
}

impl Memory for Region {
    #[inline]
    fn bytes(&self) -> &[u8] {
        // SAFETY: mapped and backed up to `len`; written only through `&mut self`, by this process alone.
        unsafe { std::slice::from_raw_parts(self.base, self.len) }
    }

    #[inline]
    fn write(&mut self, at: usize, bytes: &[u8]) {
        assert!(at <= self.len && bytes.len() <= self.len - at, "a write beyond the region");
        // SAFETY: the range lies in the region, as was checked.
        let to = unsafe { self.base.add(at) };
        // SAFETY: `bytes` can't overlap it: references into the region end before `&mut self` begins.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    #[inline]
    fn mark(&mut self) {
        // A killed process's stores stay, in program order: only the compiler must keep it.
        compiler_fence(Ordering::SeqCst);
    }

    #[inline]
    fn commit(&mut self, at: usize, word: u64) {
        assert!(at.is_multiple_of(8) && at + 8 <= self.len, "the epoch is an aligned word of the region");
        fence(Ordering::Release);
        // SAFETY: the word lies in the region, as was checked.
        let word_at = unsafe { self.base.add(at) };
        // SAFETY: aligned, as was checked; nothing else accesses it while `&mut self` lives.
        unsafe { AtomicU64::from_ptr(word_at.cast()) }.store(word.to_le(), Ordering::SeqCst);
        fence(Ordering::SeqCst);
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
    use greenroom_core::store::{Kind, Store, memory_bytes};

    #[test]
    fn a_store_lies_in_it() {
        let limit = 8 << 20;
        let region = Region::create(memory_bytes(limit)).unwrap();
        let mut store = Store::create(Box::new(region), limit).unwrap();
        let refs: Vec<_> =
            (0..5000).map(|k| store.put(None, Kind::State, k, &k.to_le_bytes()).unwrap()).collect();
        store.commit();
        for (k, r) in refs.iter().enumerate() {
            store.read(*r, |b| assert_eq!(b, k.to_le_bytes()));
        }
    }

    #[test]
    fn it_grows_to_its_limit_and_is_zero() {
        let mut region = Region::create(3 << 20).unwrap();
        assert!(region.grow(1) && region.grow(3 << 20) && !region.grow((3 << 20) + 1));
        assert!(region.bytes().iter().all(|b| *b == 0));
        region.write(8, b"12345678");
        region.commit(8, 7);
        assert_eq!(region.bytes()[8..16], 7u64.to_le_bytes());
    }
}
