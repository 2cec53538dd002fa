//! Deaths and failed starts of one worker, and the pauses that follow.
//!
//! After a single death the next start is due at once, as all clients wait for it. After failures
//! in a row each start waits longer, up to [`REST_MAX`], so that a loop of restarts costs little.
//!
//! Two counts make a row: failed starts end with a process that serves, and quick deaths end with
//! one that served for [`QUICK_DEATH`]. A worker that becomes ready and dies at once is thus
//! throttled, too. One that has served for [`SERVED_MIN`] rests no longer than it has served.
//!
//! A death inside a turn does not pause: its action is blocked after two deaths, so the row ends by
//! itself. More than [`TURN_DEATHS_MAX`] quick deaths in turns show that blocking does not help.

use crate::keeper::phase::Phase;
use crate::memory::board_layout::Running;
use crate::memory::histogram::Histogram;
use crate::memory::reading::{Reading, WatchdogEnd};
use greenroom_core::effects::jobs::JobDeath;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// Unit of the pauses: the pause after the first failure is zero, after the second one twice this,
/// and each further one doubles.
const REST_MIN: Duration = Duration::from_millis(50);
/// Longest pause.
const REST_MAX: Duration = Duration::from_secs(5);
/// Time of serving from which a pause is no longer than that time.
const SERVED_MIN: Duration = Duration::from_millis(20);
/// A worker that dies by its own doing within this time of serving counts as a failed start.
const QUICK_DEATH: Duration = Duration::from_millis(200);
/// Quick deaths inside a turn, in a row, that restart at once. After that, restarts back off. One
/// action causes two at most: then it is blocked.
const TURN_DEATHS_MAX: u32 = 8;

/// The end of a worker's process.
pub(super) struct Ended {
    /// The process id.
    pub(super) pid: u32,
    /// The exit status.
    pub(super) status: ExitStatus,
    /// Phase that it ended in.
    pub(super) phase: Phase,
    /// Counters that it left.
    pub(super) board: Reading,
}

impl Ended {
    /// Cause in words, and whether the process caused its end itself. A SIGKILL comes from
    /// outside, unless the board says that the watchdog sent it.
    pub(super) fn cause(&self) -> (String, bool) {
        let (how, own) = crate::exit_status::how(self.status);
        match self.board.watchdog_end() {
            Some(WatchdogEnd::Stalled(ms)) => (format!("stalled for {ms} ms (limit stall_kill_ms)"), true),
            Some(WatchdogEnd::LoopEnded) => ("its loop's thread had ended".into(), true),
            None if own && self.crashed_elsewhere() => {
                let thread = match self.board.crashed_job() {
                    Some(_) => "the thread of a job",
                    None => "a thread that a handler started, or that of a reload",
                };
                (format!("{how}, on {thread}"), own)
            }
            None => (how, own),
        }
    }

    /// Action that was running, and may be to blame. `None`: none was, or a thread crashed that
    /// runs no turns. The watchdog's own thread ends a process for what the loop runs.
    pub(super) fn running(&self) -> Option<Running> {
        self.board.running().filter(|_| self.board.watchdog_end().is_some() || !self.crashed_elsewhere())
    }

    /// Action that ran last and was not committed when the process crashed. `None`: there was none,
    /// or another thread crashed.
    pub(super) fn uncommitted(&self) -> Option<Running> {
        self.board.uncommitted().filter(|_| self.cause().1 && !self.crashed_elsewhere())
    }

    /// Says what the end means for jobs. A turn that ran is to blame for it, and no job then.
    fn job_death(&self) -> JobDeath {
        if self.handed_over() || self.running().is_some() || self.board.watchdog_end().is_some() {
            return JobDeath::OfNone;
        }
        let of_any = JobDeath::OfAny(self.phase.served_for().as_millis() as u64);
        self.board.crashed_job().map_or(of_any, JobDeath::Of)
    }

    /// Whether the process caused its end, and no turn, job or load explains it.
    fn crashed_outside(&self) -> bool {
        let turn = self.running().is_some() || self.uncommitted().is_some();
        let is_explained = turn || self.board.crashed_job().is_some() || self.board.loads().is_some();
        self.cause().1 && !is_explained
    }

    /// Whether a thread crashed that runs no turns: that of a job or of a reload.
    pub(super) fn crashed_elsewhere(&self) -> bool {
        self.board.crashed_elsewhere()
    }

    /// Whether the process was told to hand over, and did so: all of its work is committed.
    pub(super) fn handed_over(&self) -> bool {
        matches!(self.phase, Phase::HandingOver { .. }) && self.status.success()
    }
}

/// Kind of the end of a worker that another one followed.
#[derive(Debug, Clone, Copy, Default)]
enum TakeoverCause {
    /// Handover that the keeper asked for.
    #[default]
    Handover,
    /// Death by its own doing.
    Crash,
    /// Kill from outside.
    Kill,
    /// End by the watchdog.
    Stall,
}

/// Names of the causes, in their order.
const CAUSES: [&str; 4] = ["handover", "crash", "kill", "stall"];

/// Deaths and failed starts, in a row or the last one.
#[derive(Default)]
pub(super) struct Deaths {
    /// Failed starts in a row.
    failures: u32,
    /// Quick deaths in a row.
    quick: u32,
    /// Quick deaths inside a turn in a row.
    in_turns: u32,
    /// Reason why the process cannot start, in its own words. Taken once the process is reaped.
    refusal: Option<String>,
    /// Cause of the last death. `None`: none has died, or the last process has handed over.
    last: Option<String>,
    /// Some process caused its own death since a process served last.
    crashed: bool,
    /// The process that ended last crashed behind a turn that was not committed.
    behind_a_turn: bool,
    /// Meaning for jobs of the last end of a process that served.
    job_death: JobDeath,
    /// Crashes since the last commit of a build that no turn, job or load explains.
    crashes_outside: u32,
    /// Time for which the process that ended last has served.
    served: Duration,
    /// The process before the next one has handed over.
    handed_over: bool,
    /// Time of the first end of a process since one served: from then on no worker serves.
    gap_since: Option<Instant>,
    /// Cause of the last end of a process, and takeovers by it.
    cause: TakeoverCause,
    takeovers: [u64; CAUSES.len()],
    /// Times without a worker.
    gaps: Histogram,
}

impl Deaths {
    /// Failed starts in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Cause of the last death. `None`: none has died, or the last process has handed over.
    pub(super) fn last(&self) -> Option<&str> {
        self.last.as_deref()
    }

    /// Whether a process caused its own death since a process served last. The next process runs
    /// datagrams one by one then.
    pub(super) fn has_crashed(&self) -> bool {
        self.crashed
    }

    /// Whether the process that ended last crashed behind a turn, before that was committed. The
    /// next one commits each turn by itself for a while, so that a death tells which turn did it.
    pub(super) fn crashed_behind_a_turn(&self) -> bool {
        self.behind_a_turn
    }

    /// Meaning for jobs of the last end of a process that served. The next one heeds it.
    pub(super) fn job_death(&self) -> JobDeath {
        self.job_death
    }

    /// Crashes since the last commit of a build that no turn, job or load explains: threads that
    /// handlers started may do that. A build on probation gives way for them.
    pub(super) fn crashes_outside(&self) -> u32 {
        self.crashes_outside
    }

    /// Notes the commit of a build: what crashed before says nothing about it.
    pub(super) fn build_committed(&mut self) {
        self.crashes_outside = 0;
    }

    /// Whether the process that ended last has handed over.
    pub(super) fn has_handed_over(&self) -> bool {
        self.handed_over
    }

    /// Takeovers so far, by cause.
    pub(super) fn takeovers(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CAUSES.into_iter().zip(self.takeovers)
    }

    /// Times without a worker so far.
    pub(super) fn gaps(&self) -> &Histogram {
        &self.gaps
    }

    /// Notes whether a process that has ended has handed over, and the kind of its end.
    pub(super) fn note_end(&mut self, ended: &Ended) {
        self.handed_over = ended.handed_over();
        self.behind_a_turn = ended.uncommitted().is_some();
        if self.handed_over {
            self.last = None;
        }
        self.served = ended.phase.served_for();
        // A process that never served has begun no job.
        if !matches!(ended.phase, Phase::Starting { .. }) {
            self.job_death = ended.job_death();
        }
        let is_of_host = self.handed_over || self.refusal.is_some();
        self.crashes_outside += u32::from(!is_of_host && ended.crashed_outside());
        self.cause = match ended.cause() {
            _ if self.handed_over => TakeoverCause::Handover,
            _ if ended.board.watchdog_end().is_some() => TakeoverCause::Stall,
            (_, true) => TakeoverCause::Crash,
            (_, false) => TakeoverCause::Kill,
        };
    }

    /// Begins the time without a worker, unless it has begun.
    pub(super) fn begin_gap(&mut self) {
        self.gap_since.get_or_insert_with(Instant::now);
    }

    /// Time since a process served last; zero while one serves.
    pub(super) fn gap(&self) -> Duration {
        self.gap_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Notes that a process serves. Returns the time without a worker, if there was a worker
    /// before.
    pub(super) fn successor_serves(&mut self) -> Option<Duration> {
        // The process knows of the crash from its first message, so the next one need not hear of
        // the same crash.
        (self.failures, self.crashed, self.job_death) = (0, false, JobDeath::OfNone);
        let gap = self.gap_since.take()?.elapsed();
        self.takeovers[self.cause as usize] += 1;
        self.gaps.note(gap.as_nanos() as u64);
        Some(gap)
    }

    /// Notes the reason why the process cannot start.
    pub(super) fn refuses(&mut self, reason: String) {
        self.refusal = Some(reason);
    }

    /// Takes the reason why the process could not start. It becomes the cause of its death.
    pub(super) fn take_refusal(&mut self) -> Option<String> {
        let refusal = self.refusal.take()?;
        self.last = Some(refusal.clone());
        Some(refusal)
    }

    /// Notes the cause of a death, for operators. `own`: the process caused its death itself.
    pub(super) fn note(&mut self, cause: String, own: bool) {
        self.last = Some(cause);
        self.crashed |= own;
    }

    /// Counts a death. True: the next start must wait. A kill from outside never waits, except in a
    /// start.
    pub(super) fn count(&mut self, ended: &Ended, own: bool) -> bool {
        let served = ended.phase.served_for();
        if served >= QUICK_DEATH {
            (self.quick, self.in_turns) = (0, 0);
        }
        // An action is blocked after two deaths, so a death inside a turn need not wait.
        let in_a_turn = own && ended.running().is_some();
        self.in_turns += u32::from(in_a_turn);
        let quick = served < QUICK_DEATH && own;
        self.quick += u32::from(quick);
        let failed = quick || matches!(ended.phase, Phase::Starting { .. });
        failed && (!in_a_turn || self.in_turns > TURN_DEATHS_MAX)
    }

    /// Longest pause before the next start. A process that has served for a while is worth another
    /// one: clients are served at least half of the time.
    fn longest_rest(&self) -> Duration {
        match self.failures == 0 && self.served >= SERVED_MIN {
            true => self.served,
            false => REST_MAX,
        }
    }

    /// Counts a failure, and returns the pause before the next start. The first pause is zero, as a
    /// single failure may be an accident. Then pauses double: 100 ms, 200 ms, up to [`REST_MAX`].
    pub(super) fn next_rest(&mut self) -> Duration {
        let rest = match self.failures.max(self.quick.saturating_sub(1)) {
            0 => Duration::ZERO,
            n => self.longest_rest().min(REST_MIN * 2u32.saturating_pow(n.min(16))),
        };
        self.failures += 1;
        rest
    }
}
