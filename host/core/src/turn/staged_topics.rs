//! Topics that a session will be on when its batch is applied.
//!
//! Topics of a batch follow its effects, as [`super::staged_entries::StagedEntries`] does. Each
//! change costs one search, whatever number of topics the session is on.

use super::effect::Effect;
use std::collections::HashMap;

/// Changes of the session's topics by the effects so far.
#[derive(Debug, Default)]
pub(super) struct StagedTopics {
    /// Effects that are covered, counted from the first one.
    covered: usize,
    /// Whether the session will be on each topic that effects name.
    changed: HashMap<Box<[u8]>, bool>,
    /// Topics that it will be on beside those that it is on; negative: fewer.
    more: isize,
}

impl StagedTopics {
    /// Takes in the effects that came since the last call. `was_on`: whether the session is on a
    /// topic, without this batch.
    pub(super) fn cover(&mut self, arena: &[u8], effects: &[Effect], was_on: impl Fn(&[u8]) -> bool) {
        for effect in &effects[self.covered..] {
            let (topic, joins) = match effect {
                Effect::Subscribe(topic) => (topic, true),
                Effect::Unsubscribe(topic) => (topic, false),
                _ => continue,
            };
            let topic = &arena[topic.clone()];
            let before = self.changed.get(topic).copied().unwrap_or_else(|| was_on(topic));
            self.more += isize::from(joins) - isize::from(before);
            self.changed.insert(topic.into(), joins);
        }
        self.covered = effects.len();
    }

    /// Whether the session will be on a topic; `None`: no effect names it.
    pub(super) fn is_on(&self, topic: &[u8]) -> Option<bool> {
        self.changed.get(topic).copied()
    }

    /// Number of topics that the session will be on, of `own` that it is on.
    pub(super) fn count(&self, own: usize) -> usize {
        own.saturating_add_signed(self.more)
    }
}
