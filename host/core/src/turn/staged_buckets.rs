//! Token buckets as they will be when the batch is applied.
//!
//! Changes of a batch follow its effects, as [`super::staged_entries::StagedEntries`] does.

use super::effect::Effect;
use std::collections::HashMap;

/// Changes of buckets by the effects so far.
#[derive(Debug, Default)]
pub(super) struct StagedBuckets {
    /// Effects that are covered, counted from the first one.
    covered: usize,
    /// Time when each bucket is full that effects change.
    full_at_ns: HashMap<u64, u64>,
}

impl StagedBuckets {
    /// Takes in the effects that came since the last call.
    pub(super) fn cover(&mut self, effects: &[Effect]) {
        for effect in &effects[self.covered..] {
            if let Effect::Take { bucket, full_at_ns } = effect {
                self.full_at_ns.insert(*bucket, *full_at_ns);
            }
        }
        self.covered = effects.len();
    }

    /// Time when a bucket is full; `None`: this batch does not change it.
    pub(super) fn full_at_ns(&self, bucket: u64) -> Option<u64> {
        self.full_at_ns.get(&bucket).copied()
    }
}
