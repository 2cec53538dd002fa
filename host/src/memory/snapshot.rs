//! Snapshots: a core of the records of a pinned epoch, read while their owner goes on.
//!
//! Another thread or process may make one: the file is read with pread and not mapped. The result
//! counts only if the owner's `unpin` says that the epoch stayed pinned to the end. Otherwise the
//! snapshot may be a mix of epochs.
//!
//! The periodic save, the rehearsal of a reload and the trial of an upgrade use this. Costs two
//! reads of the memory, a copy of the kept records, and the core that is built from them.

use greenroom_core::core::Core;
use greenroom_core::core::Successor;
use greenroom_core::limits::host::Limits;
use greenroom_core::store::memory::Plain;
use greenroom_core::store::records::Store;
use greenroom_core::store::snapshot::{Seen, copy_at};
use std::os::fd::OwnedFd;

/// Builds a core of all records, on the heap. Fails if the file cannot be read, or is of a layout
/// that this version does not know.
pub fn core_at(region: &OwnedFd, limits: &Limits, epoch: u64) -> Result<Successor, String> {
    core_of(region, limits, epoch, |_| true)
}

/// Builds a core of those records that `keeps` wants. The others cost no memory. Damaged records
/// are named in the result's `lost`.
pub fn core_of(
    region: &OwnedFd,
    limits: &Limits,
    epoch: u64,
    keeps: impl FnMut(&Seen<'_>) -> bool,
) -> Result<Successor, String> {
    let len = rustix::fs::fstat(region).map_err(|e| e.to_string())?.st_size as usize;
    let read = |at: usize, into: &mut [u8]| {
        let mut filled = 0;
        while filled < into.len() {
            match rustix::io::pread(region, &mut into[filled..], (at + filled) as u64) {
                Ok(0) => return Err("the record store ends early".into()),
                Ok(n) => filled += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(format!("the record store can't be read: {e}")),
            }
        }
        Ok(())
    };
    let image = copy_at(len, epoch, limits.store_bytes_max, read, keeps)?;
    let found = Store::recover(Box::new(Plain::from(image)), limits.store_bytes_max)?;
    // No pass runs on a snapshot, so the clock need not go on.
    Ok(Core::recover(limits.clone(), found, 0))
}
