//! Service of commands: name, role and process that serves each, its time limit, whether it is
//! asked again.
//!
//! Each match has an arm for each command, so a new command can't be forgotten here.

use super::admin::AdminCommand;
use crate::config::admin::Role;
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
    /// nothing, and has an end.
    pub fn is_repeatable(&self) -> bool {
        self.role() == Role::Read && !matches!(self, Self::Watch { .. })
    }

    /// Role that a caller needs for this command. A dry run loads code, if only in a trial.
    pub fn role(&self) -> Role {
        match self {
            Self::Status
            | Self::Metrics
            | Self::Log(None)
            | Self::Sessions { .. }
            | Self::History
            | Self::Await(_)
            | Self::Dump { .. }
            | Self::Canaries
            | Self::Show(_)
            | Self::Tables
            | Self::Entries(_)
            | Self::Watch { .. } => Role::Read,
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
            | Self::Upgrade { .. } => Role::Operate,
        }
    }

    /// Name of this command, as it is typed or near it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Metrics => "metrics",
            Self::Log(_) => "log",
            Self::Sessions { .. } => "sessions",
            Self::History => "history",
            Self::Await(_) => "await",
            Self::Dump { .. } => "state dump",
            Self::Canaries => "canary",
            Self::Show(_) => "state show",
            Self::Tables => "table ls",
            Self::Entries(_) => "table scan",
            Self::Watch { .. } => "trace",
            Self::Release(_) => "session release",
            Self::Close(_) | Self::CloseAll(_) => "session close",
            Self::Message { .. } => "session message",
            Self::Withhold(_) => "session withhold",
            Self::Reload { .. } => "reload",
            Self::Canary { .. } => "reload --canary",
            Self::Promote(_) => "canary promote",
            Self::TakeBack(_) => "canary cancel",
            Self::Configure => "reload --config",
            Self::RollBack { .. } => "rollback",
            Self::Restore { .. } => "state restore",
            Self::Amend { entries: None, .. } => "state edit",
            Self::Amend { entries: Some(entries), .. } if entries.deletes => "table del",
            Self::Amend { .. } => "table put",
            Self::Undo => "undo",
            Self::Set { .. } => "state set",
            Self::Upgrade { .. } => "upgrade",
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
