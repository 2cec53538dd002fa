//! Messages of the reload state machine: requests, events, steps, candidates.

use crate::ledger::Report;
use crate::service::offer::Build;
use crate::service::offer::Offer;
use greenroom_state::rehearsal_report::Rehearsal;
use serde::Deserialize;
use serde::Serialize;
use std::path::PathBuf;

/// Index of a library, which is a path from which builds come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LibraryId(pub usize);

/// Who wants a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Requester {
    /// The host, when it starts.
    Start,
    /// The watcher: the file changed.
    Watcher,
    /// A signal, SIGHUP.
    Signal,
    /// An operator, with `greenroom reload`.
    Operator {
        /// User.
        uid: u32,
        /// Process.
        pid: i32,
    },
}

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// That it serves.
    Load,
    /// To know what would come of it.
    DryRun,
    /// That a build which ran before serves again, as this generation.
    RollBack(u64),
    /// That the build which runs goes on with other settings or ports, as a new generation.
    Configure,
}

/// A wish to reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The shell's number for it, named in [`Step::Report`].
    pub id: u64,
    /// Whose.
    pub by: Requester,
    /// Another file than the library's own path.
    pub from: Option<PathBuf>,
    /// What.
    pub want: Want,
    /// Requests with the same number are one commit.
    pub group: u64,
}

/// What the shell reports.
#[derive(Debug)]
pub enum Event {
    /// Somebody wants reloads; those that go together, at once.
    Requested(Vec<(LibraryId, Request)>),
    /// [`Step::Stage`] is done: the content's hash, or why there is none to load.
    Staged(LibraryId, Result<String, String>),
    /// [`Step::Try`] is done: what it is, or what it did wrong in the child.
    Tried(LibraryId, Result<Candidate, String>),
    /// A part of [`Step::Load`] is done: its code is loaded and its added ports listen, or not.
    Loaded(LibraryId, Result<(), String>),
    /// [`Step::Commit`] is done, after so many microseconds of the loop's time.
    Committed(Vec<LibraryId>, f64),
}

/// What a trial found out.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The library's name.
    pub name: String,
    /// Its services.
    pub offers: Vec<Offer>,
    /// What its linker called it.
    pub build_id: Option<String>,
    /// How it went with copies of what is live; `None`: nothing is.
    pub rehearsal: Option<Rehearsal>,
}

/// What the shell is to do.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Make a private copy of this file, hash and inspect it.
    Stage(LibraryId, PathBuf),
    /// Load the copy in a child process and ask what it offers.
    Try(LibraryId),
    /// Load these here, build their instances, bind and listen on the ports that these services
    /// add.
    Load(Vec<(LibraryId, Vec<Offer>)>),
    /// Call [`crate::core::Core::adopt`] for each, between two passes.
    Commit(Vec<(LibraryId, Build)>),
    /// Drop what was staged or loaded.
    Discard(LibraryId),
    /// Tell who asked, and the log.
    Report(LibraryId, Request, Box<Report>),
}
