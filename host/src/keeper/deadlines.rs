//! Deadlines of all parts: the sleep of the keeper's poll, and what follows once one has passed.

use crate::keeper::Keeper;
use crate::keeper::phase::{Phase, START_MAX};
use crate::keeper::upgrade::UpgradeUnderWay;
use crate::protocol::keeper::ToWorker;
use greenroom_core::limits::names::Limit;
use std::time::{Duration, Instant};

/// Time in which a process must have ended that has closed its socket. The kernel closes it shortly
/// before the end.
const UNHEARD_MAX: Duration = Duration::from_secs(1);

impl Keeper {
    /// Time that the poll may sleep: until the first deadline of any part. `None`: no part has one.
    pub(super) fn timeout(&self) -> Option<Duration> {
        let now = Instant::now();
        // A process that only saves has as long as its save moves.
        let saves_alone = self.stop.saves_alone() && self.worker.has_process();
        let all = [
            self.worker.phase().deadline().filter(|_| !saves_alone),
            self.acceptor.deadline(self.may_accept(), now),
            self.callers.deadline(),
            self.upgrade.as_ref().map(UpgradeUnderWay::give_up_at),
            self.stop.deadline(),
            self.observer.deadline(),
            self.manager.deadline(),
            self.log_levels.deadline(),
            self.unheard_since.map(|since| since + UNHEARD_MAX),
        ];
        all.into_iter().flatten().min().map(|at| at.saturating_duration_since(now))
    }

    /// Acts on every deadline that has passed: of callers, the worker's phase, outbound
    /// connections, the upgrade and the stop. Each deadline also bounds the sleep of the poll.
    pub(super) fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        while let Some(caller) = self.callers.take_late(now) {
            let why = match self.worker.phase() {
                Phase::Parked { reason, .. } => format!("no worker serves at the moment: {reason}"),
                _ => "no worker serves yet; see `greenroom status`".into(),
            };
            caller.refuse(&why, self.audit());
        }
        // A handler may have closed the socket. The process serves, but nobody can tell it
        // anything.
        if self.unheard_since.is_some_and(|since| since + UNHEARD_MAX <= now) {
            tracing::error!("the worker has lost its socket to the keeper; it is replaced");
            self.unheard_since = None;
            self.worker.kill();
        }
        // A start that hangs would leave all connections waiting. The kill is reaped like a death.
        if self.worker.is_overdue(now) && !self.stop.saves_alone() {
            tracing::error!("the worker is not ready after {START_MAX:?}; it is replaced");
            self.worker.kill();
        }
        for number in self.acceptor.take_late(self.poll.registry(), now) {
            self.count_reached(Limit::ConnectMs, 1);
            self.worker.send(&ToWorker::ConnectFailed(number, "it took too long (limit connect_ms)".into()));
        }
        self.end_log_levels(now);
        self.upgrade_in_time(now);
        self.stop_in_time(now);
    }
}
