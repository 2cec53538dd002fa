//! Commands for the shell after the commit: close, shut down, log, resume reading.

use crate::ids::{ServiceId, Slot};
use crate::ledger::ProbationCounts;
use crate::service::offer::Build;
use crate::service::probation::ProbationEnd;
use crate::turn::fault::{Fault, LogLine};

/// A command that the shell carries out after the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// End our side of the stream.
    Shutdown(Slot),
    /// Close the connection; the slot is free from the next pass on.
    Close {
        /// Slot of the connection.
        slot: Slot,
        /// Number of the session that ended.
        id: u64,
    },
    /// The kernel drops the output it still holds for this connection: a close follows.
    Reset(Slot),
    /// Read the connection again, whatever the poll says: reading had been suspended.
    Resume(Slot),
    /// A handler logged something.
    Log {
        /// The service whose handler logged.
        service: ServiceId,
        /// The session whose turn logged; 0: a turn of the service's own.
        session: u64,
        /// The line and its level.
        line: LogLine,
    },
    /// A turn failed.
    Fault {
        /// The service whose turn failed.
        service: ServiceId,
        /// The session whose turn failed; 0: a turn of the service's own.
        session: u64,
        /// The kind of its action, one of [`greenroom_state::abi::action`].
        action: u32,
        /// The reason.
        fault: Fault,
        /// The generation before, which ran it in its place: the client didn't notice.
        answered_by: Option<u64>,
    },
    /// A build's probation is over; one that failed is to be rolled back.
    ProbationEnd {
        /// The build.
        build: Build,
        /// Counts of the turns that the build ran in its probation.
        record: ProbationCounts,
        /// The outcome.
        proof: ProbationEnd,
    },
    /// Nobody wants this job's result any more.
    CancelJob(u64),
    /// The core has something to say to the operator.
    Notice {
        /// The level, one of [`greenroom_state::abi::level`].
        level: u32,
        /// The service that it is about.
        service: ServiceId,
        /// The session that it is about; 0: the service itself.
        session: u64,
        /// The text, in words for the operator.
        message: String,
    },
}
