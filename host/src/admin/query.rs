//! What other threads and the loop tell each other.

use crate::config::Config;
use crate::plugin::prepare::Done;
use crate::protocol::admin::{LedgerLine, ServiceStatus};
use crate::saved_file::Saved;
use greenroom_core::ledger::Report;
use greenroom_core::operate::check::{Builds, Checked, GivenEntry, GivenState};
use greenroom_core::operate::inspect::{Entry, Filter, OwnSlice, SessionView, Slice};
use greenroom_core::operate::plan::{Plan, Survey};
use greenroom_core::reload::request::By;
use greenroom_core::tables::owner::Owner;
use greenroom_state::schema::Schema;
use mio::Waker;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// What other threads tell the loop.
pub enum Message {
    /// A slow step of a reload is done.
    Stager(Done),
    /// A save is written, or not: the epoch that was pinned for it.
    Saved(u64, std::io::Result<Saved>),
    /// A job is over: its number, and its result or why there is none.
    Job(u64, Result<Vec<u8>, String>),
    /// An operator asks.
    Ask(Ask),
}

/// What an operator asks; each answer goes back through its channel.
pub struct Ask {
    /// What.
    pub query: Query,
    /// Where to.
    pub reply: Sender<Answer>,
}

/// See [`Ask`].
pub enum Query {
    /// The services.
    Services,
    /// A slice of sessions.
    Sessions(u64, Filter),
    /// A slice of what a service has of its own, behind the timer of this name.
    OwnOf(String, Option<String>),
    /// The tables' names.
    Tables,
    /// The tables that services own, with their versions.
    Owned,
    /// A slice of a table, from a key on.
    Entries(String, Vec<u8>),
    /// A slice of the ledger, from a line on.
    Ledger(u64),
    /// Let a quarantined session go on.
    Release(u64),
    /// Close a session.
    Close(u64),
    /// A reload.
    Reload(ReloadRequest),
    /// Another configuration.
    Configure(Proposal),
    /// A build that ran before is to serve again: of a service's or library's name; this generation, or the one before.
    RollBack(String, Option<u64>, By),
    /// How the probation of a line of the ledger ended, once it has.
    Await(u64),
    /// Check states that were given.
    CheckStates(Vec<GivenState>),
    /// Check entries of a table that were given.
    CheckEntries(String, Vec<GivenEntry>),
    /// The schema of states or values.
    Schema(SchemaOf),
    /// Look at some more of what a plan would change.
    Survey(Arc<Plan>, Box<Survey>),
    /// Put states and tables back, or note why not.
    Restore(Restoring),
    /// Set fields of a session's state.
    Set(Setting),
}

/// Whose schema.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SchemaOf {
    /// A service's states.
    Service(String),
    /// A table's values.
    Table(String),
}

/// States and tables that are to be put back.
pub struct Restoring {
    /// All of it was checked; the error says why it can't be.
    pub plan: Result<Arc<Plan>, String>,
    /// The dump's file.
    pub file: String,
    /// Who wants it.
    pub by: By,
}

/// Fields that are to be set.
pub struct Setting {
    /// Of this session's state.
    pub session: u64,
    /// Paths and values.
    pub fields: Vec<(String, serde_json::Value)>,
    /// Who wants it.
    pub by: By,
}

/// A reload that is asked for.
pub struct ReloadRequest {
    /// A service's or library's name; none: all.
    pub target: Option<String>,
    /// Another file.
    pub from: Option<PathBuf>,
    /// All in one commit.
    pub together: bool,
    /// Only to know what would come of it.
    pub dry_run: bool,
    /// Whose.
    pub by: By,
}

/// A configuration that is to be put in force.
pub struct Proposal {
    /// The keeper's number for it.
    pub number: u64,
    /// All of it.
    pub config: Box<Config>,
    /// Who wants that.
    pub by: By,
}

/// Posts messages to the loop.
#[derive(Clone)]
pub struct Mailbox {
    pub(crate) sender: Sender<Message>,
    pub(crate) waker: Arc<Waker>,
}

impl Mailbox {
    /// Posts one. False: the loop has ended.
    pub fn post(&self, message: Message) -> bool {
        self.sender.send(message).is_ok() && self.waker.wake().is_ok()
    }
}

/// What the loop answers to a [`Query`].
pub enum Answer {
    /// To [`Query::Services`].
    Services(Vec<ServiceStatus>),
    /// To [`Query::Sessions`].
    Sessions(Slice<SessionView>),
    /// To [`Query::OwnOf`].
    Own(OwnSlice),
    /// To [`Query::Tables`].
    Tables(Vec<String>),
    /// To [`Query::Owned`]: service, table, version.
    Owned(Vec<(String, String, u32)>),
    /// To [`Query::Entries`].
    Entries(TableEntries),
    /// To [`Query::Ledger`].
    Ledger(Slice<LedgerLine>),
    /// It is done.
    Done,
    /// To [`Query::Reload`], [`Query::RollBack`] and [`Query::Configure`]: so many reports follow.
    Reloading(usize),
    /// To [`Query::Reload`]: how far the rehearsal of a library is, and of how much.
    Progress(String, u64, u64),
    /// To [`Query::Reload`], one for each library; to [`Query::Await`] and [`Query::Restore`].
    Report(Box<Report>),
    /// To [`Query::CheckStates`] and [`Query::CheckEntries`], in the same order; who has checked them, and who owns the table.
    Checked(Vec<Checked>, Builds, Option<Owner>),
    /// To [`Query::Schema`].
    Schema(Option<Box<Schema>>),
    /// To [`Query::Survey`]: once it has looked at all, whether that can be stored.
    Surveyed(Box<Survey>, Option<Result<(), String>>),
    /// To [`Query::Set`]: the state before and after.
    Set(Box<Report>, serde_json::Value, serde_json::Value),
    /// It can't be done.
    Error(String),
}

/// A slice of a table.
pub struct TableEntries {
    /// In order.
    pub entries: Vec<Entry>,
    /// Their values' versions, where they aren't the one that the table's owner writes.
    pub versions: Vec<Option<u32>>,
    /// Where to go on.
    pub next: Option<Vec<u8>>,
}
