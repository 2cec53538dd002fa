//! Orphans: processes whose parent ended before them, and that the kernel gives to the keeper.
//!
//! The keeper takes all that descend from it, as process 1 of a container does anyway. Each is
//! reaped once it has ended, or the table of processes would fill with them. They are programs that
//! a handler started and let go of; those of a dead worker's group are killed with it.
//!
//! A child of the keeper's own is left to whoever waits for it. It hides the orphans behind it, so
//! the look is repeated until none is there.
//!
//! With `--no-keeper` nothing is reaped: the children may be a handler's own, which it waits for.

use crate::keeper::Keeper;
use crate::keeper::upgrade::{UpgradeStep, UpgradeUnderWay};
use crate::sys::process_state::{ended_child, reap};
use rustix::process::Pid;

impl Keeper {
    /// Reaps orphans that have ended. Runs in each round of the loop, and does nothing unless
    /// SIGCHLD came since the last look that found none.
    pub(super) fn reap_orphans(&mut self) {
        while self.orphans_due && self.binary.is_some() {
            match ended_child() {
                None => self.orphans_due = false,
                Some(pid) if self.is_own(pid) => return,
                // An error would come again, in an endless loop.
                Some(pid) => self.orphans_due = reap(pid).is_ok(),
            }
        }
    }

    /// Whether a process is one that the keeper started and waits for.
    fn is_own(&self, pid: Pid) -> bool {
        let trial = match &self.upgrade {
            Some(UpgradeUnderWay { step: UpgradeStep::Trying { process, .. }, .. }) => Some(process.pid()),
            _ => None,
        };
        let number = pid.as_raw_nonzero().get().unsigned_abs();
        let helpers = [trial, self.acceptor.handshakes.pid(), self.observer.pid()];
        self.worker.pid() == Some(number) || helpers.contains(&Some(pid))
    }
}
