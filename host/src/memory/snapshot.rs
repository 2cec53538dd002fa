//! Snapshots: a core of the records of a pinned epoch, read while their owner goes on.
//!
//! Another thread or process may make one: the file is read with pread and not mapped. The result
//! counts only if the owner's `unpin` says that the epoch stayed pinned to the end. Otherwise the
//! snapshot may be a mix of epochs.
//!
//! A snapshot holds no secret of a session over TLS: no copy could go on with the session.
//!
//! The rehearsal of a reload and the trial of an upgrade use a core. It costs two reads of the
//! memory, a copy of the kept records, and the core that is built from them. The periodic save sees
//! each record as it is read, and costs no copy.

use greenroom_core::core::Core;
use greenroom_core::core::Successor;
use greenroom_core::limits::host::Limits;
use greenroom_core::store::kind::Kind;
use greenroom_core::store::memory::Plain;
use greenroom_core::store::records::Store;
use greenroom_core::store::snapshot::{Seen, copy_at, each_at};
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
    mut keeps: impl FnMut(&Seen<'_>) -> bool,
) -> Result<Successor, String> {
    let keeps = |seen: &Seen<'_>| seen.kind != Kind::Tls && keeps(seen);
    let image = copy_at(len_of(region)?, epoch, limits.store_bytes_max, reader(region), keeps)?;
    let mut found = Store::recover(Box::new(Plain::from(image)), limits.store_bytes_max)?;
    found.without_secrets = true;
    // No pass runs on a snapshot, so the clock need not go on.
    Ok(Core::recover(limits.clone(), found, 0))
}

/// Shows each record, in no order, without a copy of the store. Memory is that of two slabs.
pub fn each_record(
    region: &OwnedFd,
    limits: &Limits,
    epoch: u64,
    each: impl FnMut(&Seen<'_>) -> Result<(), String>,
) -> Result<(), String> {
    each_at(len_of(region)?, epoch, limits.store_bytes_max, reader(region), each)
}

/// Length of the memory file. To be taken after the pin.
fn len_of(region: &OwnedFd) -> Result<usize, String> {
    Ok(rustix::fs::fstat(region).map_err(|e| e.to_string())?.st_size as usize)
}

/// Reader of the memory file, from an offset.
fn reader(region: &OwnedFd) -> impl FnMut(usize, &mut [u8]) -> Result<(), String> {
    move |at, into| {
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
    }
}
