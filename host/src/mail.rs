//! What other threads and the loop tell each other.

use crate::admin::wire::{LedgerLine, ServiceStatus};
use crate::config::Config;
use crate::save::Saved;
use crate::stager::Done;
use greenroom_core::inspect::{Entry, Filter, OwnSlice, SessionView, Slice};
use greenroom_core::reload::{By, Report};
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
    /// A slice of a table, from a key on.
    Entries(String, Vec<u8>),
    /// A slice of the ledger, from a line on.
    Ledger(u64),
    /// Let a quarantined session go on.
    Release(u64),
    /// Close a session.
    Close(u64),
    /// A reload.
    Reload(Wish),
    /// Another configuration.
    Configure(Proposal),
    /// A build that ran before is to serve again: of a service's or library's name; this generation, or the one before.
    RollBack(String, Option<u64>, By),
    /// How the probation of a line of the ledger ended, once it has.
    Await(u64),
}

/// A reload that is asked for.
pub struct Wish {
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
    /// To [`Query::Reload`], one for each library; to [`Query::Await`].
    Report(Box<Report>),
    /// It can't be done.
    Error(String),
}

/// A slice of a table.
pub struct TableEntries {
    /// In order.
    pub entries: Vec<Entry>,
    /// Where to go on.
    pub next: Option<Vec<u8>>,
}
