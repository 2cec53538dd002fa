//! What was committed with a pinned epoch, read out of the memory file while its owner goes on.

use greenroom_core::core::Core;
use greenroom_core::core::Successor;
use greenroom_core::limits::host::Limits;
use greenroom_core::store::memory::Plain;
use greenroom_core::store::records::Store;
use greenroom_core::store::snapshot::{Seen, copy_at};
use std::os::fd::OwnedFd;

/// Builds a core of it, on the heap.
pub fn core_at(region: &OwnedFd, limits: &Limits, epoch: u64) -> Result<Successor, String> {
    core_of(region, limits, epoch, |_| true)
}

/// Builds a core of those records that `keeps` wants.
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
    // Nothing of it runs, so its clock stands.
    Ok(Core::recover(limits.clone(), found, 0))
}
