//! Memory files of a predecessor: records, input that was read, counters.

use crate::clock::now_ns;
use crate::memory::board::Board;
use crate::memory::input::Pool;
use crate::memory::records::Region;
use crate::protocol::keeper::Hello;
use greenroom_core::core::{Core, Successor};
use greenroom_core::store::layout::{Full, memory_bytes};
use greenroom_core::store::records::Store;
use std::io;
use std::os::fd::OwnedFd;

/// The memory files that a worker gets from the keeper. The keeper keeps descriptors of its own, so
/// the content survives this process.
pub(super) struct Files {
    /// Records.
    pub(super) region: OwnedFd,
    /// Input that was read and not committed.
    pub(super) input: OwnedFd,
    /// Counters.
    pub(super) board: OwnedFd,
}

/// The memory files, read and mapped.
pub(super) struct Memory {
    /// Core of the last commit, its sessions and losses; empty for a fresh host.
    pub(super) successor: Successor,
    pub(super) input: Pool,
    pub(super) board: Board,
}

/// Reads a predecessor's memory, or begins with empty memory.
///
/// The cost is one scan of the records. A damaged record costs only the session or entry that it
/// belongs to; a store whose head is damaged is replaced by an empty one.
pub(super) fn open(hello: &Hello, files: &Files) -> Result<Memory, String> {
    let failed = |what: &str, e: io::Error| format!("{what}: {e}");
    let limits = &hello.config.limits;
    let max = memory_bytes(limits.store_bytes_max);
    let duplicate = || files.region.try_clone().map_err(|e| failed("the record store", e));
    let length = rustix::fs::fstat(&files.region).map_err(|e| failed("the record store", e.into()))?.st_size;
    let mut lost = Vec::new();
    let mut successor = None;
    if length > 0 {
        let region = Region::open(duplicate()?, max).map_err(|e| failed("the record store", e))?;
        match Store::recover(Box::new(region), limits.store_bytes_max) {
            Ok(found) => successor = Some(Core::recover(limits.clone(), found, now_ns())),
            Err(why) => lost.push(format!("all sessions and tables: {why}")),
        }
    }
    let successor = match successor {
        Some(successor) => successor,
        None => {
            // The memory holds no store, whatever else it holds. A new store needs zeros.
            rustix::fs::ftruncate(&files.region, 0).map_err(|e| failed("the record store", e.into()))?;
            let region = Region::open(duplicate()?, max).map_err(|e| failed("the record store", e))?;
            let store = Store::create(Box::new(region), limits.store_bytes_max)
                .map_err(|Full| "no memory for the record store".to_owned())?;
            Successor { core: Core::with_store(limits.clone(), store), survivors: Vec::new(), lost }
        }
    };
    let input = Pool::open(&files.input).map_err(|e| failed("the input's memory", e))?;
    let board = Board::open(&files.board).map_err(|e| failed("the counters' memory", e))?;
    Ok(Memory { successor, input, board })
}
