//! Upgrades of the host: a worker from another binary takes over, after a trial.
//!
//! The trial reads a pinned snapshot of records, libraries and ports. A binary that cannot read it
//! is refused while the old worker serves on. One that passes the trial and cannot start is
//! followed by a worker from the previous binary.

use crate::admin::server::Answers;
use crate::exit_status::how;
use crate::keeper::spawn::{self, Process, Spawned};
use crate::keeper::{Keeper, TRIAL};
use crate::protocol::admin::Reply;
use crate::protocol::keeper::{ToKeeper, ToWorker};
use crate::protocol::link::{Link, Received, to_file};
use mio::Interest;
use mio::unix::SourceFd;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Time that a trial may take: it reads everything that the host holds.
const TRIAL_MAX: Duration = Duration::from_secs(60);
/// Time that each other step may take.
const STEP_MAX: Duration = Duration::from_secs(60);

/// An upgrade under way.
pub(super) struct Upgrade {
    path: PathBuf,
    binary: File,
    answers: Answers,
    step: Step,
    since: Instant,
    /// Summary of what the trial read.
    found: String,
}

enum Step {
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

impl Upgrade {
    /// Deadline of the step under way.
    pub(super) fn give_up_at(&self) -> Instant {
        self.since + if matches!(self.step, Step::Trying { .. }) { TRIAL_MAX } else { STEP_MAX }
    }
}

impl Keeper {
    /// Begins an upgrade to the binary of this path, or refuses it.
    pub(super) fn begin_upgrade(&mut self, path: PathBuf, answers: Answers) {
        let refuse = |why: &str| {
            let _ = answers.send(Reply::Error(format!("{}: {why}", path.display())));
        };
        if self.binary.is_none() {
            return refuse("a host with --no-keeper is one process, which can't be replaced");
        }
        if self.upgrade.is_some() {
            return refuse("another upgrade is under way");
        }
        if !self.worker.serves() {
            return refuse("no worker serves at the moment; see `greenroom status`");
        }
        let binary = match open_binary(&path) {
            Ok(binary) => binary,
            Err(why) => return refuse(&why),
        };
        self.worker.send(&ToWorker::Pin);
        let (step, since, found) = (Step::Pinning, Instant::now(), String::new());
        self.upgrade = Some(Upgrade { path, binary, answers, step, since, found });
    }

    /// Starts the trial, once an epoch is pinned for it.
    pub(super) fn pinned(&mut self, epoch: u64) {
        let hello = to_file(&self.hello(Some(epoch)));
        let begun = match &mut self.upgrade {
            Some(u) if matches!(u.step, Step::Pinning) => spawn::start(&u.binary).and_then(|spawned| {
                let Spawned { process: Some(process), link } = spawned else { return Ok(()) };
                let step = Step::Trying { epoch, process, link: Link::new(link) };
                (u.step, u.since) = (step, Instant::now());
                let Step::Trying { process, link, .. } = &mut u.step else { return Ok(()) };
                let hello = hello?;
                spawn::greet(link, &self.worker.memory().with(&hello))?;
                let registry = self.poll.registry();
                registry.register(&mut SourceFd(&process.ended.as_raw_fd()), TRIAL, Interest::READABLE)?;
                registry.register(&mut SourceFd(&link.fd().as_raw_fd()), TRIAL, Interest::READABLE)
            }),
            // The upgrade was given up meanwhile.
            _ => return self.unpin(epoch),
        };
        if let Err(e) = begun {
            if matches!(&self.upgrade, Some(Upgrade { step: Step::Pinning, .. })) {
                self.unpin(epoch);
            }
            self.fail_upgrade(&format!("it can't be started: {e}"));
        }
    }

    fn unpin(&mut self, epoch: u64) {
        self.worker.send(&ToWorker::Unpin(epoch));
    }

    /// Hears the trial's verdict, or notices its end.
    pub(super) fn hear_trial(&mut self) {
        let Some(Upgrade { step: Step::Trying { process, link, .. }, .. }) = &mut self.upgrade else {
            return;
        };
        let verdict = match link.receive() {
            Ok(Received::Message(ToKeeper::Tried(verdict), _)) => Some(verdict),
            Ok(Received::Message(..)) => Some(Err("its trial answered something else".into())),
            // A later version may send more than its verdict.
            Ok(Received::Unknown(_)) => return self.hear_trial(),
            Ok(Received::Nothing) | Ok(Received::Closed) | Err(_) => None,
        };
        let verdict = match verdict {
            Some(verdict) => verdict,
            None => match process.child.try_wait() {
                Ok(None) => return,
                Ok(Some(status)) => match link.receive() {
                    // Its last message.
                    Ok(Received::Message(ToKeeper::Tried(verdict), _)) => verdict,
                    _ => Err(format!("its trial ended without a report: {}", how(status).0)),
                },
                Err(e) => Err(format!("its trial can't be waited for: {e}")),
            },
        };
        match verdict {
            Ok(found) => {
                let Some(epoch) = self.end_trial() else { return };
                if let Some(u) = &mut self.upgrade {
                    (u.step, u.since, u.found) = (Step::Unpinning, Instant::now(), found);
                }
                self.unpin(epoch);
            }
            Err(why) => self.fail_upgrade(&why),
        }
    }

    /// Ends the trial's process. Returns the epoch that it read.
    fn end_trial(&mut self) -> Option<u64> {
        let Some(Upgrade { step: Step::Trying { epoch, process, link }, .. }) = &mut self.upgrade else {
            return None;
        };
        let registry = self.poll.registry();
        let _ = registry.deregister(&mut SourceFd(&process.ended.as_raw_fd()));
        let _ = registry.deregister(&mut SourceFd(&link.fd().as_raw_fd()));
        let _ = process.child.kill();
        let _ = process.child.wait();
        Some(*epoch)
    }

    /// Swaps the binaries, if the epoch was `held` for as long as the trial read it.
    pub(super) fn unpinned(&mut self, held: bool) {
        let Some(Upgrade { step: Step::Unpinning, .. }) = &self.upgrade else { return };
        if !held {
            let why =
                "too much changed while it read what the host holds; try again when there is less to do";
            return self.fail_upgrade(why);
        }
        let Some(u) = &mut self.upgrade else { return };
        match u.binary.try_clone() {
            Ok(binary) => {
                u.step = Step::Swapping { before: self.binary.replace(binary) };
                u.since = Instant::now();
                self.hand_over();
            }
            Err(e) => self.fail_upgrade(&e.to_string()),
        }
    }

    /// Whether the old worker is ending, or the new one starting.
    pub(super) fn is_swapping(&self) -> bool {
        matches!(&self.upgrade, Some(Upgrade { step: Step::Swapping { .. }, .. }))
    }

    /// Completes an upgrade, if the worker that has become ready is of the new binary.
    pub(super) fn upgraded(&mut self) {
        if self.is_swapping()
            && let Some(u) = self.upgrade.take()
        {
            let line = format!("{}: a worker of this binary serves ({})", u.path.display(), u.found);
            tracing::info!("upgraded: {line}");
            let _ = u.answers.send(Reply::Text(line + "\n"));
            let _ = u.answers.send(Reply::End);
        }
    }

    /// Goes back to the previous binary, if the worker that cannot start is of the new one. True:
    /// its start is due at once.
    pub(super) fn fall_back(&mut self, why: &str) -> bool {
        let Some(Upgrade { step: Step::Swapping { before }, .. }) = &mut self.upgrade else { return false };
        self.binary = before.take();
        self.fail_upgrade(&format!("its worker can't start, and one of the binary before goes on: {why}"));
        self.worker.retry_at_once(why.to_owned());
        true
    }

    /// Refuses an upgrade that is under way. The worker serves on.
    pub(super) fn fail_upgrade(&mut self, why: &str) {
        let epoch = self.end_trial();
        if let Some(epoch) = epoch {
            self.unpin(epoch);
        }
        if let Some(u) = self.upgrade.take() {
            let line = format!("{}: refused, the worker before serves on: {why}", u.path.display());
            tracing::warn!("{line}");
            let _ = u.answers.send(Reply::Error(line));
            if let Step::Swapping { before: before @ Some(_) } = u.step {
                self.binary = before;
            }
        }
    }

    /// Gives up an upgrade whose step takes too long.
    pub(super) fn upgrade_in_time(&mut self, now: Instant) {
        if self.upgrade.as_ref().is_some_and(|u| u.give_up_at() <= now) {
            self.fail_upgrade("it took too long");
        }
    }
}

/// Opens the file once, so that the file that is checked is the one that runs.
fn open_binary(path: &Path) -> Result<File, String> {
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
