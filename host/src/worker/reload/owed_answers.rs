//! Answers that the prepare thread owes the loop.
//!
//! *Invariant*: each step is answered once. An answer that comes after its step was given up is
//! dropped.

use greenroom_core::reload::request::LibraryId;
use std::collections::BTreeMap;

/// Step that the prepare thread owes an answer for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwedStep {
    /// Staging.
    Stage,
    /// A trial, with the epoch that is pinned for it.
    Try(Option<u64>),
    /// A load.
    Load,
}

/// Steps that the prepare thread has not answered yet, at most one for each library.
#[derive(Debug, Default)]
pub(super) struct OwedAnswers {
    steps: BTreeMap<LibraryId, OwedStep>,
    /// Libraries whose next answer is to be dropped, once for each step that was given up.
    given_up: Vec<LibraryId>,
}

impl OwedAnswers {
    /// Notes a step that the thread is ordered to do.
    pub(super) fn note(&mut self, id: LibraryId, step: OwedStep) {
        self.steps.insert(id, step);
    }

    /// Notes an answer. False: it is late, as its step was given up.
    pub(super) fn answered(&mut self, id: LibraryId) -> bool {
        // The thread answers in order, so the late ones come first.
        if let Some(late) = self.given_up.iter().position(|given_up| *given_up == id) {
            self.given_up.swap_remove(late);
            return false;
        }
        self.steps.remove(&id);
        true
    }

    /// Libraries whose loads are owed.
    pub(super) fn loads(&self) -> impl Iterator<Item = LibraryId> {
        self.steps.iter().filter(|(_, step)| **step == OwedStep::Load).map(|(id, _)| *id)
    }

    /// Gives up all steps, and returns them.
    pub(super) fn give_up(&mut self) -> BTreeMap<LibraryId, OwedStep> {
        self.given_up.extend(self.steps.keys());
        std::mem::take(&mut self.steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_a_step_that_was_given_up_is_dropped() {
        let (mut owed, [a, b]) = (OwedAnswers::default(), [LibraryId(0), LibraryId(1)]);
        owed.note(a, OwedStep::Load);
        owed.note(b, OwedStep::Stage);
        assert_eq!(owed.loads().collect::<Vec<_>>(), [a]);
        assert!(owed.answered(b));
        assert_eq!(owed.give_up(), BTreeMap::from([(a, OwedStep::Load)]));
        owed.note(a, OwedStep::Stage);
        assert_eq!((owed.answered(a), owed.answered(a)), (false, true));
        assert_eq!(owed.give_up(), BTreeMap::new());
    }
}
