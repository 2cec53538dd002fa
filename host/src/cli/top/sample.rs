//! Samples of a host, and rates between two of them.

use crate::admin::client::call;
use crate::cli::output::CommandFailure;
use crate::memory::histogram::Histogram;
use crate::protocol::admin::{AdminCommand, Reply, SessionLine};
use crate::protocol::metrics::{GenerationTurns, Metrics};
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
    /// Turns of the generations that ran last.
    pub(super) turns: Vec<GenerationTurns>,
    /// Sessions with the largest states, and with the most output that waits; `None`: not asked.
    pub(super) sessions: Option<[Vec<SessionLine>; 2]>,
}

impl HostSample {
    /// Asks a host. `sessions`: for its sessions, too; a worker that does not answer leaves them
    /// out.
    pub(super) fn take(dir: &Path, sessions: bool) -> Result<HostSample, CommandFailure> {
        let mut metrics = None;
        call(dir, &AdminCommand::Metrics, |reply| {
            if let Reply::Metrics(found) = reply {
                metrics = Some(*found);
            }
        })?;
        let silent = || CommandFailure::Failed("the host said nothing".into());
        let Metrics { status, turns, .. } = metrics.ok_or_else(silent)?;
        let at = Instant::now();
        let is_serving = status.host.stalled.is_none() && status.host.worker_pid > 0;
        let list = |by| first_of(dir, by).unwrap_or_default();
        let sessions = (sessions && is_serving).then(|| [list(SortBy::State), list(SortBy::Unsent)]);
        Ok(HostSample { at, status, turns, sessions })
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
    /// Times of the turns since the sample before, of all generations.
    pub(super) times: Histogram,
}

/// Turns of one kind of callback between two samples.
pub(super) struct CallbackTimes<'v> {
    /// Service and generation.
    pub(super) of: &'v GenerationTurns,
    /// Kind of its action.
    pub(super) action: &'v str,
    /// Turns.
    pub(super) turns: u64,
    /// Time that they took together, in nanoseconds.
    pub(super) ns: u64,
    /// Time between the samples.
    pub(super) within: Duration,
}

impl CallbackTimes<'_> {
    /// Mean time of a turn, in nanoseconds.
    pub(super) fn mean_ns(&self) -> u64 {
        self.ns.checked_div(self.turns).unwrap_or(0)
    }
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
        let rates = |service| rates_of(service, self.earlier(), &self.now);
        let mut all: Vec<_> = self.now.status.services.iter().map(rates).collect();
        match self.order {
            ServiceOrder::Name => {}
            ServiceOrder::Turns => all.sort_by(|a, b| b.turns.total_cmp(&a.turns)),
            ServiceOrder::Sessions => all.sort_by_key(|s| std::cmp::Reverse(s.service.sessions)),
        }
        all
    }

    /// Sample before the last one, if it is of the same host.
    fn earlier(&self) -> Option<&HostSample> {
        self.before.as_ref().filter(|b| b.status.host.pid == self.now.status.host.pid && b.at < self.now.at)
    }

    /// Kinds of callbacks that ran since the sample before, the slowest first by their mean time.
    pub(super) fn callbacks(&self) -> Vec<CallbackTimes<'_>> {
        let Some(before) = self.earlier() else { return Vec::new() };
        let within = self.now.at.duration_since(before.at);
        let mut all = Vec::new();
        for of in &self.now.turns {
            let earlier = same_generation(of, before);
            let since = |now: u64, was: Option<&u64>| now.saturating_sub(was.copied().unwrap_or(0));
            for (action, ns) in &of.action_ns {
                let turns = of.actions.get(action).copied().unwrap_or(0);
                let turns = since(turns, earlier.and_then(|b| b.actions.get(action)));
                let ns = since(*ns, earlier.and_then(|b| b.action_ns.get(action)));
                if turns > 0 {
                    all.push(CallbackTimes { of, action, turns, ns, within });
                }
            }
        }
        all.sort_by_key(|c| std::cmp::Reverse(c.mean_ns()));
        all
    }
}

/// Turns of the same generation in an earlier sample.
fn same_generation<'b>(of: &GenerationTurns, before: &'b HostSample) -> Option<&'b GenerationTurns> {
    before.turns.iter().find(|b| b.service == of.service && b.generation == of.generation)
}

/// Rates of a service since the sample before.
fn rates_of<'v>(
    service: &'v ServiceStatus,
    before: Option<&HostSample>,
    now: &HostSample,
) -> ServiceRates<'v> {
    let same = |b: &HostSample| {
        b.status.services.iter().find(|s| s.name == service.name).map(|s| (s.turns, s.faults))
    };
    let mut rates = ServiceRates { service, turns: 0.0, faults: 0.0, times: Histogram::default() };
    let Some((before, (turns, faults))) = before.and_then(|b| Some((b, same(b)?))) else { return rates };
    let time = now.at.duration_since(before.at).as_secs_f64();
    let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / time;
    (rates.turns, rates.faults) = (rate(service.turns, turns), rate(service.faults, faults));
    for of in now.turns.iter().filter(|t| t.service == service.name) {
        rates.times.add_since(&of.times, same_generation(of, before).map(|b| &b.times));
    }
    rates
}
