//! Count of the timers that a batch leaves its session and its service.
//!
//! Limits count the timers of an owner with those that the batch sets and cancels. The newest
//! effect on a name decides. The count follows the effects, as
//! [`super::staged_entries::StagedEntries`] does: O(1) for each effect, with one allocation.

use super::effect::Effect;
use std::collections::HashMap;

/// Names that the batch sets and cancels, and what that changes in the number of timers.
#[derive(Debug, Default)]
pub(super) struct StagedTimers {
    /// Effects that the count covers, counted from the first one.
    covered: usize,
    /// Whether a timer is set after the batch, by name: those of the session, and of the service.
    names: [HashMap<Box<str>, bool>; 2],
    /// Timers more or fewer, likewise.
    changes: [i64; 2],
}

impl StagedTimers {
    /// Takes in the effects that came since the last call. `is_set`: whether the service, or else
    /// the session, has a timer of a name, without this batch.
    pub(super) fn cover(&mut self, arena: &[u8], effects: &[Effect], is_set: impl Fn(bool, &str) -> bool) {
        for effect in &effects[self.covered..] {
            let (service, name, now) = match effect {
                Effect::SetTimer { service, name, .. } => (*service, name, true),
                Effect::CancelTimer { service, name } => (*service, name, false),
                _ => continue,
            };
            let (of, name) =
                (usize::from(service), std::str::from_utf8(&arena[name.clone()]).unwrap_or_default());
            let before = self.names[of].insert(name.into(), now).unwrap_or_else(|| is_set(service, name));
            self.changes[of] += i64::from(now) - i64::from(before);
        }
        self.covered = effects.len();
    }

    /// Timers of the session, or of the service, with one of this name set. `count`: those that it
    /// has without this batch.
    pub(super) fn with(
        &self,
        service: bool,
        name: &str,
        count: usize,
        is_set: impl Fn(bool, &str) -> bool,
    ) -> usize {
        let of = usize::from(service);
        let is_set = self.names[of].get(name).copied().unwrap_or_else(|| is_set(service, name));
        let count = count as i64 + self.changes[of] + i64::from(!is_set);
        count.max(0) as usize
    }
}
