//! Steps of an upgrade: the trial, the successor, the return to the previous binary.
//!
//! Each step waits for one message, or for the end of the trial's process, for at most 60 s
//! ([`UpgradeUnderWay::give_up_at`]). Nothing here blocks but the check of the file, and the wait
//! for a trial that was just killed.
//!
//! A failure in any step refuses the upgrade, and the operator is told why. The trial is killed,
//! the pinned epoch is released, and the previous binary counts again. A failure before the swap
//! changes nothing that clients see.
//!
//! A pinned epoch costs the memory of every record that dies meanwhile (limit `pin_bytes_max`). So
//! an epoch that was pinned is released on every path. If the worker dies, its pins die with it.

use crate::admin::server::Answers;
use crate::exit_status::how;
use crate::keeper::Keeper;
use crate::keeper::spawn;
use crate::keeper::spawn::Spawned;
use crate::keeper::tokens::TRIAL;
use crate::keeper::upgrade::UpgradeStep;
use crate::keeper::upgrade::UpgradeUnderWay;
use crate::keeper::upgrade::open_binary;
use crate::protocol::admin::{NO_WORKER, Reply};
use crate::protocol::keeper::ToKeeper;
use crate::protocol::keeper::ToWorker;
use crate::protocol::link::Link;
use crate::protocol::link::Received;
use crate::protocol::link::to_file;
use mio::Interest;
use mio::unix::SourceFd;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::Instant;

impl Keeper {
    /// Begins an upgrade to the binary of this path, or refuses it. Refused: another upgrade is
    /// under way, no worker serves, or it stalls, the host is one process, or the file is not
    /// trusted.
    pub(super) fn begin_upgrade(&mut self, path: PathBuf, answers: Answers) {
        let stalled = self.refusal();
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
            return refuse(NO_WORKER);
        }
        if let Some(why) = stalled {
            return refuse(&why);
        }
        let binary = match open_binary(&path, &self.options.config.trust) {
            Ok(binary) => binary,
            Err(why) => return refuse(&why),
        };
        // The trial must read one epoch, while the worker commits others.
        self.worker.send(&ToWorker::Pin);
        let (step, since, found) = (UpgradeStep::Pinning, Instant::now(), String::new());
        self.upgrade = Some(UpgradeUnderWay { path, binary, answers, step, since, found });
    }

    /// Starts the trial, once an epoch is pinned for it. If no upgrade waits for the epoch, it is
    /// released at once. If the trial cannot be started, the upgrade is refused.
    pub(super) fn pinned(&mut self, epoch: u64) {
        // The trial loads every build, from its private copy.
        self.belongings.restore_builds();
        let hello = to_file(&self.hello(Some(epoch)));
        let begun = match &mut self.upgrade {
            Some(u) if matches!(u.step, UpgradeStep::Pinning) => {
                spawn::start(&u.binary).and_then(|spawned| {
                    let Spawned { process: Some(process), link } = spawned else { return Ok(()) };
                    // From here on the step owns the process, and `end_trial` ends it after any
                    // error below.
                    let step = UpgradeStep::Trying { epoch, process, link: Link::new(link) };
                    (u.step, u.since) = (step, Instant::now());
                    let UpgradeStep::Trying { process, link, .. } = &mut u.step else { return Ok(()) };
                    let hello = hello?;
                    spawn::greet(link, &self.worker.memory().with(&hello))?;
                    let registry = self.poll.registry();
                    registry.register(
                        &mut SourceFd(&process.ended.as_raw_fd()),
                        TRIAL,
                        Interest::READABLE,
                    )?;
                    registry.register(&mut SourceFd(&link.fd().as_raw_fd()), TRIAL, Interest::READABLE)
                })
            }
            // The upgrade was given up meanwhile.
            _ => return self.unpin(epoch),
        };
        if let Err(e) = begun {
            // Without a step that names the epoch, `fail_upgrade` cannot release it.
            if matches!(&self.upgrade, Some(UpgradeUnderWay { step: UpgradeStep::Pinning, .. })) {
                self.unpin(epoch);
            }
            self.fail_upgrade(&format!("it can't be started: {e}"));
        }
    }

    /// Has the worker release an epoch. Without a worker there is no pin.
    fn unpin(&mut self, epoch: u64) {
        self.worker.send(&ToWorker::Unpin(epoch));
    }

    /// Hears the trial's verdict, or notices its end. Runs in each round of the loop, and does
    /// nothing in other steps. Any first answer but a verdict refuses the upgrade.
    pub(super) fn hear_trial(&mut self) {
        let Some(UpgradeUnderWay { step: UpgradeStep::Trying { process, link, .. }, .. }) = &mut self.upgrade
        else {
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
            // A closed socket says nothing about the cause. The end of the process does.
            None => match process.try_wait() {
                Ok(None) => return,
                // The verdict may have come between the look at the socket and the end.
                Ok(Some(status)) => match link.receive() {
                    Ok(Received::Message(ToKeeper::Tried(verdict), _)) => verdict,
                    _ => Err(format!("its trial ended without a report: {}", how(status).0)),
                },
                Err(e) => Err(format!("its trial can't be waited for: {e}")),
            },
        };
        match verdict {
            // The verdict is about a snapshot that may have been given up meanwhile. The answer to
            // the release tells whether it counts.
            Ok(found) => {
                let Some(epoch) = self.end_trial() else { return };
                if let Some(u) = &mut self.upgrade {
                    (u.step, u.since, u.found) = (UpgradeStep::Unpinning, Instant::now(), found);
                }
                self.unpin(epoch);
            }
            Err(why) => self.fail_upgrade(&why),
        }
    }

    /// Ends the trial's process with SIGKILL, and reaps it. Returns the epoch that the trial read,
    /// which is still pinned. `None`: no trial is under way.
    fn end_trial(&mut self) -> Option<u64> {
        let Some(UpgradeUnderWay { step: UpgradeStep::Trying { epoch, process, link }, .. }) =
            &mut self.upgrade
        else {
            return None;
        };
        let registry = self.poll.registry();
        let _ = registry.deregister(&mut SourceFd(&process.ended.as_raw_fd()));
        let _ = registry.deregister(&mut SourceFd(&link.fd().as_raw_fd()));
        process.end();
        Some(*epoch)
    }

    /// Swaps the binaries, if the epoch was `held` for as long as the trial read it. If it was
    /// given up, the trial may have read a mix of epochs, and the upgrade is refused.
    pub(super) fn unpinned(&mut self, held: bool) {
        let Some(UpgradeUnderWay { step: UpgradeStep::Unpinning, .. }) = &self.upgrade else { return };
        // The pin ends beyond limit `pin_bytes_max`: a busy host must not run out of memory for a
        // slow trial.
        if !held {
            let why =
                "too much changed while it read what the host holds; try again when there is less to do";
            return self.fail_upgrade(why);
        }
        let Some(u) = &mut self.upgrade else { return };
        match u.binary.try_clone() {
            Ok(binary) => {
                u.step = UpgradeStep::Swapping { before: self.binary.replace(binary) };
                u.since = Instant::now();
                // The binary is in place before the worker is told: its end may come at any time.
                self.hand_over();
            }
            Err(e) => self.fail_upgrade(&e.to_string()),
        }
    }

    /// Whether the old worker is ending, or the new one starting. From here on a death is no longer
    /// a reason to refuse the upgrade, unless it was in a turn.
    pub(super) fn is_swapping(&self) -> bool {
        matches!(&self.upgrade, Some(UpgradeUnderWay { step: UpgradeStep::Swapping { .. }, .. }))
    }

    /// Completes an upgrade, if the worker that has become ready is of the new binary. Runs at
    /// every [`ToKeeper::Ready`]: any worker that becomes ready during the swap is of the new one.
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
    /// the start of the previous binary is due at once.
    pub(super) fn fall_back(&mut self, why: &str) -> bool {
        let Some(UpgradeUnderWay { step: UpgradeStep::Swapping { before }, .. }) = &mut self.upgrade else {
            return false;
        };
        // Taken out of the step, so that `fail_upgrade` does not put another one in its place.
        self.binary = before.take();
        self.fail_upgrade(&format!("its worker can't start, and one of the binary before goes on: {why}"));
        self.worker.retry_at_once(why.to_owned());
        true
    }

    /// Refuses an upgrade that is under way, in any step, and tells the operator why. Later
    /// processes are of the previous binary. Does nothing if no upgrade is under way, so it is
    /// repeatable.
    pub(super) fn fail_upgrade(&mut self, why: &str) {
        let epoch = self.end_trial();
        if let Some(epoch) = epoch {
            self.unpin(epoch);
        }
        if let Some(u) = self.upgrade.take() {
            // The log has the line as well: the operator may be gone.
            let line = format!("{}: refused, the binary before goes on: {why}", u.path.display());
            tracing::warn!("{line}");
            let _ = u.answers.send(Reply::Error(line));
            if let UpgradeStep::Swapping { before: before @ Some(_) } = u.step {
                self.binary = before;
            }
            // The worker before serves on, and still wants to be replaced.
            if let Some(why) = self.recycle_later.take() {
                self.recycle(&why);
            }
        }
    }

    /// Gives up an upgrade whose step takes longer than 60 s.
    pub(super) fn upgrade_in_time(&mut self, now: Instant) {
        if self.upgrade.as_ref().is_some_and(|u| u.give_up_at() <= now) {
            self.fail_upgrade("it took too long");
        }
    }
}
