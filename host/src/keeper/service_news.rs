//! News of the host for the service manager, from the state of the keeper's parts.

use crate::keeper::Keeper;
use crate::keeper::phase::Phase;
use crate::keeper::service_manager::{HostStage, News};
use crate::printable::one_line;
use std::time::Instant;

impl Keeper {
    /// Tells the service manager what is new. Runs once in each round of the loop, and costs
    /// nothing without a manager.
    pub(super) fn tell_manager(&mut self) {
        if !self.manager.listens() {
            return;
        }
        let now = Instant::now();
        self.manager.feed_watchdog(now);
        let stage = match self.proposals.reload_under_way() {
            _ if self.stop.is_requested() => HostStage::Stopping,
            _ if !self.worker.has_served() => HostStage::Starting,
            Some(number) => HostStage::Reloading(number),
            None => HostStage::Ready,
        };
        let until = match stage {
            HostStage::Starting => self.worker.phase().deadline(),
            HostStage::Stopping => self.stop.deadline(),
            HostStage::Ready | HostStage::Reloading(_) => None,
        };
        let (phase, failing) = (self.worker.phase(), self.failing.names());
        let text = (phase.name(), self.worker.pid(), failing.len());
        let news = News { stage, until, text };
        self.manager.tell(news, now, || {
            let mut said = in_words(phase, self.worker.pid(), stage);
            if failing.len() > 0 {
                said += &format!("; failing: {}", failing.collect::<Vec<_>>().join(", "));
            }
            one_line(&said).into_owned()
        });
    }
}

/// Describes the host for `systemctl status`.
fn in_words(phase: &Phase, pid: Option<u32>, stage: HostStage) -> String {
    let worker = pid.map_or_else(|| "the worker".to_owned(), |pid| format!("worker {pid}"));
    match (stage, phase) {
        (HostStage::Stopping, _) => "stopping: sessions have their last turns, and tables are saved".into(),
        (_, Phase::Parked { reason, .. }) if reason.is_empty() => "the next worker is started".into(),
        (_, Phase::Parked { reason, .. }) => format!("no worker serves, connections wait: {reason}"),
        (_, Phase::Starting { .. }) => format!("{worker} starts"),
        (_, Phase::HandingOver { .. }) => format!("{worker} hands over to the next one"),
        (HostStage::Reloading(_), Phase::Serving { .. }) => {
            format!("{worker} serves; reads the configuration")
        }
        (_, Phase::Serving { .. }) => format!("{worker} serves"),
    }
}
