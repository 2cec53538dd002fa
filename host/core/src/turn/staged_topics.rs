//! Topics that a session will be on when its batch is applied.
//!
//! Topics of a batch follow its effects, as [`super::staged_entries::StagedEntries`] does. Each
//! change costs a search of the session's topics, which `topics_per_session_max` bounds.

use super::effect::Effect;

/// Topics of the session behind the effects so far.
#[derive(Debug, Default)]
pub(super) struct StagedTopics {
    /// Effects that are covered, counted from the first one.
    covered: usize,
    /// Topics in order; `None`: no effect changes them.
    on: Option<Vec<Box<str>>>,
}

impl StagedTopics {
    /// Takes in the effects that came since the last call, and returns the topics; `None`: those
    /// that the session is on, `own`, stay as they are.
    pub(super) fn cover(
        &mut self,
        arena: &[u8],
        effects: &[Effect],
        own: &[Box<str>],
    ) -> Option<&[Box<str>]> {
        for effect in &effects[self.covered..] {
            let (topic, joins) = match effect {
                Effect::Subscribe(topic) => (topic, true),
                Effect::Unsubscribe(topic) => (topic, false),
                _ => continue,
            };
            let topic = std::str::from_utf8(&arena[topic.clone()]).unwrap_or_default();
            let on = self.on.get_or_insert_with(|| own.to_vec());
            match joins {
                true if !on.iter().any(|t| **t == *topic) => on.push(topic.into()),
                true => {}
                false => on.retain(|t| **t != *topic),
            }
        }
        self.covered = effects.len();
        self.on.as_deref()
    }
}
