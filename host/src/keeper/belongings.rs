//! Belongings: files of the host that others may delete, and that it makes anew.
//!
//! | file | made anew by |
//! | --- | --- |
//! | private copies of builds in use | `upkeep`, and the keeper before it starts a process |
//! | directories, locks, admin socket | `upkeep` |
//! | Unix sockets of services | the keeper, told by `upkeep` |
//!
//! The keeper and the thread of `upkeep` share them. A lock is held while copies are written. So
//! the keeper waits for a copy that is being written, and starts no worker from half of them.

use crate::keeper::bind::MadeFile;
use crate::runtime_dir::held_builds::{HeldBuilds, Restored};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Files of the host, and reports on them. Clones are the same belongings.
#[derive(Clone, Default)]
pub(super) struct Belongings(Arc<Mutex<State>>);

/// State of the belongings.
#[derive(Default)]
struct State {
    builds: HeldBuilds,
    /// Files of Unix sockets that services listen at.
    sockets: Vec<MadeFile>,
    /// Times that files were made anew, by kind.
    made: BTreeMap<String, u64>,
    /// Files that cannot be made anew, each with its reason, as of the last look of each thread.
    missing: BTreeMap<&'static str, Vec<String>>,
}

impl Belongings {
    /// Shared state. A panic while it was locked leaves whole values.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds exactly these private copies of a library. O(copies), an open file for each new one.
    /// True: one is new, as a build has come.
    pub(super) fn hold(&self, library: PathBuf, copies: Vec<PathBuf>) -> bool {
        self.state().builds.hold(library, copies)
    }

    /// Holds exactly these files of Unix sockets.
    pub(super) fn hold_sockets(&self, sockets: Vec<MadeFile>) {
        self.state().sockets = sockets;
    }

    /// Files of Unix sockets that are gone. Costs a stat for each that is held.
    pub(super) fn gone_sockets(&self) -> Vec<MadeFile> {
        let held = self.state().sockets.clone();
        held.into_iter().filter(|file| !file.is_in_place()).collect()
    }

    /// Writes anew the private copies that are missing. Precedes each start of a process. If a copy
    /// cannot be written, the log says so, and the process says which build it cannot load.
    pub(super) fn restore_builds(&self) {
        let mut state = self.state();
        let missing = state.builds.missing();
        for why in state.restore(&missing) {
            tracing::error!("a private copy is missing, and cannot be written anew: {why}");
        }
    }

    /// Files that are missing now. Costs two stats for each private copy.
    pub(super) fn missing(&self) -> Vec<String> {
        let state = self.state();
        let copies = state.builds.missing();
        let all = || state.missing.values().flatten();
        let known = |copy: &PathBuf| all().any(|why| why.starts_with(&*copy.to_string_lossy()));
        let copies =
            copies.iter().filter(|c| !known(c)).map(|c| format!("{}: it is written anew", c.display()));
        all().cloned().chain(copies).collect()
    }

    /// Number of private copies of each library, by the watched path.
    pub(super) fn held(&self) -> Vec<(PathBuf, usize)> {
        self.state().builds.held().map(|(path, copies)| (path.to_path_buf(), copies)).collect()
    }

    /// Times that files were made anew since the host started, by kind.
    pub(super) fn made_anew(&self) -> BTreeMap<String, u64> {
        self.state().made.clone()
    }

    /// Looks at the private copies. Those that were `suspected` by the look before and are missing
    /// still are written anew. Returns the suspects for the next look, and appends reasons to
    /// `missing`.
    ///
    /// A worker removes a copy behind its message that the copy is not needed. The keeper may not
    /// have read the message yet, so a copy that is missing once is no loss.
    pub(super) fn look_at_builds(
        &self,
        suspected: &BTreeSet<PathBuf>,
        missing: &mut Vec<String>,
    ) -> BTreeSet<PathBuf> {
        let mut state = self.state();
        let gone = state.builds.missing();
        let both = gone.intersection(suspected).cloned().collect();
        missing.extend(state.restore(&both));
        gone
    }

    /// Counts a file of this kind that was made anew, and logs it.
    pub(super) fn count_made(&self, kind: &str, path: &Path) {
        self.state().count_made(kind, path);
    }

    /// Notes the files that the last look of a thread found missing. A reason that is new is
    /// logged.
    pub(super) fn note_missing(&self, thread: &'static str, missing: Vec<String>) {
        let mut state = self.state();
        let known = state.missing.entry(thread).or_default();
        for why in missing.iter().filter(|why| !known.contains(why)) {
            tracing::error!("a file of the host is missing, and cannot be made anew: {why}");
        }
        *known = missing;
    }
}

impl State {
    /// Writes private copies anew. Returns the reasons of those that cannot be written.
    fn restore(&mut self, copies: &BTreeSet<PathBuf>) -> Vec<String> {
        if copies.is_empty() {
            return Vec::new();
        }
        let Restored { made, missing } = self.builds.restore(copies);
        for path in &made {
            self.count_made("copies", path);
        }
        missing
    }

    fn count_made(&mut self, kind: &str, path: &Path) {
        tracing::warn!("{} was gone, and is made anew", path.display());
        *self.made.entry(kind.to_owned()).or_default() += 1;
    }
}
