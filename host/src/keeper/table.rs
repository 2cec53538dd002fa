//! Table of the keeper's open files: how much of it connections may take.
//!
//! Each connection is a descriptor. If they took all, no successor could be started, no operator
//! would get in, and no reload could open a port. So accepting and dialing stop before the limit.
//!
//! | kept back | for |
//! | --- | --- |
//! | [`START_PLACES`], by files that hold them | the start of a worker's process |
//! | up to [`RESERVE_MAX`], by the number of the last descriptor | operators, ports of a reload |
//!
//! A worker has the same limit, and a descriptor for each connection, too.

use crate::sys::descriptors::{in_use, limit, next_number};

/// Places for the start of a process: a socket pair, the pipes of the start, the first message, a
/// private copy that is written anew.
pub(super) const START_PLACES: usize = 12;
/// Places that connections leave free at most, beside those. If the limit is low, they leave half
/// of what the keeper itself does not use.
const RESERVE_MAX: usize = 64;
/// Descriptors of a worker beside its connections, with room for what its handlers open.
const WORKERS_OWN: usize = 32;

/// The table of open files.
#[derive(Default)]
pub(super) struct FileTable {
    /// Descriptors of the keeper without its connections. 0: not counted yet.
    own: usize,
}

impl FileTable {
    /// Connections that may be added to this many. The error says why none may. Costs one system
    /// call, or three close to the limit.
    pub(super) fn room(&mut self, connections: usize) -> Result<usize, String> {
        let limit = limit();
        if self.own == 0 {
            self.own = in_use().unwrap_or(WORKERS_OWN).saturating_sub(connections);
        }
        let about = self.own + connections + 4 * RESERVE_MAX;
        if about < limit {
            return Ok(limit - about);
        }
        let reserve = (limit.saturating_sub(self.own) / 2).min(RESERVE_MAX);
        let used = next_number().unwrap_or(limit);
        let here = limit.saturating_sub(used.saturating_add(reserve));
        let in_worker = limit.saturating_sub(connections + WORKERS_OWN.min(self.own));
        match here.min(in_worker) {
            0 => Err(format!(
                "{used} of {limit} open files are in use, and the rest is kept for successors and operators"
            )),
            room => Ok(room),
        }
    }
}
