//! Loads of recorded builds in a successor, which may end it as they may end any process.
//!
//! The file of a build is the same in each process, and what it meets there is not: a file is gone,
//! a server does not answer, memory ends. The keeper counts processes that ended in such a load.
//!
//! | build whose loads have ended two processes | becomes |
//! | --- | --- |
//! | the one that runs | The previous build is put in charge, if there is one. |
//! | the same, by an error of its `new` | The same on probation. Else the start is repeated. |
//! | the previous one, a converter, a canary's candidate | It is not loaded, and the log says so. |
//!
//! Data of a newer version that the build has left stays stored. Its sessions wait in quarantine
//! for a build that reads it.

use crate::protocol::keeper::{Hello, LOADS_MAX, Load};
use crate::worker::reload::build_records::LibraryRecord;
use crate::worker::reload::ports::FailedBuild;
use crate::worker::reload::roll_back::report_roll_back;
use crate::worker::reload::running_build::RunningBuild;
use crate::worker::shell::Shell;
use greenroom_core::ledger::ProbationCounts;
use greenroom_core::reload::request::LibraryId;
use greenroom_core::service::offer::Serving;
use std::path::Path;

/// A build that gives way because it cannot be loaded, and the ledger line of its commit.
pub(super) struct Unloadable {
    failed: FailedBuild,
    line: u64,
}

/// Loads the build that runs. The keeper is told first: this process may not come back, or ends
/// with the error.
pub(super) fn load(
    shell: &mut Shell,
    id: LibraryId,
    path: &Path,
    build: &RunningBuild,
) -> Result<Serving, String> {
    let load = Load {
        library: id.0 as u64,
        path: path.to_owned(),
        build: build.hash.clone(),
        generation: build.generation,
        by: "host".to_owned(),
    };
    shell.keeper.say_loads(vec![load]);
    shell.board.loads(Some(id));
    let serving = build.load(shell.config.get(), shell.board);
    if serving.is_ok() {
        is_loaded(shell);
    }
    serving
}

/// Notes that a load is over, and this process goes on.
fn is_loaded(shell: &mut Shell) {
    shell.board.loads(None);
    shell.keeper.say_loads(Vec::new());
}

/// Loads a build beside the one that runs, unless its loads have ended processes.
pub(super) fn load_beside(
    shell: &mut Shell,
    hello: &Hello,
    (id, path): (LibraryId, &Path),
    build: &RunningBuild,
) -> Result<Serving, String> {
    match ended(hello, path, build) {
        Some((why, _)) => Err(format!("{}, generation {}: {why}", build.library, build.generation)),
        None => load(shell, id, path, build).inspect_err(|_| is_loaded(shell)),
    }
}

/// Puts the previous build in charge of a record, if loads of the one that runs have ended
/// processes. `None`: the build goes on.
pub(super) fn give_up(
    shell: &Shell,
    hello: &Hello,
    id: LibraryId,
    record: &mut LibraryRecord,
) -> Option<Unloadable> {
    let (why, died) = ended(hello, &record.path, &record.current)?;
    if !died && record.probation.is_none() {
        return None;
    }
    let build = record.current.build();
    let Some(before) = record.before().cloned() else {
        let (library, generation) = (&build.library, build.generation);
        tracing::error!("{library}: generation {generation} stays: {why}, and there is no previous build");
        return None;
    };
    let line = record.probation.take().map_or(0, |p| p.line);
    record.put_in_charge(before, shell.config.limits().builds_kept);
    Some(Unloadable { failed: FailedBuild { id, build, record: ProbationCounts::default(), why }, line })
}

impl Unloadable {
    /// Writes the rollback to the ledger, as a part of the next commit.
    pub(super) fn report(self, shell: &mut Shell) {
        report_roll_back(shell, &self.failed, self.line);
    }
}

/// The reason why a build is not loaded, and whether processes died of it; `None`: it is.
fn ended(hello: &Hello, path: &Path, build: &RunningBuild) -> Option<(String, bool)> {
    let is_it =
        |load: &Load| load.path == path && load.build == build.hash && load.generation == build.generation;
    let ended = hello.ended_loads.iter().find(|e| is_it(&e.load) && e.times >= LOADS_MAX)?;
    Some((format!("loading it has ended {} workers: {}", ended.times, ended.how), ended.died))
}
