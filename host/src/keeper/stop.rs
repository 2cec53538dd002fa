//! The end of the host: by request, or because no worker can serve.
//!
//! | state | entered by | the loop |
//! | --- | --- | --- |
//! | none | the start | goes on |
//! | requested | `request` | goes on until the worker has ended, or until the deadline |
//! | failure noted | `note_failure` | goes on |
//! | over | `end`, `end_well`, `fail` | ends before its next poll |
//!
//! The deadline covers flushing. Once the worker saves, each part that reaches the disk moves it,
//! so a slow disk is no failure. The first worker that does not end by the deadline is killed, and
//! a successor flushes and saves in its place. If no worker can start, three have died, or none has
//! ended by the deadline, a process that loads no library saves, and nothing more is flushed.
//!
//! A request and a noted failure are independent. A noted failure is forgotten only by `end_well`:
//! a successor may still flush and save all.

use std::time::Instant;

/// Deaths of workers outside of turns during a stop from which no further one is to flush.
const DEATHS_MAX: u32 = 3;

/// Progress of the end.
#[derive(Default)]
pub(super) struct Stop {
    /// Time when a worker that still runs is killed. `None`: no stop was requested.
    by: Option<Instant>,
    /// Signal of the last request.
    signal: i32,
    /// Reason of a failed end: the error of the host, unless it ends well.
    failure: Option<String>,
    /// Reason why the last worker could not save the tables.
    unsaved: Option<String>,
    /// The worker saves: the deadline is that of the save.
    saving: bool,
    /// A worker that did not end was killed, and a successor is to flush and save.
    tried_again: bool,
    /// Deaths of workers outside of turns since the stop was requested.
    deaths: u32,
    /// Reason why no worker can start: a process that only saves takes its place.
    alone: Option<String>,
    /// The loop ends now.
    over: bool,
}

impl Stop {
    /// Whether a stop was requested.
    pub(super) fn is_requested(&self) -> bool {
        self.by.is_some()
    }

    /// Time when a worker that still runs is killed, once a stop was requested.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.by
    }

    /// The signal of the last request.
    pub(super) fn signal(&self) -> i32 {
        self.signal
    }

    /// Requests a stop. A repeated request moves the deadline.
    pub(super) fn request(&mut self, signal: i32, by: Instant) {
        (self.by, self.signal) = (Some(by), signal);
    }

    /// Moves the deadline of a requested stop.
    pub(super) fn extend(&mut self, by: Instant) {
        self.by = Some(by);
    }

    /// Notes that the worker saves, and has until then for the next part. The deadline only moves
    /// back.
    pub(super) fn saves(&mut self, by: Instant) {
        self.saving = true;
        self.by = self.by.max(Some(by));
    }

    /// Whether the worker saves.
    pub(super) fn is_saving(&self) -> bool {
        self.saving
    }

    /// Leaves flushing and saving to a successor, until then. False: that was done before.
    pub(super) fn try_again(&mut self, by: Instant) -> bool {
        let may = !std::mem::replace(&mut self.tried_again, true);
        if may {
            (self.by, self.saving) = (Some(by), false);
        }
        may
    }

    /// Notes that a worker died before all was flushed and saved. True: no successor is to try it
    /// again, as the next one may die, too. A death in a turn does not count: its action is
    /// blocked, so the next worker gets further.
    pub(super) fn worker_died(&mut self, in_a_turn: bool) -> bool {
        self.deaths += u32::from(!in_a_turn);
        self.deaths >= DEATHS_MAX
    }

    /// Gives up flushing: the end of the worker is the last one.
    pub(super) fn give_up_flushing(&mut self, by: Instant) {
        (self.deaths, self.by) = (DEATHS_MAX, Some(by));
    }

    /// Leaves the save to a process that does nothing else, as no worker can start for this reason.
    /// False: that was done before.
    pub(super) fn save_alone(&mut self, reason: &str, by: Instant) -> bool {
        let may = self.alone.is_none();
        if may {
            self.alone = Some(reason.to_owned());
            (self.by, self.saving) = (Some(by), true);
        }
        may
    }

    /// Whether a process that only saves takes the place of a worker.
    pub(super) fn saves_alone(&self) -> bool {
        self.alone.is_some()
    }

    /// Ends the loop behind the end of a process that only saves. False: there was none.
    pub(super) fn end_alone(&mut self, ended_well: bool) -> bool {
        let Some(reason) = self.alone.take() else { return false };
        let why = match self.unsaved.take() {
            None if ended_well => format!("stopped; the tables are saved, and nothing was flushed: {reason}"),
            None => format!("stopped, and nothing was flushed or saved: {reason}"),
            Some(why) => format!("stopped, and nothing was flushed: {reason}; {why}"),
        };
        self.fail(why);
        true
    }

    /// Whether the loop ends now.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Ends the loop. A failure that was noted stays.
    pub(super) fn end(&mut self) {
        self.over = true;
    }

    /// Ends the loop well, whatever failure was noted before: all was flushed. Tables that could
    /// not be saved remain a failure.
    pub(super) fn end_well(&mut self) {
        (self.failure, self.over) = (self.unsaved.take(), true);
    }

    /// Notes that the worker flushed all, and could not save the tables.
    pub(super) fn note_unsaved(&mut self, why: String) {
        self.unsaved = Some(why);
    }

    /// Ends the loop with a failure, which replaces one that was noted.
    pub(super) fn fail(&mut self, why: String) {
        (self.failure, self.over) = (Some(why), true);
    }

    /// Notes a failure. The loop goes on for now.
    pub(super) fn note_failure(&mut self, why: String) {
        self.failure = Some(why);
    }

    /// Whether a failure is noted.
    pub(super) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Result of the host, once the loop has ended.
    pub(super) fn into_result(self) -> Result<(), String> {
        self.failure.or(self.unsaved).map_or(Ok(()), Err)
    }
}
