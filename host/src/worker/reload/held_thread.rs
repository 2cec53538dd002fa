//! Code of authors that holds the prepare thread, and with it all reloads.
//!
//! A library was loaded and built in its trial, within limit `rehearsal_ms`. The same code may wait
//! for ever in the worker: for a lock, a server, or a child that the trial could not have. A thread
//! can't be ended, so a fresh process takes over, which leaves without running destructors.
//!
//! | the thread is held by | its reload | reloads that wait for the thread |
//! | --- | --- | --- |
//! | a load, for `rehearsal_ms` | refused | refused; the fresh worker may carry them out |
//! | destructors, for as long | is over | the same |
//!
//! *Invariant*: each step is answered once. An answer that comes after its step was given up is
//! dropped.
//!
//! A worker that has not served yet can't be replaced. It refuses the load all the same, and is
//! replaced once another reload waits.

use crate::plugin::authors_code::AuthorsStep;
use crate::plugin::prepare::{Job, Loaded};
use crate::protocol::admin::FRESH_WORKER;
use crate::worker::reload::carry_out::ReloadDriver;
use crate::worker::shell::Shell;
use greenroom_core::reload::request::{Event, LibraryId};
use std::collections::BTreeMap;
use std::time::Duration;

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

    /// Gives up all steps, and returns them.
    fn give_up(&mut self) -> BTreeMap<LibraryId, OwedStep> {
        self.given_up.extend(self.steps.keys());
        std::mem::take(&mut self.steps)
    }
}

impl ReloadDriver {
    /// Ends reloads that wait for code of authors, and asks for a fresh process. O(1) without one.
    pub(super) fn end_held(&mut self, shell: &mut Shell) {
        if !shell.core.reloads.is_busy() {
            return;
        }
        let limit = Duration::from_millis(shell.config.limits().rehearsal_ms);
        let Some(held) = shell.threads.prepare.held_for(limit) else { return };
        let after = format!("after {} s (limit rehearsal_ms)", limit.as_secs_f64());
        let did = format!("has not come back from `new` or a constructor in the worker {after}");
        let why = match held {
            AuthorsStep::Load(id) => format!("{} {did}", shell.core.reloads.libraries()[id.0].name()),
            AuthorsStep::Drop => format!("the destructors of a replaced build have not come back {after}"),
        };
        for (id, step) in self.owed.give_up() {
            let why = match held == AuthorsStep::Load(id) {
                true => format!("it {did}, although it had in its trial"),
                false => format!("{why}; {FRESH_WORKER}"),
            };
            match step {
                OwedStep::Stage => self.handle(shell, Event::Staged(id, Err(why))),
                OwedStep::Try(epoch) => self.end_trial(shell, id, epoch, Err(why)),
                OwedStep::Load => self.end_load(shell, id, Err(why)),
            }
        }
        if shell.keeper.may_recycle() {
            shell.keeper.recycle(why);
        }
    }
}

/// Drops what was loaded after its reload was refused.
pub(super) fn drop_late(shell: &Shell, loaded: Result<Loaded, String>) {
    if let Ok(Loaded { code, copy, .. }) = loaded {
        shell.threads.prepare.send(Job::Drop(Box::new(code), vec![copy]));
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
        assert!(owed.answered(b));
        assert_eq!(owed.give_up(), BTreeMap::from([(a, OwedStep::Load)]));
        owed.note(a, OwedStep::Stage);
        assert_eq!((owed.answered(a), owed.answered(a)), (false, true));
        assert_eq!(owed.give_up(), BTreeMap::new());
    }
}
