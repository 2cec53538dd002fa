//! Samples of the host, one each second while the console is served: number, times and faults
//! of each service's turns. The timeline of reloads is drawn over them.
//!
//! A sample costs one question for the metrics, which the keeper answers. The last hour is kept.

use crate::memory::histogram::Histogram;
use crate::observe::questions::locked;
use crate::protocol::metrics::{GenerationTurns, Metrics};
use crate::protocol::status::ServiceStatus;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

/// Samples that are kept.
const SAMPLES_MAX: usize = 3600;

/// Numbers of one service in a second.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct ServiceSample {
    generation: u64,
    sessions: usize,
    /// Turns each second since the sample before.
    turns: f64,
    /// Turns that failed, since the sample before.
    faults: u64,
    /// Median of their times, in microseconds. `None`: no turn ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_us: Option<f64>,
    /// Time that 99 of 100 turns did not exceed.
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_us: Option<f64>,
}

/// A sample.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Sample {
    /// Time, in milliseconds since 1970.
    at: u64,
    services: BTreeMap<String, ServiceSample>,
}

/// The samples.
#[derive(Default)]
pub(super) struct Samples(Mutex<SampleState>);

/// Turns and faults by service.
type Counts = BTreeMap<String, (u64, u64)>;

#[derive(Default)]
struct SampleState {
    samples: VecDeque<Sample>,
    /// Time of the last figures, with turns and faults of each service, and times of turns.
    last: Option<(u64, Counts, Vec<GenerationTurns>)>,
}

impl Samples {
    /// Takes a sample of the figures, at this time in milliseconds since 1970.
    pub(super) fn take(&self, at: u64, metrics: &Metrics) {
        locked(&self.0).take(at, metrics);
    }

    /// Samples behind this time.
    pub(super) fn since(&self, at: u64) -> Vec<Sample> {
        let state = locked(&self.0);
        let first = state.samples.partition_point(|s| s.at <= at);
        state.samples.range(first..).cloned().collect()
    }
}

impl SampleState {
    fn take(&mut self, at: u64, metrics: &Metrics) {
        let status = &metrics.status;
        let counts: Counts = status.services.iter().map(|s| (s.name.clone(), (s.turns, s.faults))).collect();
        let last = self.last.replace((at, counts, metrics.turns.clone()));
        // The first one has nothing to be compared with. A clock that is set back begins anew.
        let Some((before, last, turns)) = last.filter(|(before, ..)| *before < at) else { return };
        let times = times(&metrics.turns, &turns);
        let seconds = (at - before) as f64 / 1000.0;
        let sample = |s: &ServiceStatus| {
            let share = |of| times.get(&s.name).and_then(|h| h.quantile_ns(of)).map(|ns| ns as f64 / 1000.0);
            let (turns, faults) = last.get(&s.name).copied().unwrap_or((s.turns, s.faults));
            ServiceSample {
                generation: s.generation,
                sessions: s.sessions,
                turns: (s.turns.saturating_sub(turns) as f64 / seconds).round(),
                faults: s.faults.saturating_sub(faults),
                p50_us: share(0.5),
                p99_us: share(0.99),
            }
        };
        let services = status.services.iter().map(|s| (s.name.clone(), sample(s))).collect();
        self.samples.push_back(Sample { at, services });
        if self.samples.len() > SAMPLES_MAX {
            self.samples.pop_front();
        }
    }
}

/// Times of the turns that ran between two reads of the figures, by service.
fn times(now: &[GenerationTurns], before: &[GenerationTurns]) -> BTreeMap<String, Histogram> {
    let mut all: BTreeMap<String, Histogram> = BTreeMap::new();
    for turns in now {
        let same = |b: &&GenerationTurns| b.service == turns.service && b.generation == turns.generation;
        let earlier = before.iter().find(same).map(|b| &b.times);
        all.entry(turns.service.clone()).or_default().add_since(&turns.times, earlier);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times are those of the turns since, of all generations that ran.
    #[test]
    fn times_of_a_second_are_those_of_its_turns() {
        let of = |generation: u64, ns: &[u64]| {
            let mut times = Histogram::default();
            ns.iter().for_each(|ns| times.note(*ns));
            let service = "chat".to_owned();
            GenerationTurns { service, generation, faults: 0, times, ..GenerationTurns::default() }
        };
        let before = [of(1, &[1_000_000_000; 50])];
        let now = [of(1, &[&[1_000_000_000; 50][..], &[2_000; 3]].concat()), of(2, &[50_000])];
        let times = times(&now, &before);
        let share = |of| times["chat"].quantile_ns(of).unwrap();
        assert_eq!(times["chat"].count(), 4);
        assert!((1_000..4_000).contains(&share(0.5)) && (30_000..80_000).contains(&share(0.99)));
        assert_eq!(super::times(&before, &before)["chat"].count(), 0);
    }
}
