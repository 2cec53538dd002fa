//! Requests and replies on the admin socket: an [`AdminCommand`] as a line of JSON, then
//! [`Reply`]s, a line each.
//!
//! A request is one line of at most 64 KiB. Only [`AdminCommand::Restore`] has more to send: after
//! [`Reply::Go`], [`Piece`]s follow, a line each. An answer ends with [`Reply::End`] or
//! [`Reply::Error`]. If the socket closes before, the answer broke off, and the client decides by
//! [`AdminCommand::is_repeatable`] whether to ask again.
//!
//! Both sides are of the same version of the binary. Programs depend on the output of `--json`, not
//! on this protocol. The types of a line of `--json` are here, too: their field names are public,
//! so fields are only added.

use greenroom_core::ledger::Report;
use greenroom_state::dump::DumpedEntry;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// End of the reason of a refusal that a fresh worker may not repeat. A command asks again then.
pub const FRESH_WORKER: &str = "a fresh worker takes over and has room: try again";

/// A request of a command to the host.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdminCommand {
    /// Host and services.
    Status,
    /// All sessions.
    Sessions,
    /// The ledger.
    History,
    /// End a session's quarantine.
    Release(u64),
    /// Close a session.
    Close(u64),
    /// End a worker whose callback does not return, and withhold its action: of a session, by its
    /// number, or of a service itself, by its name.
    Withhold(String),
    /// The state dump.
    Dump {
        /// Only this service.
        service: Option<String>,
        /// Only this session.
        session: Option<u64>,
        /// Integers beyond 2^53 are written as strings in a tag.
        #[serde(default)]
        strings: bool,
    },
    /// A reload.
    Reload {
        /// A service or library; none: all.
        service: Option<String>,
        /// Another file.
        from: Option<PathBuf>,
        /// All in one commit.
        together: bool,
        /// Stop before anything changes, and report.
        dry_run: bool,
    },
    /// Read the configuration file again, and put it in force.
    Configure,
    /// Put an earlier build back in charge.
    RollBack {
        /// A service or library.
        service: String,
        /// Generation to go back to; none: the previous one.
        to: Option<u64>,
    },
    /// Wait for the end of the probation that this line of the ledger tells of.
    Await(u64),
    /// Restore states and tables: [`Piece`]s follow, once the answer is [`Reply::Go`].
    Restore {
        /// The dump's file, as the ledger names it.
        file: String,
        /// Stop before anything changes, and report.
        dry_run: bool,
    },
    /// Set fields of a session's state.
    Set {
        /// The session.
        session: u64,
        /// Paths and values.
        fields: Vec<(String, Value)>,
    },
    /// Replace the worker by one from another binary.
    Upgrade {
        /// File of the binary, as an absolute path.
        binary: PathBuf,
    },
}

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
            Self::Status | Self::Withhold(_) | Self::Upgrade { .. } => ServedBy::Keeper,
            Self::Configure => ServedBy::KeeperThenWorker,
            Self::Sessions
            | Self::History
            | Self::Release(_)
            | Self::Close(_)
            | Self::Dump { .. }
            | Self::Reload { .. }
            | Self::RollBack { .. }
            | Self::Await(_)
            | Self::Restore { .. }
            | Self::Set { .. } => ServedBy::Worker,
        }
    }

    /// Whether a client may send this command again after its answer broke off: the command changes
    /// nothing.
    pub fn is_repeatable(&self) -> bool {
        match self {
            Self::Status | Self::Sessions | Self::History | Self::Await(_) | Self::Dump { .. } => true,
            Self::Release(_)
            | Self::Close(_)
            | Self::Withhold(_)
            | Self::Reload { .. }
            | Self::Configure
            | Self::RollBack { .. }
            | Self::Restore { .. }
            | Self::Set { .. }
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
    /// of a probation, which has limits of its own.
    pub fn reply_max(&self) -> Option<Duration> {
        match self {
            Self::Await(_) => None,
            Self::Reload { .. }
            | Self::Configure
            | Self::RollBack { .. }
            | Self::Restore { .. }
            | Self::Upgrade { .. } => Some(STEP_MAX),
            Self::Status
            | Self::Sessions
            | Self::History
            | Self::Release(_)
            | Self::Close(_)
            | Self::Withhold(_)
            | Self::Dump { .. }
            | Self::Set { .. } => Some(REPLY_MAX),
        }
    }
}

/// A part of what follows [`AdminCommand::Restore`], a line each; `End` or `Malformed` is the last.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Piece {
    /// A session's state.
    Session {
        /// Number of the session.
        id: u64,
        /// Service of the session.
        service: String,
        /// The state's version; 0: it has none.
        state_version: u32,
        /// The state.
        state: Value,
    },
    /// Entries of this table follow: they replace all that it holds.
    Table {
        /// Name of the table.
        name: String,
        /// Version of values that do not name one.
        version: Option<u32>,
    },
    /// An entry.
    Entry(DumpedEntry),
    /// The file is not a dump, for this reason.
    Malformed(String),
    /// The last piece.
    End,
}

/// A part of an answer, a line each; `End` or `Error` is the last.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// To [`AdminCommand::Status`].
    Status(Box<Status>),
    /// To [`AdminCommand::Sessions`], in slices.
    Sessions(Vec<SessionLine>),
    /// To [`AdminCommand::History`], in slices.
    History(Vec<LedgerLine>),
    /// To [`AdminCommand::Dump`], a piece of the document.
    Text(String),
    /// To [`AdminCommand::Reload`]: a library, sessions and entries rehearsed, and their total.
    Progress(String, u64, u64),
    /// To [`AdminCommand::Reload`] and [`AdminCommand::RollBack`], one for each library; to
    /// [`AdminCommand::Await`], [`AdminCommand::Restore`] and [`AdminCommand::Set`].
    Report(Box<Report>),
    /// To [`AdminCommand::Restore`]: send the pieces.
    Go,
    /// To [`AdminCommand::Set`]: the state before and after; before the report.
    Set(Value, Value),
    /// The end of an answer.
    End,
    /// A refusal, with its reason.
    Error(String),
}

/// `greenroom status --json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// The host.
    pub host: HostStatus,
    /// Services that are not withdrawn.
    pub services: Vec<ServiceStatus>,
}

/// The host in a status.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HostStatus {
    /// The keeper's process.
    pub pid: u32,
    /// The worker's process; 0: none at the moment.
    pub worker_pid: u32,
    /// The binary's version.
    pub version: String,
    /// Seconds since the keeper started.
    pub uptime_s: u64,
    /// The worker's phase: `serving`, `starting`, `handing over`, or `parked`: none lives, and the
    /// connections wait for the next one.
    pub worker: String,
    /// Workers before this one.
    pub workers_before: u64,
    /// Reason why the previous worker ended, or why none can start.
    pub reason: Option<String>,
    /// Connections that are held.
    pub connections: usize,
    /// Of those, connections whose peers have left while no worker serves. A worker ends them.
    #[serde(default)]
    pub peers_left: usize,
    /// Times that each limit was reached since the host started.
    #[serde(default)]
    pub limits: BTreeMap<String, u64>,
    /// Work of the worker that has taken longer than a second. `null`: it goes on, or there is
    /// none.
    #[serde(default)]
    pub stalled: Option<Stalled>,
    /// Parts that fail at the moment, each until it succeeds.
    #[serde(default)]
    pub failing: Vec<Failing>,
    /// Files of the host that are missing at the moment, each with the reason.
    #[serde(default)]
    pub missing: Vec<String>,
    /// Times that files were gone and were made anew since the host started: `copies`, `locks`,
    /// `socket`.
    #[serde(default)]
    pub made_anew: BTreeMap<String, u64>,
    /// Milliseconds of the longest pass of the loop since the host started, as the watchdog saw it.
    #[serde(default)]
    pub longest_pass_ms: u64,
    /// Library files that are not the build that runs.
    #[serde(default)]
    pub files: Vec<FileStatus>,
    /// Reason why the system gives no notice of changed files, so that they are only looked at from
    /// time to time; null: it does.
    #[serde(default)]
    pub slow_look: Option<String>,
    /// Confinement of candidates in their trials, as it was when the host started.
    #[serde(default)]
    pub confinement: Confined,
}

/// A library's file that is not the build that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileStatus {
    /// Path of the file, as it is watched.
    pub path: PathBuf,
    /// Name of the library; null: no build of the file ran.
    pub library: Option<String>,
    /// SHA-256 of the file; null: it cannot be read.
    pub build: Option<String>,
    /// SHA-256 of the build that runs; null: none.
    pub runs: Option<String>,
    /// Reason why the file was refused, or cannot be read; null: it was not tried.
    pub reason: Option<String>,
}

/// Work of a worker that takes long, in a status.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stalled {
    /// All of it, in words.
    pub text: String,
    /// Time so far, in milliseconds.
    pub for_ms: u64,
    /// The process is stopped by a signal, or by a debugger.
    pub stopped: bool,
    /// The action that runs. `null`: no handler runs.
    pub running: Option<StalledAction>,
}

impl Stalled {
    /// The stall in words, and what an operator can do.
    pub fn with_way_out(&self) -> String {
        let of = self.running.as_ref().map(|action| match action.session {
            0 => action.service.clone(),
            number => number.to_string(),
        });
        let way = of.map(|of| format!("; `greenroom session withhold {of}` ends that"));
        format!("it is stalled: {}{}", self.text, way.unwrap_or_default())
    }
}

/// An action that takes long.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StalledAction {
    /// Name of the service.
    pub service: String,
    /// The library that serves it.
    pub library: String,
    /// Generation of the library.
    pub generation: u64,
    /// Number of the session; 0: the service itself.
    pub session: u64,
    /// Kind of the action.
    pub action: String,
    /// Number of the turn, from 1; 0: the service itself.
    pub turn: u64,
    /// Function, file and line, if known.
    pub place: Option<String>,
}

/// A part of the host that fails, in a status.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failing {
    /// Name of the part: `save`, `configuration`, `connections`, or `library PATH`.
    pub what: String,
    /// Reason of the last failure.
    pub why: String,
    /// Time of the first failure in a row, in RFC 3339.
    pub since: String,
    /// Failures in a row.
    pub times: u64,
}

/// Parts of the confinement of a candidate that can be put in force.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Confined {
    /// Changes of files are refused.
    pub landlock: bool,
    /// System calls beyond those of a computation are refused.
    pub seccomp: bool,
    /// The candidate can't name other processes. Not required by any configuration.
    pub namespaces: bool,
    /// Parts that are missing, of landlock and seccomp, each with the reason.
    pub missing: Vec<String>,
}

/// A service in a status.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Name of the service.
    pub name: String,
    /// The library that serves it.
    pub library: String,
    /// Generation of the library.
    pub generation: u64,
    /// SHA-256 of the library's file.
    pub build: String,
    /// Version of the service's state.
    pub state_version: u32,
    /// Addresses that the service listens on.
    pub listen: Vec<String>,
    /// Sessions alive.
    pub sessions: usize,
    /// Turns run since the host started.
    pub turns: u64,
    /// Of those, turns that failed.
    pub faults: u64,
    /// Jobs of the service.
    #[serde(default)]
    pub jobs: JobsStatus,
}

/// The jobs of a service in a status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobsStatus {
    /// Threads taken, those of jobs that nobody waits for included.
    pub running: u64,
    /// Jobs that wait for a thread.
    pub waiting: u64,
    /// Milliseconds that the oldest running job has been running; null: none runs.
    pub oldest_ms: Option<u64>,
}

/// A line of `greenroom sessions --json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct SessionLine {
    /// Number of the session.
    pub id: u64,
    /// Service of the session.
    pub service: String,
    /// The peer's address.
    pub peer: String,
    /// RFC 3339.
    pub opened_at: String,
    /// Version of the stored state; 0: none.
    pub state_version: u32,
    /// Turns run.
    pub turns: u64,
    /// Bytes taken from the peer.
    pub bytes_in: u64,
    /// Bytes produced for the peer.
    pub bytes_out: u64,
    /// Reason of its quarantine; null: none.
    pub quarantined: Option<String>,
}

/// A line of the ledger, `greenroom history --json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LedgerLine {
    /// RFC 3339.
    pub at: String,
    /// The requester.
    pub by: String,
    /// The report.
    #[serde(flatten)]
    pub report: Report,
}
