//! Shared mappings of memory files. This is the only place that makes one.
//!
//! *Invariant*: at most one process maps a file of records or input at a time. Two writers, or a
//! reader beside a writer, would break the promise of every `&[u8]` into it. A successor maps the
//! file after its predecessor was reaped. Other readers use pread, which is coherent.
//!
//! The board has a reader beside its writer, so it is mapped as words that are only accessed
//! atomically ([`Mapping::leak_words`]).
//!
//! A fork does not inherit a mapping. A child that a handler forks, and that returns to the loop,
//! would be a second writer: it ends with SIGSEGV at its first access instead.
//!
//! A mapping may be longer than its file. Memory that the file lacks must not be touched: the
//! kernel would end the process with SIGBUS. Callers grow the file with fallocate first, and say
//! how far ([`Mapping::is_backed_to`]). Nothing beyond is lent.

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use std::ffi::c_void;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// A mapping, which ends with the value. The module has the contract.
pub struct Mapping {
    /// Begin of the mapping, at a page.
    base: *mut u8,
    /// Bytes that are mapped, whether the file has them or not.
    len: usize,
    /// Bytes that the file has, as callers said: at most `len`.
    backed: usize,
}

// SAFETY: the mapping belongs to this value alone, whichever thread has it.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of a memory file, which may be shorter. The mapping keeps the
    /// memory alive, so the descriptor may be closed. Nothing is lent before
    /// [`Mapping::is_backed_to`]. Fails if there are not so many addresses.
    pub fn new(fd: impl AsFd, len: usize) -> io::Result<Mapping> {
        // SAFETY: a fresh mapping at an address of the kernel's choice replaces nothing.
        let base = unsafe {
            mmap(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, fd, 0)
        }?;
        // SAFETY: the range was mapped just now. Without this, a core dump of gigabytes would delay
        // the successor.
        let _ = unsafe { madvise(base, len, Advice::LinuxDontDump) };
        // SAFETY: as above. A child that a handler forks does not have the range, and dies where it
        // would write.
        unsafe { madvise(base, len, Advice::LinuxDontFork) }?;
        Ok(Mapping { base: base.cast(), len, backed: 0 })
    }

    /// Says that the file has its first `bytes` bytes, so they may be touched. Panics beyond the
    /// mapping.
    pub fn is_backed_to(&mut self, bytes: usize) {
        assert!(bytes <= self.len, "no more than was mapped");
        self.backed = bytes;
    }

    /// All bytes that the file has.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: mapped; written only through `&mut self`, by this process alone.
        unsafe { std::slice::from_raw_parts(self.base, self.backed) }
    }

    /// A part, to be written. Panics if the file lacks it.
    #[inline]
    pub fn bytes_mut(&mut self, at: usize, len: usize) -> &mut [u8] {
        // One comparison: each record is written by several calls.
        assert!(at.checked_add(len).is_some_and(|end| end <= self.backed), "a write beyond the memory");
        // SAFETY: the range lies in the mapping, as was checked.
        let to = unsafe { self.base.add(at) };
        // SAFETY: mapped; `&mut self` says that there is no other reference into it.
        unsafe { std::slice::from_raw_parts_mut(to, len) }
    }

    /// Writes one aligned word at once, little-endian, after everything before and before
    /// everything after it. Panics if the word is unaligned, or if the file lacks it.
    #[inline]
    pub fn store_word(&mut self, at: usize, word: u64) {
        assert!(at.is_multiple_of(8) && at + 8 <= self.backed, "an aligned word of the mapping");
        fence(Ordering::Release);
        // SAFETY: the word lies in the mapping, as was checked.
        let word_at = unsafe { self.base.add(at) };
        // SAFETY: aligned, as was checked; nothing else accesses it while `&mut self` lives.
        unsafe { AtomicU64::from_ptr(word_at.cast()) }.store(word.to_le(), Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Turns the mapping into words that several threads may read and write. The memory stays
    /// mapped for the life of the process.
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
