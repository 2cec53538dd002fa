//! Probations: what is counted, when one ends, who takes over.
//!
//! A new build proves itself while the previous build stands by. For a while a turn that fails is
//! run again by the previous build: then the client gets its answer, and the failure counts against
//! the new build. A failure counts as well if the previous build can't be asked. A turn that fails
//! with both is the client's doing, or an old fault, and does not count. Past a limit the previous
//! build takes over again, and the new one only converts what it left.

use super::offer::Build;
use super::registry::Services;
use crate::ledger::ProbationCounts;

/// A build on probation.
#[derive(Debug, Clone)]
pub struct Probation {
    /// Build on probation.
    pub build: Build,
    /// Last build that proved itself.
    pub before: Build,
    /// End by time, on the clock of [`crate::input::Input::PassBegins`].
    pub until_ns: u64,
    /// Whether it is to give way.
    failed: bool,
    /// Turns that the library's services had run when it began.
    turns_before: u64,
    /// Counts so far.
    pub record: ProbationCounts,
}

/// The answer of the previous build to a turn that failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fallback {
    /// The previous build can't be asked.
    Unavailable,
    /// The previous build fails, too.
    Failed,
    /// The previous build ran the turn, which is applied. `close`: the turn closed the session.
    Answered {
        /// Whether the turn closed the session.
        close: bool,
    },
}

/// The end of a probation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbationEnd {
    /// Time or turns are up.
    Passed,
    /// The build is to give way, for this reason.
    Failed(String),
}

/// The builds on probation, at most one for each library.
#[derive(Debug, Default)]
pub(crate) struct Probations {
    all: Vec<Probation>,
}

impl Probations {
    /// Whether no build is on probation.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The probation of a library's build.
    pub(crate) fn of(&self, library: &str) -> Option<&Probation> {
        self.all.iter().find(|p| p.build.library == library)
    }

    /// Begins the probation of a build; the build `before` stands by already.
    pub(crate) fn begin(&mut self, services: &Services, build: &Build, before: &Build, until_ns: u64) {
        self.remove(&build.library);
        let turns_before = services.turns_of(&build.library);
        let (build, before) = (build.clone(), before.clone());
        let record = ProbationCounts::default();
        self.all.push(Probation { build, before, until_ns, failed: false, turns_before, record });
    }

    /// Takes off the probation of a library's build.
    pub(crate) fn remove(&mut self, library: &str) -> Option<Probation> {
        let at = self.all.iter().position(|p| p.build.library == library)?;
        Some(self.all.remove(at))
    }

    /// Time at which the next probation is over, in nanoseconds.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.all.iter().filter(|p| !p.failed).map(|p| p.until_ns).min()
    }

    /// Takes off the next probation whose time or turns are up. `turns_enough` 0: time alone
    /// counts.
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

    /// Counts a failed turn against the build of a library, if that is on probation. Returns the
    /// probation if the build is to give way for it.
    pub(crate) fn count_fault(
        &mut self,
        services: &Services,
        library: &str,
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
        if p.record.faults < faults_max.max(1) || p.failed {
            return None;
        }
        p.failed = true;
        let why = format!(
            "{} of its turns failed that generation {} doesn't fail (limit probation_faults_max)",
            p.record.faults, p.before.generation
        );
        Some((p.clone(), ProbationEnd::Failed(why)))
    }
}

impl Probation {
    fn count_turns(&mut self, services: &Services) {
        self.record.turns = services.turns_of(&self.build.library).saturating_sub(self.turns_before);
    }
}
