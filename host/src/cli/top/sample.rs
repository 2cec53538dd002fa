//! Samples of a host, and rates between two of them.

use crate::admin::client::call;
use crate::cli::output::CommandFailure;
use crate::protocol::admin::{AdminCommand, Reply, SessionLine};
use crate::protocol::selection::{First, SortBy};
use crate::protocol::status::{ServiceStatus, Status};
use std::path::Path;
use std::time::{Duration, Instant};

/// Sessions in each list.
const LISTED: usize = 8;

/// Figures of a host at one moment.
pub(super) struct HostSample {
    /// Moment.
    pub(super) at: Instant,
    /// Host and services.
    pub(super) status: Status,
    /// Sessions with the largest states, and with the most output that waits; `None`: not asked.
    pub(super) sessions: Option<[Vec<SessionLine>; 2]>,
}

impl HostSample {
    /// Asks a host. `sessions`: for its sessions, too; a worker that does not answer leaves them
    /// out.
    pub(super) fn take(dir: &Path, sessions: bool) -> Result<HostSample, CommandFailure> {
        let mut status = None;
        call(dir, &AdminCommand::Status, |reply| {
            if let Reply::Status(found) = reply {
                status = Some(*found);
            }
        })?;
        let status = status.ok_or_else(|| CommandFailure::Failed("the host said nothing".into()))?;
        let at = Instant::now();
        let is_serving = status.host.stalled.is_none() && status.host.worker_pid > 0;
        let list = |by| first_of(dir, by).unwrap_or_default();
        let sessions = (sessions && is_serving).then(|| [list(SortBy::State), list(SortBy::Unsent)]);
        Ok(HostSample { at, status, sessions })
    }
}

/// First sessions of an order.
fn first_of(dir: &Path, by: SortBy) -> Option<Vec<SessionLine>> {
    let first = Some(First { by, reverse: false, count: LISTED });
    let mut found = Vec::new();
    call(dir, &AdminCommand::Sessions { of: Box::default(), first }, |reply| {
        if let Reply::Sessions(some) = reply {
            found.extend(some);
        }
    })
    .ok()?;
    Some(found)
}

/// ServiceOrder of the services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServiceOrder {
    /// By name.
    Name,
    /// Most turns a second first.
    Turns,
    /// Most sessions first.
    Sessions,
}

/// State of the screen.
pub(super) struct View {
    before: Option<HostSample>,
    /// Last sample.
    pub(super) now: HostSample,
    /// Sessions of the last sample that had some.
    pub(super) sessions: [Vec<SessionLine>; 2],
    /// Why the host could not be asked; `None`: it could.
    pub(super) failure: Option<String>,
    /// Samples are dropped.
    pub(super) is_paused: bool,
    /// ServiceOrder of the services.
    pub(super) order: ServiceOrder,
}

/// Figures of a service between two samples.
pub(super) struct ServiceRates<'v> {
    /// Service of the last sample.
    pub(super) service: &'v ServiceStatus,
    /// Turns a second.
    pub(super) turns: f64,
    /// Faults a second.
    pub(super) faults: f64,
}

impl View {
    /// Begins with a first sample.
    pub(super) fn new(mut now: HostSample) -> View {
        let sessions = now.sessions.take().unwrap_or_default();
        View { before: None, now, sessions, failure: None, is_paused: false, order: ServiceOrder::Name }
    }

    /// Takes another sample.
    pub(super) fn add(&mut self, sample: Result<HostSample, String>) {
        match sample {
            _ if self.is_paused => {}
            Err(why) => self.failure = Some(why),
            Ok(mut sample) => {
                self.failure = None;
                if let Some(sessions) = sample.sessions.take() {
                    self.sessions = sessions;
                }
                self.before = Some(std::mem::replace(&mut self.now, sample));
            }
        }
    }

    /// Services with their rates, in order. A service that is new, or whose host is, has none.
    pub(super) fn services(&self) -> Vec<ServiceRates<'_>> {
        let rates = |service| {
            let before = self.before.as_ref().filter(|b| b.status.host.pid == self.now.status.host.pid);
            rates_of(service, before, self.now.at)
        };
        let mut all: Vec<_> = self.now.status.services.iter().map(rates).collect();
        match self.order {
            ServiceOrder::Name => {}
            ServiceOrder::Turns => all.sort_by(|a, b| b.turns.total_cmp(&a.turns)),
            ServiceOrder::Sessions => all.sort_by_key(|s| std::cmp::Reverse(s.service.sessions)),
        }
        all
    }
}

/// Rates of a service since the sample before.
fn rates_of<'v>(service: &'v ServiceStatus, before: Option<&HostSample>, at: Instant) -> ServiceRates<'v> {
    let same = |b: &HostSample| {
        b.status.services.iter().find(|s| s.name == service.name).map(|s| (s.turns, s.faults))
    };
    let earlier = before.and_then(|b| Some((same(b)?, at.duration_since(b.at))));
    let Some(((turns, faults), time)) = earlier.filter(|(_, time)| *time > Duration::ZERO) else {
        return ServiceRates { service, turns: 0.0, faults: 0.0 };
    };
    let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / time.as_secs_f64();
    ServiceRates { service, turns: rate(service.turns, turns), faults: rate(service.faults, faults) }
}
