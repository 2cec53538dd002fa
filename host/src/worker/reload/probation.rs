//! End of probations, and rollbacks to the previous build.
//!
//! The core counts the turns of a build on probation and says when the probation ends. The driver
//! carries the verdict out, and answers operators that wait for it (`reload --wait`). A verdict
//! about a build that another one has replaced meanwhile is dropped.
//!
//! | verdict | way back | becomes |
//! | --- | --- | --- |
//! | passed | | The build stays, and its probation is taken from the record. |
//! | failed | none | The build stays; ledger and log say why. |
//! | failed | no ports to open | The previous build is put back in charge at once. |
//! | failed | ports to open | The same, once the keeper has answered. |
//!
//! Verdicts are handled between two passes. A rollback that waited for ports is carried out where
//! the keeper's answer is read, inside a pass; its commit then covers that pass, too.
//!
//! *Invariant*: a rollback is one epoch: pointers, record, ports, and both ledger lines. If the
//! worker dies before that, the successor finds the build still on probation, with counts that
//! begin anew. Cost: O(services + sessions in quarantine), and clients wait for it.

use crate::admin::query::Answer;
use crate::crash_points;
use crate::crash_points::Point;
use crate::memory::figures_layout::Times;
use crate::worker::reload::ports::{FailedBuild, Opening, PreparedPorts};
use crate::worker::reload::roll_back::{end_line, record_roll_back, report_roll_back};
use crate::worker::shell::Shell;
use greenroom_core::core::Core;
use greenroom_core::input::Input;
use greenroom_core::ledger::{Outcome, ProbationCounts, ProbationState, Report};
use greenroom_core::reload::request::LibraryId;
use greenroom_core::service::offer::Build;
use greenroom_core::service::probation::ProbationEnd;
use std::sync::mpsc::Sender;
use std::time::Instant;

/// The driver of probations. Nothing of it is recorded: a successor has verdicts of its own, and
/// callers of a worker that dies get no answer.
#[derive(Default)]
pub(in crate::worker) struct Probations {
    /// Probations that the core has ended in this pass, in its order.
    ended: Vec<(Build, ProbationCounts, ProbationEnd)>,
    /// Operators that wait for the end of the probation in a ledger line.
    waiting: Vec<(u64, Sender<Answer>)>,
}

impl Probations {
    /// Notes a probation that the core has ended. Comes with the core's commands, behind a commit.
    pub(in crate::worker) fn note_end(&mut self, build: Build, counts: ProbationCounts, end: ProbationEnd) {
        self.ended.push((build, counts, end));
    }

    /// Handles the probations that have ended: a build that passed stays, a build that failed is
    /// rolled back.
    pub(in crate::worker) fn step(&mut self, shell: &mut Shell) {
        for (build, record, end) in std::mem::take(&mut self.ended) {
            self.end(shell, build, record, end);
        }
    }

    /// Handles the end of one probation. Drops a verdict about a build that no longer runs.
    fn end(&mut self, shell: &mut Shell, build: Build, record: ProbationCounts, end: ProbationEnd) {
        let Some(id) = shell.core.reloads.named(&build.library) else { return };
        if !runs(&shell.core, id, &build) {
            return;
        }
        match end {
            ProbationEnd::Passed => {
                tracing::info!(
                    "{}: generation {} has passed its probation: {} turns, {} failed",
                    build.library,
                    build.generation,
                    record.turns,
                    record.faults
                );
                self.keep_build(shell, id, ProbationState::Passed, record, String::new());
            }
            ProbationEnd::Failed(why) => {
                self.begin_roll_back(shell, FailedBuild { id, build, record, why });
            }
        }
    }

    /// Rolls a build back, or has the keeper open the previous build's ports first. If there is no
    /// way back, the build stays, and ledger and log say why.
    ///
    /// No way back: the previous build cannot read what the failed one has written, or wants an
    /// address that another service has.
    fn begin_roll_back(&mut self, shell: &mut Shell, failed: FailedBuild) {
        if shell.core.reloads.is_committing(failed.id) || shell.lifecycle.is_stopping() {
            // Another build takes charge in a moment, or no build will any more.
            return;
        }
        let library = failed.build.library.clone();
        let changes = shell.core.can_roll_back(&library).and_then(|offers| {
            let config = shell.config.get();
            shell.ports.changes_for(&shell.core, &[(failed.id, offers)], config)
        });
        match changes {
            Err(why) => self.stay(shell, failed, &why),
            Ok(prepared) if prepared.need_opening() => {
                shell.ports.open(Opening::RollBack(failed), prepared, &mut shell.keeper);
            }
            Ok(prepared) => self.roll_back(shell, failed, prepared),
        }
    }

    /// Puts the previous build back in charge, in one commit. The pause is the time that clients
    /// could notice. A second commit adds it to the ledger, because it is known only then.
    ///
    /// If the failed build no longer runs, nothing changes. If the way back is gone, the build
    /// stays. In both cases opened ports are closed again.
    pub(in crate::worker) fn roll_back(
        &mut self,
        shell: &mut Shell,
        failed: FailedBuild,
        prepared: PreparedPorts,
    ) {
        let library = &failed.build.library;
        // Another build may have taken charge meanwhile, or the way back may be gone.
        if !runs(&shell.core, failed.id, &failed.build) {
            return shell.ports.discard(&prepared, &mut shell.keeper);
        }
        if let Err(why) = shell.core.can_roll_back(library) {
            shell.ports.discard(&prepared, &mut shell.keeper);
            return self.stay(shell, failed, &why);
        }
        // A reload under way was prepared for the build that goes: its judgement and its rehearsal
        // are about that build's data.
        shell
            .core
            .reloads
            .cancel(failed.id, "the build that it was to replace was rolled back meanwhile; try again");
        let begun = Instant::now();
        let Some(build) = shell.core.roll_back(library) else { return };
        let committed_at = record_roll_back(shell, failed.id, &build);
        let ports_changed = shell.ports.change(&mut shell.core, prepared);
        let line = report_roll_back(shell, &failed, committed_at);
        crash_points::pass(Point::RolledBack);
        // Generation, converters, ports and ledger in one epoch, as in a reload's commit.
        shell.core.handle(Input::Commit);
        crash_points::pass(Point::RollBackCommitted);
        if ports_changed {
            shell.ports.tell(&mut shell.keeper);
        }
        let pause = begun.elapsed();
        shell.board.took(Times::Pause, pause.as_nanos() as u64);
        let pause_us = pause.as_nanos() as f64 / 1000.0;
        shell.ledger.amend(&mut shell.core, line, |report| report.pause_us = pause_us);
        shell.core.handle(Input::Commit);
        shell.show_services();
        self.answer_waiting(shell);
    }

    /// Lets a build that failed stay, as no rollback is possible. Ledger and log say why.
    fn stay(&mut self, shell: &mut Shell, failed: FailedBuild, why: &str) {
        let library = &failed.build.library;
        tracing::error!(
            "{library}: generation {} fails and stays, because no rollback is possible: {}; {why}",
            failed.build.generation,
            failed.why
        );
        // Else the standby build would stay loaded, and the sweep would not begin.
        shell.core.end_probation(library);
        let why = format!("{}; {why}", failed.why);
        self.keep_build(shell, failed.id, ProbationState::Failed, failed.record, why);
    }

    /// Ends a probation whose build stays: passed, or failed without a way back. Commits record and
    /// ledger together. The copy of the previous build is removed later if no record needs it.
    fn keep_build(
        &mut self,
        shell: &mut Shell,
        id: LibraryId,
        state: ProbationState,
        record: ProbationCounts,
        why: String,
    ) {
        let Some(mut known) = shell.builds.get(id).cloned() else { return };
        let line = known.probation.take().map_or(0, |p| p.line);
        let library = known.current.library.clone();
        shell.builds.update(&mut shell.core, id, known);
        end_line(shell, line, &library, state, record, why);
        shell.core.handle(Input::Commit);
        self.answer_waiting(shell);
    }

    /// Answers an operator once the probation in a ledger line has ended: at once, if no probation
    /// of that line is under way. A line that the ledger does not have is answered with an error.
    pub(in crate::worker) fn wait_for(&mut self, shell: &Shell, line: u64, reply: Sender<Answer>) {
        self.waiting.push((line, reply));
        self.answer_waiting(shell);
    }

    /// Answers the operators whose probations have ended. The others go on waiting, in their order.
    /// Follows every commit that may end a probation. O(operators that wait).
    pub(in crate::worker) fn answer_waiting(&mut self, shell: &Shell) {
        for (line, reply) in std::mem::take(&mut self.waiting) {
            match answer(shell, line) {
                Some(answer) => {
                    // The caller may be gone.
                    let _ = reply.send(answer);
                }
                None => self.waiting.push((line, reply)),
            }
        }
    }
}

/// Returns whether the core says that this build runs: library, generation and hash.
fn runs(core: &Core, id: LibraryId, build: &Build) -> bool {
    core.reloads.libraries()[id.0].current.as_ref() == Some(build)
}

/// The answer about the probation in a ledger line; `None`: it is under way.
fn answer(shell: &Shell, line: u64) -> Option<Answer> {
    let Some(report) = shell.ledger.line(&shell.core, line) else {
        return Some(Answer::Error(format!("the ledger has no line {line}")));
    };
    let state = match report.probation.as_ref().map(|p| p.state) {
        Some(ProbationState::UnderWay) if shell.builds.is_on_probation(line) => return None,
        // The worker died before it could mark this line as replaced.
        Some(ProbationState::UnderWay) => Some(ProbationState::Replaced),
        state => state,
    };
    Some(Answer::Report(Box::new(after_probation(&shell.core, report, state))))
}

/// A commit's report after the probation: with the build that runs now, and an outcome that says
/// whether the committed build is still that one.
fn after_probation(core: &Core, report: Report, state: Option<ProbationState>) -> Report {
    let id = core.reloads.named(&report.library);
    let current = id.and_then(|id| core.reloads.libraries()[id.0].current.as_ref());
    let (generation, build) = match current {
        Some(current) => (current.generation, current.hash.clone()),
        None => (report.generation, report.build.clone()),
    };
    let outcome = match state {
        Some(ProbationState::RolledBack) => Outcome::RolledBack,
        Some(ProbationState::Replaced) => Outcome::Replaced,
        _ => report.outcome,
    };
    let build_id = report.build_id.filter(|_| build == report.build);
    Report { outcome, generation, build, build_id, ..report }
}
