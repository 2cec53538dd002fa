//! Count of the jobs and connections that a batch asks for.
//!
//! Limits count those that there are with those that the batch asks for. A job that the batch
//! started and cancelled counts no more; its number is used up all the same. The counts follow the
//! effects, as [`super::staged_entries::StagedEntries`] does: O(log jobs) for each effect.

use super::effect::Effect;
use std::collections::BTreeSet;

/// Jobs and connections of the effects so far.
#[derive(Debug, Default)]
pub(super) struct StagedJobs {
    /// Effects that are covered, counted from the first one.
    covered: usize,
    /// Jobs that are started, cancelled ones included.
    pub(super) started: usize,
    /// Numbers of those that are cancelled: one that is cancelled twice is one.
    cancelled: BTreeSet<u64>,
    /// Effects among which connections were counted, and those.
    connects: (usize, usize),
}

impl StagedJobs {
    /// Takes in the effects that came since the last call. `first` is the number of the batch's
    /// first job.
    pub(super) fn cover(&mut self, effects: &[Effect], first: u64) {
        for effect in &effects[self.covered..] {
            match effect {
                Effect::StartJob { .. } => self.started += 1,
                Effect::CancelJob(n) if (first..first + self.started as u64).contains(n) => {
                    self.cancelled.insert(*n);
                }
                _ => {}
            }
        }
        self.covered = effects.len();
    }

    /// Counts the connections that are asked for. Asks nothing of the host: a replay of an older
    /// recording would have no answer.
    pub(super) fn connects(&mut self, effects: &[Effect]) -> usize {
        let (covered, count) = self.connects;
        let more = effects[covered..].iter().filter(|e| matches!(e, Effect::Connect { .. })).count();
        self.connects = (effects.len(), count + more);
        count + more
    }

    /// Jobs that are started and not cancelled.
    pub(super) fn wanted(&self) -> usize {
        self.started - self.cancelled.len()
    }
}
