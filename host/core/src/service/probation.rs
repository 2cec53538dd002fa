//! Probations: the time after a commit in which the previous build stands by.
//!
//! A turn that fails on probation is run again by the previous build. If that one succeeds, the
//! client gets its answer, and the failure counts against the new build. If the previous build
//! cannot be asked, the failure counts as well. A turn that fails with both counts against
//! neither: the client or an old fault has caused it.
//!
//! Failures decide by sessions: many of one session count as one, as a peer may send garbage on
//! purpose. A build of which no turn at all succeeds, but for panics, needs no second session.
//!
//! | state | event | becomes |
//! | --- | --- | --- |
//! | under way | `probation_ms` or `probation_turns` are up | passed; the previous build retires |
//! | under way | `probation_faults_max` sessions had failures | failed; a rollback is ordered |
//! | under way | `probation_faults_max` turns panicked, and no turn did anything else | the same |
//! | failed | the previous build takes charge | ended; the new build converts what it left |
//! | failed | there is no way back | ended; the new build stays |
//! | either | another build takes charge | ended, or begun anew for that build |
//!
//! *Invariant*: a library has at most one probation, and none without a previous build. A
//! failed probation stays in the list until the shell has acted, so no time or turn makes it
//! pass meanwhile.
//!
//! Probations lie on the heap. The shell records build and end; a successor begins them again,
//! with counts from 0. A call costs at most O(probations × services).

use super::offer::Build;
use super::registry::Services;
use crate::ledger::ProbationCounts;
use greenroom_state::abi;
use std::collections::BTreeSet;

/// Probation of one build.
#[derive(Debug, Clone)]
pub struct Probation {
    /// Build on probation.
    pub build: Build,
    /// Last build that proved itself: it stands by, and takes over if the new one fails.
    pub before: Build,
    /// End by time, in nanoseconds, on the clock of [`crate::input::Input::PassBegins`].
    pub until_ns: u64,
    /// Whether the build is to give way.
    failed: bool,
    /// Sessions with failures that count, up to the verdict.
    faulty: BTreeSet<u64>,
    /// Failures that were panics.
    panics: u32,
    /// Turns that the library's services had run when the probation began.
    turns_before: u64,
    /// Counts so far. Turns are brought up to date only when a count is asked for.
    pub record: ProbationCounts,
}

/// Answer of the previous build to a turn that failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fallback {
    /// The previous build cannot be asked: none stands by, or it cannot read the data without
    /// loss. The failure counts.
    Unavailable,
    /// The previous build fails, too. The failure does not count.
    Failed,
    /// The previous build ran the turn, and its effects are applied. The failure counts as
    /// spared.
    Answered {
        /// Whether the turn closed the session.
        close: bool,
    },
}

/// End of a probation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbationEnd {
    /// Time or turns are up: the build has proved itself.
    Passed,
    /// The build is to give way, for this reason, a sentence.
    Failed(String),
}

/// Builds on probation, at most one for each library.
#[derive(Debug, Default)]
pub(crate) struct Probations {
    all: Vec<Probation>,
}

impl Probations {
    /// Returns whether no build is on probation.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Returns the probation of a library's build.
    pub(crate) fn of(&self, library: &str) -> Option<&Probation> {
        self.all.iter().find(|p| p.build.library == library)
    }

    /// Begins the probation of a build, in place of any other one of its library. The build
    /// `before` stands by already. Turns count from this moment.
    pub(crate) fn begin(&mut self, services: &Services, build: &Build, before: &Build, until_ns: u64) {
        self.remove(&build.library);
        let turns_before = services.turns_of(&build.library);
        let (build, before) = (build.clone(), before.clone());
        let record = ProbationCounts::default();
        let (failed, faulty, panics) = (false, BTreeSet::new(), 0);
        self.all.push(Probation { build, before, until_ns, failed, faulty, panics, turns_before, record });
    }

    /// Ends the probation of a library's build, whatever its state, and returns it.
    pub(crate) fn remove(&mut self, library: &str) -> Option<Probation> {
        let at = self.all.iter().position(|p| p.build.library == library)?;
        Some(self.all.remove(at))
    }

    /// Returns the time at which the next probation is over, in nanoseconds. Failed ones have
    /// no such time: the shell ends them.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.all.iter().filter(|p| !p.failed).map(|p| p.until_ns).min()
    }

    /// Ends and returns one probation whose time or turns are up; `None`: there is no further
    /// one. The caller repeats the call. If `turns_enough` is 0, time alone counts.
    pub(crate) fn pop_passed(
        &mut self,
        services: &Services,
        now_ns: u64,
        turns_enough: u64,
    ) -> Option<Probation> {
        for p in &mut self.all {
            p.count_turns(services);
        }
        let is_over =
            |p: &Probation| p.until_ns <= now_ns || (turns_enough > 0 && p.record.turns >= turns_enough);
        let at = self.all.iter().position(|p| !p.failed && is_over(p))?;
        Some(self.all.remove(at))
    }

    /// Counts a failed turn of a session against the build of a library, if that is on
    /// probation. `kind` is that of the fault. Called before the turn itself is counted.
    ///
    /// Returns the probation if the build is to give way for it: at most once, so that one
    /// rollback is ordered. A limit of 0 counts as 1.
    pub(crate) fn count_fault(
        &mut self,
        services: &Services,
        library: &str,
        (session, kind): (u64, u32),
        fallback: &Fallback,
        faults_max: u32,
    ) -> Option<(Probation, ProbationEnd)> {
        let spared = match fallback {
            Fallback::Failed => return None,
            Fallback::Unavailable => false,
            Fallback::Answered { .. } => true,
        };
        let p = self.all.iter_mut().find(|p| p.build.library == library)?;
        p.count_turns(services);
        p.record.faults += 1;
        p.record.spared += u32::from(spared);
        p.panics += u32::from(kind == abi::fault::PANIC);
        // Failures behind the verdict are counted for the report, and decide nothing.
        if p.failed {
            return None;
        }
        p.faulty.insert(session);
        let (faults_max, faults) = (faults_max.max(1), p.record.faults);
        // This turn is not among the turns yet.
        let all_panic = p.panics == faults && p.record.turns < u64::from(faults);
        if (p.faulty.len() as u64) < u64::from(faults_max) && !(all_panic && faults >= faults_max) {
            return None;
        }
        p.failed = true;
        let why = format!(
            "{faults} of its turns, in {} sessions, failed that generation {} doesn't fail (limit probation_faults_max)",
            p.faulty.len(),
            p.before.generation
        );
        Some((p.clone(), ProbationEnd::Failed(why)))
    }
}

impl Probation {
    /// Brings the count of turns up to date. The counter of a service that leaves the library
    /// leaves the sum, so the difference stops at 0.
    fn count_turns(&mut self, services: &Services) {
        self.record.turns = services.turns_of(&self.build.library).saturating_sub(self.turns_before);
    }
}
