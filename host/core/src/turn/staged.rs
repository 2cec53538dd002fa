//! Staged effects, as those read them who reserve room and apply them.

use super::effect::{Effect, Part};
use super::staging::Buffers;
use super::turn_record::TurnOutcome;
use crate::framing::frame::FrameState;

impl Buffers {
    /// State that the session's framing will have; `None`: the batch does not change it.
    #[inline]
    pub(crate) fn framing(&self) -> Option<&FrameState> {
        // A failed turn's effects may be gone, so the mark alone says too little.
        let last = self.changes_framing.then(|| self.effects.iter().rev());
        last?.find_map(|effect| match effect {
            Effect::Framing(state) => Some(&**state),
            _ => None,
        })
    }

    /// A part that was staged as bytes.
    pub(crate) fn part(&self, part: &Part) -> &[u8] {
        &self.bytes[part.clone()]
    }

    /// A part that was staged as text.
    pub(crate) fn text(&self, part: &Part) -> &str {
        std::str::from_utf8(&self.bytes[part.clone()]).unwrap_or_default()
    }

    /// Notes what came of the turn, if it is watched. The words are made only then.
    #[inline]
    pub(crate) fn came_to(&mut self, outcome: impl FnOnce() -> TurnOutcome) {
        if let Some(tap) = &mut self.tap {
            tap.came_to(outcome());
        }
    }
}
