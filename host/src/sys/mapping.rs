//! A shared mapping of a memory file, and the only place that makes one.
//!
//! One process maps a file of records at a time: two writers, or a reader beside a writer, would
//! make every `&[u8]` into it a lie. A successor maps it after its predecessor was reaped;
//! everybody else reads the file with pread, which is coherent.

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use std::ffi::c_void;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// See the module.
pub struct Mapping {
    base: *mut u8,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone, whichever thread has it.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of a memory file. It may be shorter: touching what it doesn't
    /// have yet is a SIGBUS, so it must have been grown (fallocate) before.
    pub fn new(fd: impl AsFd, len: usize) -> io::Result<Mapping> {
        // SAFETY: a fresh mapping at an address of the kernel's choice replaces nothing.
        let base = unsafe {
            mmap(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, fd, 0)
        }?;
        // SAFETY: the range was mapped just now. A core dump of gigabytes would hold up whoever
        // takes over.
        let _ = unsafe { madvise(base, len, Advice::LinuxDontDump) };
        Ok(Mapping { base: base.cast(), len })
    }

    /// The first `len` bytes, which the caller knows to be there.
    #[inline]
    pub fn bytes(&self, len: usize) -> &[u8] {
        assert!(len <= self.len);
        // SAFETY: mapped; written only through `&mut self`, by this process alone.
        unsafe { std::slice::from_raw_parts(self.base, len) }
    }

    /// A part, to be written.
    #[inline]
    pub fn bytes_mut(&mut self, at: usize, len: usize) -> &mut [u8] {
        assert!(at <= self.len && len <= self.len - at, "a write beyond the mapping");
        // SAFETY: the range lies in the mapping, as was checked.
        let to = unsafe { self.base.add(at) };
        // SAFETY: mapped; `&mut self` says that there is no other reference into it.
        unsafe { std::slice::from_raw_parts_mut(to, len) }
    }

    /// Writes one aligned word at once, after everything before and before everything after it.
    #[inline]
    pub fn store_word(&mut self, at: usize, word: u64) {
        assert!(at.is_multiple_of(8) && at + 8 <= self.len, "an aligned word of the mapping");
        fence(Ordering::Release);
        // SAFETY: the word lies in the mapping, as was checked.
        let word_at = unsafe { self.base.add(at) };
        // SAFETY: aligned, as was checked; nothing else accesses it while `&mut self` lives.
        unsafe { AtomicU64::from_ptr(word_at.cast()) }.store(word.to_le(), Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// All of it as words that several threads may read and write. It stays mapped for ever.
    pub fn leak_words(self) -> &'static [AtomicU64] {
        let (base, words) = (self.base, self.len / 8);
        std::mem::forget(self);
        // SAFETY: the mapping is aligned to pages and stays; words are only accessed atomically
        // from here on.
        unsafe { std::slice::from_raw_parts(base.cast::<AtomicU64>(), words) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference into it outlives the value.
        let _ = unsafe { munmap(self.base.cast::<c_void>(), self.len) };
    }
}
