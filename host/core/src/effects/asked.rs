//! What turns have asked for and is not done: jobs, connections; and what the records of such things cost.
//!
//! Only what is kept. What becomes of it is decided in [`crate::effects::jobs`] and [`crate::effects::outbound`].

use crate::ids::{ServiceId, Slot};
use crate::store::layout::Ref;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;

/// What a job's record costs beside its name and input.
pub(crate) const JOB_HEAD: usize = 16;
/// What a connect's record costs beside the address and the context.
pub(crate) const CONNECT_HEAD: usize = 16;
/// An address as text.
pub(crate) const ADDR_BYTES_MAX: usize = 64;
/// From so many bytes on, a message for several sessions is one record, which theirs name.
pub(crate) const SHARED_FROM_BYTES: usize = 128;
/// What an action's record costs beside its name and data.
pub(crate) const ACTION_HEAD: usize = 32;

/// All jobs that didn't end.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    pub(crate) all: BTreeMap<u64, Job>,
    /// Those that wait for a thread, oldest first.
    pub(crate) queue: VecDeque<u64>,
    /// Threads that are taken.
    pub(crate) running: usize,
    /// Of those, the ones whose results nobody wants any more.
    pub(crate) abandoned: BTreeSet<u64>,
    /// Those whose beginning is committed with this pass.
    pub(crate) begun: Vec<u64>,
    pub(crate) last: u64,
    /// None begins any more.
    pub(crate) held: bool,
}

#[derive(Debug)]
pub(crate) struct Job {
    /// The session's number, or the service's.
    pub(crate) owner: u64,
    pub(crate) service: ServiceId,
    pub(crate) record: Ref,
    pub(crate) running: bool,
}

impl Jobs {
    /// The number that the next job gets.
    pub(crate) fn next(&self) -> u64 {
        self.last + 1
    }

    /// How many didn't end.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether some are to begin.
    pub(crate) fn are_begun(&self) -> bool {
        !self.begun.is_empty()
    }

    /// How many of an owner's didn't end. O(jobs): of which there are few.
    pub(crate) fn count(&self, owner: u64) -> usize {
        self.all.values().filter(|j| j.owner == owner).count()
    }
}

/// Connections that are being made, and who waits for whom.
#[derive(Debug, Default)]
pub(crate) struct Connects {
    pub(crate) all: BTreeMap<u64, Connect>,
    /// Asked for in this pass.
    pub(crate) begun: Vec<u64>,
    pub(crate) last: u64,
    /// Sessions whose input waits until another one's peer has taken its output: by that one.
    pub(crate) held: HashMap<Slot, Vec<Slot>>,
}

#[derive(Debug)]
pub(crate) struct Connect {
    /// The session's number, or the service's.
    pub(crate) owner: u64,
    pub(crate) service: ServiceId,
    pub(crate) addr: SocketAddr,
    pub(crate) record: Ref,
}

impl Connects {
    /// The number that the next one gets.
    pub(crate) fn next(&self) -> u64 {
        self.last + 1
    }

    /// How many are being made.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether some are to be asked for.
    pub(crate) fn are_begun(&self) -> bool {
        !self.begun.is_empty()
    }
}
