//! Samples of the host, one each second while the console is served: turns and faults of each
//! service. The timeline of reloads is drawn over them.
//!
//! A sample costs one question for the status, which the keeper answers. The last hour is kept.

use crate::observe::questions::locked;
use crate::protocol::status::Status;
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
    /// Time of the last status, with turns and faults of each service.
    last: Option<(u64, Counts)>,
}

impl Samples {
    /// Takes a sample of a status, at this time in milliseconds since 1970.
    pub(super) fn take(&self, at: u64, status: &Status) {
        locked(&self.0).take(at, status);
    }

    /// Samples behind this time.
    pub(super) fn since(&self, at: u64) -> Vec<Sample> {
        let state = locked(&self.0);
        let first = state.samples.partition_point(|s| s.at <= at);
        state.samples.range(first..).cloned().collect()
    }
}

impl SampleState {
    fn take(&mut self, at: u64, status: &Status) {
        let counts: Counts = status.services.iter().map(|s| (s.name.clone(), (s.turns, s.faults))).collect();
        let last = self.last.replace((at, counts));
        // The first one has nothing to be compared with. A clock that is set back begins anew.
        let Some((before, last)) = last.filter(|(before, _)| *before < at) else { return };
        let seconds = (at - before) as f64 / 1000.0;
        let sample = |s: &crate::protocol::status::ServiceStatus| {
            let (turns, faults) = last.get(&s.name).copied().unwrap_or((s.turns, s.faults));
            ServiceSample {
                generation: s.generation,
                sessions: s.sessions,
                turns: (s.turns.saturating_sub(turns) as f64 / seconds).round(),
                faults: s.faults.saturating_sub(faults),
            }
        };
        let services = status.services.iter().map(|s| (s.name.clone(), sample(s))).collect();
        self.samples.push_back(Sample { at, services });
        if self.samples.len() > SAMPLES_MAX {
            self.samples.pop_front();
        }
    }
}
