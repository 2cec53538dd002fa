//! Upgrades of the host: a worker from another binary takes over, after a trial.
//!
//! | step | the keeper waits for | then |
//! | --- | --- | --- |
//! | pinning | the epoch that the worker has pinned | trying |
//! | trying | the verdict of a process of the new binary | unpinning, or refused |
//! | unpinning | the worker's word that the epoch stayed pinned | swapping, or refused |
//! | swapping | a worker of the new binary that serves | done, or the previous binary |
//!
//! The trial reads the pinned records and loads every build. A binary that cannot do so is refused
//! while the worker serves on, so it costs no client anything. If a binary passes the trial and
//! cannot start, a worker of the previous binary follows.
//!
//! The keeper itself stays as it is, with its descriptors. Keeper and worker may thus be of
//! different versions ([`crate::protocol::keeper`]).

use crate::admin::server::Answers;
use crate::config::trust::Trust;
use crate::keeper::spawn::Process;
use crate::protocol::keeper::{ToKeeper, ToWorker};
use crate::protocol::link::Link;
use crate::sys::regular_file;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Time that a trial may take: it reads everything that the host holds.
const TRIAL_MAX: Duration = Duration::from_secs(60);
/// Time that each other step may take.
const STEP_MAX: Duration = Duration::from_secs(60);

/// An upgrade under way.
pub(super) struct UpgradeUnderWay {
    /// Path as the operator gave it, for the answer alone.
    pub(super) path: PathBuf,
    /// The new binary, as it was checked.
    pub(super) binary: File,
    /// The operator who waits for the outcome. If dropped without an answer, the operator is told
    /// that the host is stopping.
    pub(super) answers: Answers,
    /// The step under way.
    pub(super) step: UpgradeStep,
    /// Begin of the step.
    pub(super) since: Instant,
    /// Summary of what the trial read.
    pub(super) found: String,
}

/// Steps of an upgrade. A process that is dropped with its step is not killed: the driver does
/// that.
pub(super) enum UpgradeStep {
    /// The worker is asked to keep its committed records readable.
    Pinning,
    /// A process of the new binary reads them.
    Trying { epoch: u64, process: Process, link: Link<ToKeeper, ToWorker> },
    /// The trial succeeded; the worker tells whether the epoch stayed pinned.
    Unpinning,
    /// The old worker ends, and one of the new binary starts. If that fails, the keeper goes back
    /// to the binary `before`.
    Swapping { before: Option<File> },
}

impl UpgradeUnderWay {
    /// Deadline of the step under way.
    pub(super) fn give_up_at(&self) -> Instant {
        self.since + if matches!(self.step, UpgradeStep::Trying { .. }) { TRIAL_MAX } else { STEP_MAX }
    }
}

/// Opens and checks a binary: a file that may be executed, and that is trusted like a library.
/// The checks are of the open file, so the file that is checked is the one that runs. If the
/// kernel cannot run its format, the trial cannot be started.
pub(super) fn open_binary(path: &Path, trust: &Trust) -> Result<File, String> {
    let (file, meta) = regular_file::open(path).map_err(|e| e.to_string())?;
    if meta.mode() & 0o111 == 0 {
        return Err("it is not executable".into());
    }
    trust.check_file(path, &meta)?;
    Ok(file)
}
