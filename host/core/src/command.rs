//! Commands for the shell after the commit: close, shut down, log, resume reading.
//!
//! Turns and stages queue commands during a pass. The shell takes them with
//! [`crate::core::Core::take_commands`] behind the commit, and carries them out in order.
//!
//! If the process dies before that, its commands are lost. A successor finds in the records
//! which connections are closed and which jobs begin again. Log lines are missing, and a
//! probation whose end was lost begins again.
//!
//! Output, jobs and connections to make are no commands: the shell takes them by calls of their
//! own.

use crate::effects::job_shares::JobCounts;
use crate::ids::{ServiceId, Slot};
use crate::ledger::ProbationCounts;
use crate::service::canaries::CanaryVerdict;
use crate::service::offer::Build;
use crate::service::probation::ProbationEnd;
use crate::turn::code::Work;
use crate::turn::fault::{Fault, LogLine};
use std::sync::Arc;

/// Command that the shell carries out after the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Ends our side of the stream. The session lingers until its peer ends the other side.
    Shutdown(Slot),
    /// Closes the connection. The slot may be used again from the next pass on.
    Close {
        /// Slot of the connection.
        slot: Slot,
        /// Number of the session that ended.
        id: u64,
    },
    /// Begins the handshake that makes the connection one of TLS, unless it is under way: a
    /// predecessor may have begun it. [`crate::core::Core::handshake_of`] has what it needs.
    StartTls {
        /// Slot of the connection.
        slot: Slot,
        /// Number of the session.
        id: u64,
    },
    /// Lets the kernel drop the output that it still holds for the connection. A close follows.
    /// The peer takes no output, and the kernel would keep it outside every limit.
    Reset(Slot),
    /// Reads the connection again, whatever the poll says. Reading was suspended, and an
    /// edge-triggered poll may report nothing about bytes that came meanwhile.
    Resume(Slot),
    /// Logs a line of a handler.
    Log {
        /// Service whose handler has logged.
        service: ServiceId,
        /// Session whose turn has logged; 0: a turn of the service's own.
        session: u64,
        /// Generation whose code has logged.
        generation: u64,
        /// Line with its level.
        line: LogLine,
    },
    /// Logs a turn that failed.
    Fault {
        /// Service whose turn failed.
        service: ServiceId,
        /// Generation of the build that failed.
        generation: u64,
        /// Session whose turn failed; 0: a turn of the service's own.
        session: u64,
        /// Kind of its action, one of [`greenroom_state::abi::action`].
        action: u32,
        /// Reason of the failure.
        fault: Fault,
        /// Generation of the previous build, if that ran the turn in its place: the client did
        /// not notice.
        answered_by: Option<u64>,
    },
    /// Ends the probation of a build in records and reports. A build that failed is to be
    /// rolled back.
    ProbationEnd {
        /// Build that was on probation.
        build: Build,
        /// Counts of the turns that the build ran on probation.
        record: ProbationCounts,
        /// Outcome of the probation.
        proof: ProbationEnd,
    },
    /// Ends a canary, or has its candidate serve, as its terms say.
    CanaryDue {
        /// Candidate.
        build: Build,
        /// End of the canary.
        verdict: CanaryVerdict,
    },
    /// Tells the thread of a job that no session waits for its result. The job may run to its
    /// end.
    CancelJob(u64),
    /// Shows operators the jobs of each service that has or had some: the counts changed.
    ShowJobs(Vec<JobCounts>),
    /// Gives up the connection of this number that is being made: no session waits for it. Its
    /// outcome is reported like any other, and frees its place.
    GiveUpConnect(u64),
    /// Logs a message of the core for operators.
    Notice {
        /// Level, one of [`greenroom_state::abi::level`].
        level: u32,
        /// Service that the message is about.
        service: ServiceId,
        /// Session that the message is about; 0: the service itself.
        session: u64,
        /// Text, in words for the operator.
        message: String,
    },
}

/// Job that begins with a commit.
pub struct Begun {
    /// Number of the job, by which [`crate::input::Input::JobDone`] reports its end.
    pub number: u64,
    /// Service that asked for the job.
    pub service: ServiceId,
    /// Name of its function.
    pub name: String,
    /// Input of its function.
    pub input: Vec<u8>,
    /// Code that runs the job, kept alive by it; `None`: the service has no jobs.
    pub work: Option<Arc<dyn Work>>,
}
