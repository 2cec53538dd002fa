//! Counts and buckets of the log, which the threads that log share with the one that writes.

use super::buckets::Buckets;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Set: the writing thread opens the file again before it writes the next line.
pub(super) static REOPEN: AtomicBool = AtomicBool::new(false);
/// Lines that were offered to the writing thread.
pub(super) static OFFERED: AtomicU64 = AtomicU64::new(0);
/// Offered lines that found no room.
pub(super) static DROPPED: AtomicU64 = AtomicU64::new(0);
/// Offered lines that were written, or lost.
pub(super) static DONE: AtomicU64 = AtomicU64::new(0);
/// Lines of each kind in the last seconds. Locked for moments, by all threads.
static BUCKETS: Mutex<Buckets> = Mutex::new(Buckets::new());

/// Locks the buckets. A thread that panicked meanwhile has left counts, which are good still.
pub(super) fn buckets() -> MutexGuard<'static, Buckets> {
    BUCKETS.lock().unwrap_or_else(PoisonError::into_inner)
}
