//! Messages of the reload state machine: requests, events, steps, candidates.
//!
//! The shell sends requests and the ends of steps as [`Event`]s; the state machine answers each
//! with [`Step`]s. [`Step::Stage`], [`Step::Try`], [`Step::Load`] and [`Step::Commit`] each end
//! in the event that their docs name. [`Step::Discard`] and [`Step::Report`] have no answer.

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

/// Requester of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Requester {
    /// The host, when it starts.
    Start,
    /// The watcher: the file changed.
    Watcher,
    /// A signal, SIGHUP.
    Signal,
    /// A rule of a canary.
    Rule,
    /// An operator, with `greenroom reload`.
    Operator {
        /// User.
        uid: u32,
        /// Process.
        pid: i32,
    },
}

/// Purpose of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Load the content, and let it serve.
    Load,
    /// Stage, try and judge the content; load nothing.
    DryRun,
    /// Let a build serve again that ran before, under this generation, with data downgraded.
    RollBack(u64),
    /// Let the build that runs go on with other settings or ports, as a new generation.
    Configure,
    /// Let the content run some of the sessions, beside the build that serves.
    Canary,
    /// Let a canary's candidate serve, under its generation.
    Promote(u64),
}

/// Request for a reload of one library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Number that the shell gave, by which it finds the destination of [`Step::Report`].
    pub id: u64,
    /// Requester, as log and ledger name it.
    pub by: Requester,
    /// File to load instead of the library's own path; `None`: the library's own.
    pub from: Option<PathBuf>,
    /// Purpose.
    pub want: Want,
    /// Number of the group. Requests with the same number are one commit; a request alone has
    /// its own `id` here.
    pub group: u64,
}

/// Event that the shell reports.
#[derive(Debug)]
pub enum Event {
    /// New requests. All members of a group come in one event.
    Requested(Vec<(LibraryId, Request)>),
    /// End of [`Step::Stage`]: SHA-256 of the content, or the reason why it cannot be loaded.
    Staged(LibraryId, Result<String, String>),
    /// End of [`Step::Try`]: the candidate, or its failure in the child.
    Tried(LibraryId, Result<Candidate, String>),
    /// End of [`Step::Load`] for one library: its code is loaded and its added ports listen, or
    /// the reason why not.
    Loaded(LibraryId, Result<(), String>),
    /// End of [`Step::Commit`], with the pause of the loop in microseconds.
    Committed(Vec<LibraryId>, f64),
}

/// Findings of a trial that passed. A rehearsal in it may still have failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Name of the library.
    pub name: String,
    /// Offers of its services.
    pub offers: Vec<Offer>,
    /// Build id that the linker gave the file; `None`: none.
    pub build_id: Option<String>,
    /// Report of the rehearsal with copies of live data; `None`: there was no snapshot to
    /// rehearse with.
    pub rehearsal: Option<Rehearsal>,
}

/// Step that the shell is to carry out.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Read this file, hash and inspect it. Ends in [`Event::Staged`].
    Stage(LibraryId, PathBuf),
    /// Load a private copy in a child process, and rehearse it. Ends in [`Event::Tried`].
    Try(LibraryId),
    /// Open the ports that these offers add, load the private copies here, and build their
    /// instances. One step for a whole group, because its ports are opened all or none. Ends in
    /// [`Event::Loaded`] for each library.
    Load(Vec<(LibraryId, Vec<Offer>)>),
    /// Put these builds in charge in one epoch, between two passes:
    /// [`crate::core::Core::adopt`] or one of its variants for each. Ends in
    /// [`Event::Committed`].
    Commit(Vec<(LibraryId, Build)>),
    /// Drop what was staged or loaded for the reload, and close ports that were opened for it.
    Discard(LibraryId),
    /// Tell the requester, the log and the ledger.
    Report(LibraryId, Request, Box<Report>),
}
