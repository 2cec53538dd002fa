//! What is kept of a probation, and how one ends. The decisions are in [`crate::probation`].

use crate::service::Build;
use serde::{Deserialize, Serialize};

/// A build on probation.
#[derive(Debug, Clone)]
pub struct Probation {
    /// The build.
    pub build: Build,
    /// The last one that proved itself.
    pub before: Build,
    /// When it is over, on the clock of [`crate::Input::PassBegins`].
    pub until_ns: u64,
    /// It is to give way.
    pub(crate) failed: bool,
    /// Turns that the library's services had run when it began.
    pub(crate) turns_before: u64,
    /// What it did so far.
    pub record: Record,
}

/// How a build did on probation.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Turns run.
    pub turns: u64,
    /// Of those, turns that failed and that the build before didn't fail, or couldn't be asked for.
    pub faults: u32,
    /// Of those, turns that the build before ran in its place: no client saw them fail.
    pub spared: u32,
}

/// What came of asking the build before.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It can't be asked.
    Not,
    /// It fails too.
    Failed,
    /// It ran the turn, which is applied. The turn closed the session, or not.
    Ran(bool),
}

/// How a probation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// It is over.
    Passed,
    /// The build is to give way, for this reason.
    Failed(String),
}
