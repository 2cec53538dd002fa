//! Queries from operators to the loop, and its answers.
//!
//! A query travels through a [`QueryMailbox`] with the sender of its answers. The loop answers
//! between two passes. A query that needs several passes (a reload, a restore, a wait) is kept
//! by its driver, which answers later.
//!
//! Sessions, entries, timers and ledger lines come in slices of bounded size, with a place to
//! go on from. Names of services and tables come whole. All types own their data: they cross
//! threads, and a caller may be gone when the answer is ready. The loop then drops the answer.

use crate::config::Config;
use crate::config::admin::AdminConfig;
use crate::protocol::admin::LedgerLine;
use crate::protocol::canary::CanaryLine;
use crate::protocol::data::TableLine;
use crate::protocol::status::ServiceStatus;
use greenroom_core::ledger::{Report, Restored};
use greenroom_core::limits::per_service::AllLimits;
use greenroom_core::operate::check::{Builds, Checked, GivenEntry, GivenState};
use greenroom_core::operate::inspect::{Entry, Filter, OwnSlice, SessionView, Slice};
use greenroom_core::operate::plan::{Plan, Survey};
use greenroom_core::operate::undo::ReplacedData;
use greenroom_core::reload::request::Requester;
use greenroom_core::tables::owner::Owner;
use greenroom_core::watch::subject::Subject;
use greenroom_core::watch::watchers::WatchedTurns;
use greenroom_state::schema::Schema;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// Query of an operator, with the channel for its answers.
pub struct Ask {
    /// Query.
    pub query: Query,
    /// Channel for the answers.
    pub reply: Sender<Answer>,
}

/// Query to the loop.
pub enum Query {
    /// List the services.
    Services,
    /// List sessions with numbers above this one, a slice of them.
    Sessions(u64, Filter),
    /// List the timers, jobs and connections of a service itself, a slice of them, behind the timer
    /// of this name.
    OwnOf(String, Option<String>),
    /// List the names of tables.
    Tables,
    /// List the tables that services own, with their versions.
    Owned,
    /// List entries of a table from a key on, a slice of them.
    Entries(String, Vec<u8>),
    /// List the ledger from a line on, a slice of it.
    Ledger(u64),
    /// Release a quarantined session.
    Release(u64),
    /// Close a session.
    Close(u64),
    /// Send a line to a session's peer.
    Message(u64, String),
    /// Reload.
    Reload(ReloadRequest),
    /// Begin a canary.
    Canary(CanaryRequest),
    /// List the canaries.
    Canaries,
    /// Let the candidate of a canary serve: of a service or library, by name.
    Promote(String, Requester),
    /// Take the canary of a service or library back.
    TakeBack(String, Requester),
    /// Put another configuration in force.
    Configure(Proposal),
    /// Roll a service or library back, by name: to this generation, or to the previous build.
    RollBack(String, Option<u64>, Requester),
    /// Wait until the probation of a line of the ledger has ended.
    Await(u64),
    /// Check states of a dump.
    CheckStates(Vec<GivenState>),
    /// Check entries of a table in a dump.
    CheckEntries(String, Vec<GivenEntry>),
    /// Get the schema of states or values.
    Schema(SchemaOf),
    /// Compare a plan with live data, some more of it.
    Survey(Arc<Plan>, Box<Survey>),
    /// Read a session's state, as it is stored and as the build that serves reads it.
    ReadState(u64),
    /// List the tables, with their owners and sizes.
    TableList,
    /// Get the data that the last change of an operator replaced.
    ReplacedData,
    /// Restore states and tables, or note in the ledger why not.
    Restore(Restoring),
    /// Set fields of a session's state.
    Set(Setting),
    /// Begin to watch turns.
    Watch {
        /// Sessions to watch.
        subject: Subject,
        /// Whether the turns are to be replayed.
        records: bool,
    },
    /// Wait for turns that a watch has seen.
    Watched(u64),
    /// End a watch.
    Unwatch(u64),
}

/// Owner of a schema.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SchemaOf {
    /// States of a service.
    Service(String),
    /// Values of a table.
    Table(String),
}

/// Restore of states and tables.
pub struct Restoring {
    /// Checked plan; the error says why there is none.
    pub plan: Result<Arc<Plan>, String>,
    /// Survey of the plan, as of some passes ago.
    pub survey: Box<Survey>,
    /// Change as the report names it: its file, its session, its keys, or the line that it undoes.
    pub of: Restored,
    /// Requester.
    pub by: Requester,
}

/// Change of fields of a session's state.
pub struct Setting {
    /// Number of the session.
    pub session: u64,
    /// Paths and values.
    pub fields: Vec<(String, serde_json::Value)>,
    /// Requester.
    pub by: Requester,
}

/// Request for a reload.
pub struct ReloadRequest {
    /// Name of a service or library; none: all.
    pub target: Option<String>,
    /// File to load; none: the current one.
    pub from: Option<PathBuf>,
    /// Commit all libraries at once.
    pub together: bool,
    /// Only rehearse, and report.
    pub dry_run: bool,
    /// Recording that the build must replay, and differences that are wanted.
    pub against: Option<(PathBuf, Vec<String>)>,
    /// Requester.
    pub by: Requester,
}

/// Request for a canary.
pub struct CanaryRequest {
    /// Name of a service or library.
    pub target: String,
    /// File to load; none: the library's own.
    pub from: Option<PathBuf>,
    /// Share of new sessions, in ten-thousandths.
    pub share: u32,
    /// Sessions that are to run it, sorted.
    pub chosen: Vec<u64>,
    /// Interval of the batches that are compared; 0: none.
    pub compare_every: u32,
    /// Milliseconds after which it is promoted; none: by command.
    pub promote_after_ms: Option<u64>,
    /// Faults beyond which it is taken back; none: by command.
    pub faults_max: Option<u64>,
    /// Requester.
    pub by: Requester,
}

/// Configuration to put in force.
pub struct Proposal {
    /// Number that the keeper gave it.
    pub number: u64,
    /// Whole configuration.
    pub config: Box<Config>,
    /// Requester.
    pub by: Requester,
}

/// Mailbox that posts queries to the loop.
pub type QueryMailbox = crate::mailbox::Mailbox<Ask>;

/// Answer to a [`Query`].
pub enum Answer {
    /// Answers [`Query::Services`].
    Services(Vec<ServiceStatus>),
    /// Answers [`Query::Canaries`].
    Canaries(Vec<CanaryLine>),
    /// Answers [`Query::Sessions`].
    Sessions(Slice<SessionView>),
    /// Answers [`Query::OwnOf`].
    Own(OwnSlice),
    /// Answers [`Query::Tables`].
    Tables(Vec<String>),
    /// Answers [`Query::Owned`]: service, table, version.
    Owned(Vec<(String, String, u32)>),
    /// Answers [`Query::ReadState`].
    State(Box<ReadState>),
    /// Answers [`Query::TableList`].
    TableList(Vec<TableLine>),
    /// Answers [`Query::ReplacedData`]. `None`: there is no such change.
    ReplacedData(Option<Box<ReplacedData>>),
    /// Answers [`Query::Entries`].
    Entries(TableEntries),
    /// Answers [`Query::Ledger`].
    Ledger(Slice<LedgerLine>),
    /// Success.
    Done,
    /// Begins the answers to [`Query::Reload`], [`Query::RollBack`] and [`Query::Configure`]: this
    /// many reports follow.
    Reloading(usize),
    /// Progress of a [`Query::Reload`]: library, items rehearsed, and of how many.
    Progress(String, u64, u64),
    /// Report on one library of a [`Query::Reload`]; also answers [`Query::Await`] and
    /// [`Query::Restore`].
    Report(Box<Report>),
    /// Answers [`Query::CheckStates`] and [`Query::CheckEntries`], in the same order, with the
    /// builds that checked, and the owner of the table.
    Checked(Vec<Checked>, Builds, Option<Owner>),
    /// Answers [`Query::Schema`].
    Schema(Option<Box<Schema>>),
    /// Answers [`Query::Survey`]: the survey so far; once it is complete, whether the plan can be
    /// stored.
    Surveyed(Box<Survey>, Option<Result<(), String>>),
    /// Answers [`Query::Set`]: report, state before, state after.
    Set(Box<Report>, serde_json::Value, serde_json::Value),
    /// Answers [`Query::Watch`]: the number of the watch, and the limits in force.
    Watching(u64, Box<AllLimits>),
    /// Answers [`Query::Watched`]; none: the watch sees nothing any more.
    Watched(Option<WatchedTurns>),
    /// Answers [`Query::Watched`]: names that have a role have changed since the watch began.
    Roles(Box<AdminConfig>),
    /// Failure, with the reason.
    Error(String),
}

/// State of a session, as it is stored and as the build that serves reads it.
pub struct ReadState {
    /// Name of its service.
    pub service: String,
    /// Version that the service writes.
    pub version: u32,
    /// Turns that the session has run.
    pub turns: u64,
    /// Version and state as stored; `None`: none.
    pub stored: Option<(u32, Vec<u8>)>,
    /// State as the build that serves would store it; `None`: it keeps none. The error is the
    /// handler's, or names a limit.
    pub read: Result<Option<Vec<u8>>, String>,
}

/// Slice of a table.
pub struct TableEntries {
    /// Entries in order.
    pub entries: Vec<Entry>,
    /// Versions of their values, where they differ from the one that the table's owner writes.
    pub versions: Vec<Option<u32>>,
    /// Deadlines of the entries that have one, in milliseconds since 1970.
    pub until: Vec<Option<u64>>,
    /// Key to go on from; none: the table has ended.
    pub next: Option<Vec<u8>>,
}
