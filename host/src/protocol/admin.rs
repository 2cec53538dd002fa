//! Requests and replies on the admin socket: an [`AdminCommand`] as a line of JSON, then
//! [`Reply`]s, a line each.
//!
//! A request is one line of at most 64 KiB. Only [`AdminCommand::Restore`] and
//! [`AdminCommand::Amend`] have more to send: after [`Reply::Go`], [`Piece`]s follow, a line each.
//! An answer ends with [`Reply::End`] or [`Reply::Error`]. If the socket closes before, the answer
//! broke off, and the client decides by [`AdminCommand::is_repeatable`] whether to ask again.
//!
//! Both sides are of the same version of the binary. Programs depend on the output of `--json`, not
//! on this protocol. The types of a line of `--json` are here and in [`super::status`]: their field
//! names are public, so fields are only added.

use super::canary::{CanaryLine, CanaryWish};
use super::data::{EntryQuery, Reached, Shown, TableLine};
use super::log::{LevelWish, LogReport};
use super::metrics::Metrics;
use super::selection::{First, Selection};
use super::status::Status;
use super::watch::{RecordHead, RecordOrder, RecordedTurn, TracedTurn};
use greenroom_core::ledger::Report;
use greenroom_core::watch::subject::Subject;
use greenroom_state::dump::DumpedEntry;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// End of the reason of a refusal that a fresh worker may not repeat. A command asks again then.
pub const FRESH_WORKER: &str = "a fresh worker takes over: try again";

/// Beginning of the refusal of a command while the worker stalls. Nothing was asked then.
pub const TAKES_NO_COMMANDS: &str = "the worker takes no commands";
/// Why an upgrade is refused while a worker starts. The command asks again.
pub const NO_WORKER: &str = "no worker serves at the moment; see `greenroom status`";

/// A request of a command to the host.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdminCommand {
    /// Host and services.
    Status,
    /// All figures that operators collect.
    Metrics,
    /// Levels of the log; with a wish, they change first.
    Log(Option<LevelWish>),
    /// A list of sessions.
    Sessions {
        /// The sessions.
        #[serde(default)]
        of: Box<Selection>,
        /// Only those that sort first; none: all, by their numbers.
        #[serde(default)]
        first: Option<First>,
    },
    /// The ledger.
    History,
    /// End a session's quarantine.
    Release(u64),
    /// Close a session.
    Close(u64),
    /// Close these sessions. Those that are gone are counted.
    CloseAll(Vec<u64>),
    /// Send a line to the peers of these sessions, each in its framing.
    Message {
        /// The sessions.
        sessions: Vec<u64>,
        /// The line.
        text: String,
    },
    /// End a worker whose callback does not return, and withhold its action: of a session, by its
    /// number, or of a service itself, by its name.
    Withhold(String),
    /// The state dump.
    Dump {
        /// Only these sessions, and the tables of this service.
        #[serde(default)]
        of: Box<Selection>,
        /// Integers beyond 2^53 are written as strings in a tag.
        #[serde(default)]
        strings: bool,
        /// Each session and entry is a line of JSON.
        #[serde(default)]
        lines: bool,
    },
    /// A session with its state, as it is stored and as the build that serves reads it.
    Show(u64),
    /// The tables.
    Tables,
    /// Entries of a table.
    Entries(Box<EntryQuery>),
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
        /// A recording that the build must replay without differences, and patterns of those that
        /// are wanted.
        #[serde(default)]
        against: Option<(PathBuf, Vec<String>)>,
    },
    /// A canary: a candidate runs some sessions, beside the build that serves.
    Canary {
        /// A service or library.
        service: String,
        /// Another file than the library's own.
        from: Option<PathBuf>,
        /// Sessions that are to run it, and its end.
        wish: CanaryWish,
    },
    /// All canaries, with their counts.
    Canaries,
    /// Let the candidate of a canary serve: of a service or library.
    Promote(String),
    /// Take a canary back: of a service or library.
    TakeBack(String),
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
    /// Store states and entries, and leave all others as they are: [`Piece`]s follow, once the
    /// answer is [`Reply::Go`].
    Amend {
        /// Session whose state must be stored still, and what [`Shown::digest`] said.
        session: Option<(u64, String)>,
        /// Entries that the pieces will name, as the audit log tells them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        entries: Option<NamedEntries>,
    },
    /// Put back what the last change of an operator replaced.
    Undo,
    /// Set fields of a session's state.
    Set {
        /// The session.
        session: u64,
        /// Paths and values.
        fields: Vec<(String, Value)>,
    },
    /// Watch turns as they happen, until the caller leaves.
    Watch {
        /// Sessions to watch.
        subject: Subject,
        /// End by itself after this time.
        for_ms: Option<u64>,
        /// Send whole records, which can be replayed.
        record: Option<RecordOrder>,
    },
    /// Replace the worker by one from another binary.
    Upgrade {
        /// File of the binary, as an absolute path.
        binary: PathBuf,
    },
}

/// Entries of a table that an [`AdminCommand::Amend`] is about.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NamedEntries {
    /// Name of the table.
    pub table: String,
    /// Keys of the first [`NamedEntries::KEYS_MAX`] of them.
    pub keys: Vec<Value>,
    /// The entries are deleted, not put.
    pub deletes: bool,
    /// The table may be new. Otherwise a name that nobody knows is refused: it may be misspelt.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub new: bool,
}

impl NamedEntries {
    /// Most keys that are named.
    pub const KEYS_MAX: usize = 20;
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
    /// Key of an entry that is deleted. To [`AdminCommand::Amend`] alone.
    Delete(Value),
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
    /// To [`AdminCommand::Metrics`].
    Metrics(Box<Metrics>),
    /// To [`AdminCommand::Log`].
    LogLevels(Box<LogReport>),
    /// To [`AdminCommand::Sessions`], in slices.
    Sessions(Vec<SessionLine>),
    /// To a command with a selection: something that an operator should know of it.
    Notice(String),
    /// To [`AdminCommand::CloseAll`] and [`AdminCommand::Message`].
    Reached(Reached),
    /// To [`AdminCommand::History`], in slices.
    History(Vec<LedgerLine>),
    /// To [`AdminCommand::Canaries`].
    Canaries(Vec<CanaryLine>),
    /// To [`AdminCommand::Dump`], a piece of the document.
    Text(String),
    /// To [`AdminCommand::Reload`]: a library, sessions and entries rehearsed, and their total.
    Progress(String, u64, u64),
    /// To [`AdminCommand::Reload`] and [`AdminCommand::RollBack`], one for each library; to those
    /// that begin and end a canary; to [`AdminCommand::Await`], [`AdminCommand::Restore`] and
    /// [`AdminCommand::Set`].
    Report(Box<Report>),
    /// To [`AdminCommand::Show`].
    Shown(Box<Shown>),
    /// To [`AdminCommand::Tables`].
    Tables(Vec<TableLine>),
    /// To [`AdminCommand::Entries`], in slices.
    Entries(Vec<DumpedEntry>),
    /// To [`AdminCommand::Restore`] and [`AdminCommand::Amend`]: send the pieces.
    Go,
    /// To [`AdminCommand::Set`]: the state before and after; before the report.
    Set(Value, Value),
    /// To [`AdminCommand::Watch`]: the watch has begun, or goes on, and nothing new was seen.
    Watching,
    /// To [`AdminCommand::Watch`]: the beginning of a recording.
    RecordHead(Box<RecordHead>),
    /// To [`AdminCommand::Watch`]: a turn.
    Turn(Box<TracedTurn>),
    /// To [`AdminCommand::Watch`]: a turn of a recording.
    Record(Box<RecordedTurn>),
    /// To [`AdminCommand::Watch`]: so many turns were left out, as the caller reads too slowly.
    LeftOut(u64),
    /// The end of an answer.
    End,
    /// A refusal, with its reason.
    Error(String),
}

/// A line of `greenroom sessions --json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionLine {
    /// Number of the session.
    pub id: u64,
    /// Service of the session.
    pub service: String,
    /// Generation of the build that runs it; 0: none does.
    #[serde(default)]
    pub generation: u64,
    /// Kind of the endpoint that it came by.
    #[serde(default)]
    pub endpoint: String,
    /// Facts of its handshake of TLS, as turns know them; empty: it has none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tls: BTreeMap<String, String>,
    /// Whether its stream is one of TLS, or becomes one.
    #[serde(default)]
    pub over_tls: bool,
    /// Beginning that its input waits for: `header` of PROXY, or `handshake` of TLS; null: neither.
    #[serde(default)]
    pub waits_for: Option<String>,
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
    /// Milliseconds since it opened.
    #[serde(default)]
    pub age_ms: u64,
    /// Milliseconds since bytes last came from its peer, or since it opened.
    #[serde(default)]
    pub idle_ms: u64,
    /// Bytes that its peer has not taken yet.
    #[serde(default)]
    pub unsent: u64,
    /// Bytes of its stored state.
    #[serde(default)]
    pub state_bytes: u64,
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
