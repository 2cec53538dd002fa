//! What commands and hosts say to each other: a [`Command`] as a line of JSON, then [`Reply`]s, a line each.
//!
//! Between one version of the binary and itself. What programs depend on is the commands' output, which `--json` makes of it.

use greenroom_core::ledger::{Outcome, ProbationState, Report, Restored};
use greenroom_state::dump::DumpedEntry;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Host and services.
    Status,
    /// All sessions.
    Sessions,
    /// The ledger.
    History,
    /// Let a quarantined session go on.
    Release(u64),
    /// Close a session.
    Close(u64),
    /// The state dump.
    Dump {
        /// Only this service.
        service: Option<String>,
        /// Only this session.
        session: Option<u64>,
    },
    /// A reload.
    Reload {
        /// A service or library; none: all.
        service: Option<String>,
        /// Another file.
        from: Option<PathBuf>,
        /// All in one commit.
        together: bool,
        /// Only to know what would come of it.
        dry_run: bool,
    },
    /// Read the configuration again, and put it in force.
    Configure,
    /// A build that ran before is to serve again.
    RollBack {
        /// A service or library.
        service: String,
        /// Its generation; none: the one before.
        to: Option<u64>,
    },
    /// How the probation of a line of the ledger ended, once it has.
    Await(u64),
    /// States and tables are to be put back: [`Piece`]s follow, once the answer is [`Reply::Go`].
    Restore {
        /// The dump's file, as the ledger names it.
        file: String,
        /// Only to know what would come of it.
        dry_run: bool,
    },
    /// Fields of a session's state are to be set.
    Set {
        /// The session.
        session: u64,
        /// Paths and values.
        fields: Vec<(String, Value)>,
    },
    /// Go on with a worker from another binary.
    Upgrade {
        /// Its file.
        binary: PathBuf,
    },
}

/// What follows [`Command::Restore`], a line each; `End` or `Malformed` is the last.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Piece {
    /// A session's state.
    Session {
        /// Its number.
        id: u64,
        /// Its service.
        service: String,
        /// The state's version; 0: it has none.
        state_version: u32,
        /// The state.
        state: Value,
    },
    /// Entries of this table follow: it is to have them and no others.
    Table {
        /// Its name.
        name: String,
        /// The version of its values, for those that don't say it.
        version: Option<u32>,
    },
    /// An entry.
    Entry(DumpedEntry),
    /// The file is no dump, for this reason.
    Malformed(String),
    /// That was all.
    End,
}

/// What is answered, a line each; `End` or `Error` is the last.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// To [`Command::Status`].
    Status(Status),
    /// To [`Command::Sessions`], in slices.
    Sessions(Vec<SessionLine>),
    /// To [`Command::History`], in slices.
    History(Vec<LedgerLine>),
    /// To [`Command::Dump`], a piece of the document.
    Text(String),
    /// To [`Command::Reload`]: how far the rehearsal of a library is, and of how much.
    Progress(String, u64, u64),
    /// To [`Command::Reload`] and [`Command::RollBack`], one for each library; to [`Command::Await`], [`Command::Restore`] and
    /// [`Command::Set`].
    Report(Box<Report>),
    /// To [`Command::Restore`]: the pieces may come.
    Go,
    /// To [`Command::Set`]: the state before and after; before the report.
    Set(Value, Value),
    /// That was all.
    End,
    /// It can't be done.
    Error(String),
}

/// `greenroom status --json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// The host.
    pub host: HostStatus,
    /// Its services.
    pub services: Vec<ServiceStatus>,
}

/// The host in a status.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HostStatus {
    /// The process that supervises.
    pub pid: u32,
    /// The process that serves; 0: none at the moment.
    pub worker_pid: u32,
    /// The binary's version.
    pub version: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// What the worker does: `serving`, `starting`, `handing over`, or `parked`: none lives, and all is kept for the next one.
    pub worker: String,
    /// Workers that there were before this one.
    pub workers_before: u64,
    /// Why the one before ended, or why none can start.
    pub reason: Option<String>,
    /// Connections that are held.
    pub connections: usize,
    /// How often each limit was reached since the host started.
    #[serde(default)]
    pub limits: BTreeMap<String, u64>,
}

/// A service in a status.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// The library that serves it.
    pub library: String,
    /// That library's generation.
    pub generation: u64,
    /// SHA-256 of its file.
    pub build: String,
    /// Version of its state.
    pub state_version: u32,
    /// Where it listens.
    pub listen: Vec<String>,
    /// Sessions alive.
    pub sessions: usize,
    /// Turns run since the host started.
    pub turns: u64,
    /// Of those, turns that failed.
    pub faults: u64,
}

/// A line of `greenroom sessions --json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct SessionLine {
    /// Its number.
    pub id: u64,
    /// Its service.
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
    /// Why it is quarantined; null: it isn't.
    pub quarantined: Option<String>,
}

/// A line of the ledger, `greenroom history --json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LedgerLine {
    /// RFC 3339.
    pub at: String,
    /// Who wanted it.
    pub by: String,
    /// What came of it.
    #[serde(flatten)]
    pub report: Report,
}

/// Who asks by a command, as the ledger calls them.
pub fn operator(uid: u32, pid: i32) -> String {
    format!("uid {uid} pid {pid}")
}

/// A reload in a sentence, or whatever else the ledger tells.
pub fn ledger_line(r: &Report) -> String {
    if let Some(restored) = &r.restored {
        return restored_line(r, restored);
    }
    let build = r.build.get(..12).unwrap_or("none");
    match r.outcome {
        Outcome::Committed => {
            let on_probation = match r.probation.as_ref().map(|p| p.state) {
                Some(ProbationState::UnderWay) => ", on probation",
                Some(ProbationState::Passed) => ", has proved itself",
                _ => "",
            };
            let but = if r.reason.is_empty() { String::new() } else { format!("; {}", r.reason) };
            format!(
                "{}: generation {} committed, build {build}, {} sessions, pause {:.1} µs{on_probation}{but}",
                r.library, r.generation, r.sessions, r.pause_us
            )
        }
        Outcome::Unchanged if r.build.is_empty() => format!("{}: unchanged", r.library),
        Outcome::Unchanged => {
            format!("{}: unchanged, generation {} runs build {build} already", r.library, r.generation)
        }
        Outcome::RolledBack if r.reason.is_empty() => {
            format!("{}: rolled back to generation {}, build {build}", r.library, r.generation)
        }
        Outcome::RolledBack => {
            format!("{}: rolled back to generation {}, build {build}: {}", r.library, r.generation, r.reason)
        }
        Outcome::Rehearsed => {
            format!("{}: would be committed, build {build}; generation {} serves on", r.library, r.generation)
        }
        Outcome::Configured => format!("{}: in force: {}; pause {:.1} µs", r.library, r.reason, r.pause_us),
        Outcome::Restored => "state restored".to_owned(),
        Outcome::Replaced => {
            format!("{}: build {build} was replaced, generation {} serves", r.library, r.generation)
        }
        Outcome::Refused => match r.generation {
            0 => format!("{}: refused: {}", r.library, r.reason),
            n => format!("{}: refused, generation {n} serves on: {}", r.library, r.reason),
        },
    }
}

fn restored_line(r: &Report, restored: &Restored) -> String {
    let Restored { file, session, fields, changed, missing, tables, .. } = restored;
    let from = file.as_deref().unwrap_or_default();
    let what = match session {
        Some(id) => format!("state of session {id}"),
        None => "state".to_owned(),
    };
    match (r.outcome, session) {
        (Outcome::Refused, Some(_)) => return format!("{what} not set: {}", r.reason),
        (Outcome::Refused, None) => return format!("{what} not restored from {from}: {}", r.reason),
        (_, Some(_)) => return format!("{what} set: {}, pause {:.1} µs", fields.join(", "), r.pause_us),
        _ => {}
    }
    let (put, deleted) = tables.values().fold((0, 0), |(p, d), t| (p + t.put, d + t.deleted));
    let mut parts = vec![format!("{changed} sessions")];
    if !tables.is_empty() {
        parts.push(format!("{put} entries put, {deleted} deleted"));
    }
    if *missing > 0 {
        parts.push(format!("{missing} sessions gone"));
    }
    match r.outcome {
        Outcome::Rehearsed => format!("{what} would be restored from {from}: {}", parts.join(", ")),
        _ => format!("{what} restored from {from}: {}, pause {:.1} µs", parts.join(", "), r.pause_us),
    }
}
