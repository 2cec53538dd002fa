//! Staged effects, as those read them who reserve room and apply them.

use super::effect::{Effect, Part};
use super::staging::Buffers;
use crate::framing::frame::FrameState;

impl Buffers {
    /// Topics that the session will be on, in order; `None`: the batch changes none. `own` are
    /// those that it is on.
    #[inline]
    pub(crate) fn topics(&mut self, own: &[Box<str>]) -> Option<&[Box<str>]> {
        if !self.changes_topics {
            return None;
        }
        self.is_indexed = true;
        let Buffers { bytes, effects, topics, .. } = self;
        topics.cover(bytes, effects, own)
    }

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

    /// A part that was staged as text.
    pub(crate) fn text(&self, part: &Part) -> &str {
        std::str::from_utf8(&self.bytes[part.clone()]).unwrap_or_default()
    }
}
