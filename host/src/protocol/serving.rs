//! Service of commands: the process that serves each, its time limit, whether it is asked again.
//!
//! Each match has an arm for each command, so a new command can't be forgotten here.

use super::admin::AdminCommand;
use std::time::Duration;

/// The process that serves an [`AdminCommand`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServedBy {
    /// The keeper answers it, whatever the worker does.
    Keeper,
    /// The worker answers it, on the caller's socket. Without a worker it waits for one.
    Worker,
    /// The keeper reads the configuration file; the worker puts it in force, and answers.
    KeeperThenWorker,
}

impl AdminCommand {
    /// The process that serves this command.
    pub fn served_by(&self) -> ServedBy {
        match self {
            Self::Status | Self::Metrics | Self::Log(_) | Self::Withhold(_) | Self::Upgrade { .. } => {
                ServedBy::Keeper
            }
            Self::Configure => ServedBy::KeeperThenWorker,
            Self::Sessions { .. }
            | Self::History
            | Self::Release(_)
            | Self::Close(_)
            | Self::CloseAll(_)
            | Self::Message { .. }
            | Self::Dump { .. }
            | Self::Show(_)
            | Self::Tables
            | Self::Entries(_)
            | Self::Amend { .. }
            | Self::Undo
            | Self::Reload { .. }
            | Self::Canary { .. }
            | Self::Canaries
            | Self::Promote(_)
            | Self::TakeBack(_)
            | Self::RollBack { .. }
            | Self::Await(_)
            | Self::Restore { .. }
            | Self::Watch { .. }
            | Self::Set { .. } => ServedBy::Worker,
        }
    }

    /// Whether a client may send this command again after its answer broke off: the command changes
    /// nothing.
    pub fn is_repeatable(&self) -> bool {
        match self {
            Self::Status
            | Self::Metrics
            | Self::Log(None)
            | Self::Sessions { .. }
            | Self::History
            | Self::Await(_)
            | Self::Dump { .. } => true,
            Self::Canaries | Self::Show(_) | Self::Tables | Self::Entries(_) => true,
            Self::Log(Some(_))
            | Self::Release(_)
            | Self::Close(_)
            | Self::CloseAll(_)
            | Self::Message { .. }
            | Self::Withhold(_)
            | Self::Reload { .. }
            | Self::Canary { .. }
            | Self::Promote(_)
            | Self::TakeBack(_)
            | Self::Configure
            | Self::RollBack { .. }
            | Self::Restore { .. }
            | Self::Amend { .. }
            | Self::Undo
            | Self::Set { .. }
            | Self::Watch { .. }
            | Self::Upgrade { .. } => false,
        }
    }
}

/// Longest time that a client waits for the next reply of a worker that goes on.
const REPLY_MAX: Duration = Duration::from_secs(60);
/// The same, for what has steps that take long: a rehearsal, a trial, a restore.
const STEP_MAX: Duration = Duration::from_secs(600);

impl AdminCommand {
    /// Longest time that a client waits for the next reply. `None`: the answer comes with the end
    /// of a probation, which has limits of its own, or goes on by itself.
    pub fn reply_max(&self) -> Option<Duration> {
        match self {
            Self::Await(_) | Self::Watch { .. } => None,
            Self::Reload { .. }
            | Self::Canary { .. }
            | Self::Promote(_)
            | Self::Configure
            | Self::RollBack { .. }
            | Self::Restore { .. }
            | Self::Amend { .. }
            | Self::Undo
            | Self::Upgrade { .. } => Some(STEP_MAX),
            Self::Status
            | Self::Metrics
            | Self::Log(_)
            | Self::Sessions { .. }
            | Self::History
            | Self::Release(_)
            | Self::Close(_)
            | Self::CloseAll(_)
            | Self::Message { .. }
            | Self::Withhold(_)
            | Self::Canaries
            | Self::TakeBack(_)
            | Self::Dump { .. }
            | Self::Show(_)
            | Self::Tables
            | Self::Entries(_)
            | Self::Set { .. } => Some(REPLY_MAX),
        }
    }
}
