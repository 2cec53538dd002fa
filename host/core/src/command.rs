//! Commands for the shell after the commit: close, shut down, log, resume reading.

use crate::ids::{ServiceId, Slot};
use crate::ledger::ProbationCounts;
use crate::service::offer::Build;
use crate::service::probation::ProbationEnd;
use crate::turn::fault::{Fault, LogLine};

/// What the shell is to do, after the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// End our side of the stream.
    Shutdown(Slot),
    /// Close the connection; the slot is free from the next pass on.
    Close {
        /// Of this slot.
        slot: Slot,
        /// Its number.
        id: u64,
    },
    /// Whatever the kernel holds for this connection is not to be sent any more: it is about to be
    /// closed.
    Reset(Slot),
    /// Read the connection again, whatever the poll says: reading had been suspended.
    Resume(Slot),
    /// A handler logged something.
    Log {
        /// By this service.
        service: ServiceId,
        /// In a turn of this session.
        session: u64,
        /// What.
        line: LogLine,
    },
    /// A turn failed.
    Fault {
        /// Of this service.
        service: ServiceId,
        /// Of this session.
        session: u64,
        /// The kind of its action, one of [`greenroom_state::abi::action`].
        action: u32,
        /// Why.
        fault: Fault,
        /// The generation before, which ran it in its place: the client didn't notice.
        answered_by: Option<u64>,
    },
    /// A build's probation is over; one that failed is to be rolled back.
    ProbationEnd {
        /// The build.
        build: Build,
        /// What it did.
        record: ProbationCounts,
        /// How it ended.
        proof: ProbationEnd,
    },
    /// Nobody wants this job's result any more.
    CancelJob(u64),
    /// The core has something to say to the operator.
    Notice {
        /// One of [`greenroom_state::abi::level`].
        level: u32,
        /// About this service.
        service: ServiceId,
        /// About this session.
        session: u64,
        /// What.
        message: String,
    },
}
