//! Upgrades of the host: a worker from another binary takes over, after a trial.
//!
//! The trial reads a pinned snapshot of records, libraries and ports. A binary that cannot read it
//! is refused while the old worker serves on. One that passes the trial and cannot start is
//! followed by a worker from the previous binary.

use crate::admin::server::Answers;
use crate::keeper::spawn::Process;
use crate::protocol::keeper::{ToKeeper, ToWorker};
use crate::protocol::link::Link;
use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Time that a trial may take: it reads everything that the host holds.
const TRIAL_MAX: Duration = Duration::from_secs(60);
/// Time that each other step may take.
const STEP_MAX: Duration = Duration::from_secs(60);

/// An upgrade under way.
pub(super) struct UpgradeUnderWay {
    pub(super) path: PathBuf,
    pub(super) binary: File,
    pub(super) answers: Answers,
    pub(super) step: UpgradeStep,
    pub(super) since: Instant,
    /// Summary of what the trial read.
    pub(super) found: String,
}

pub(super) enum UpgradeStep {
    /// The worker is asked to keep its committed records readable.
    Pinning,
    /// A process of the new binary reads them.
    Trying { epoch: u64, process: Process, link: Link<ToKeeper, ToWorker> },
    /// The trial succeeded; the worker tells whether the epoch stayed pinned.
    Unpinning,
    /// The old worker ends, and one of the new binary starts. If it cannot, one of this binary
    /// does.
    Swapping { before: Option<File> },
}

impl UpgradeUnderWay {
    /// Deadline of the step under way.
    pub(super) fn give_up_at(&self) -> Instant {
        self.since + if matches!(self.step, UpgradeStep::Trying { .. }) { TRIAL_MAX } else { STEP_MAX }
    }
}

/// Opens the file once, so that the file that is checked is the one that runs.
pub(super) fn open_binary(path: &Path) -> Result<File, String> {
    // Nonblocking: a FIFO would block the open.
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
        .open(path)
        .map_err(|e: io::Error| e.to_string())?;
    let meta = file.metadata().map_err(|e| e.to_string())?;
    if !meta.is_file() {
        return Err("it is not a file".into());
    }
    if meta.mode() & 0o111 == 0 {
        return Err("it is not executable".into());
    }
    let (uid, me) = (meta.uid(), rustix::process::geteuid().as_raw());
    if uid != me && uid != 0 {
        return Err(format!("it belongs to user {uid}, not to {me} or root"));
    }
    if meta.mode() & 0o002 != 0 {
        return Err(format!("others may write it (mode {:o})", meta.mode() & 0o777));
    }
    Ok(file)
}
