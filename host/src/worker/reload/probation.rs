//! How builds on probation end: proved, or rolled back by the host itself; and who waits to be told.

use crate::admin::query::Answer;
use crate::crash_points;
use crate::crash_points::Point;
use crate::plugin::prepare::Job;
use crate::protocol::keeper::ToKeeper;
use crate::worker::reload::carry_out::{Failed, Opening, Prepared};
use crate::worker::{OnProbation, Worker};
use greenroom_core::input::Input;
use greenroom_core::ledger::ProbationCounts;
use greenroom_core::ledger::{Outcome, ProbationReport, ProbationState, Report};
use greenroom_core::reload::request::LibraryId;
use greenroom_core::service::offer::Build;
use greenroom_core::service::probation::ProbationEnd;
use std::sync::mpsc::Sender;
use std::time::Instant;

impl Worker {
    /// The core says how a probation ended. Between two passes.
    pub(in crate::worker) fn proved(&mut self, build: Build, record: ProbationCounts, proof: ProbationEnd) {
        let Some(id) = self.core.reloads.named(&build.library) else { return };
        if self.core.reloads.libraries()[id.0].current.as_ref() != Some(&build) {
            return;
        }
        match proof {
            ProbationEnd::Passed => {
                tracing::info!(
                    "{}: generation {} has proved itself: {} turns, {} failed",
                    build.library,
                    build.generation,
                    record.turns,
                    record.faults
                );
                self.settle(id, ProbationState::Passed, record, String::new());
            }
            ProbationEnd::Failed(why) => self.begin_roll_back(Failed { id, build, record, why }),
        }
    }

    fn begin_roll_back(&mut self, failed: Failed) {
        if self.core.reloads.is_committing(failed.id) || self.stop_at.is_some() {
            // Another build takes its place in a moment, or none will.
            return;
        }
        let library = failed.build.library.clone();
        let changes = self
            .core
            .can_roll_back(&library)
            .and_then(|o| self.port_changes(&[(failed.id, o)], &self.config));
        match changes {
            Err(why) => {
                tracing::error!(
                    "{library}: generation {} fails and stays, as there is no way back: {}; {why}",
                    failed.build.generation,
                    failed.why
                );
                self.core.end_probation(&library);
                self.settle(
                    failed.id,
                    ProbationState::Failed,
                    failed.record,
                    format!("{}; {why}", failed.why),
                );
            }
            Ok(changes) => {
                let prepared = Prepared::of(changes);
                if prepared.open.is_empty() {
                    return self.roll_back(&failed, prepared);
                }
                self.link.send(&ToKeeper::Open(prepared.open.clone()));
                self.opening.push_back((Opening::RollBack(failed), prepared));
            }
        }
    }

    /// Puts the build before back in charge.
    pub(in crate::worker) fn roll_back(&mut self, failed: &Failed, prepared: Prepared) {
        let library = &failed.build.library;
        let current = self.core.reloads.libraries()[failed.id.0].current.clone();
        // Another one may have taken its place meanwhile, or the way back may be gone.
        if current.as_ref() != Some(&failed.build) || self.core.can_roll_back(library).is_err() {
            return self.discard_ports(&prepared);
        }
        // It has prepared to take another build's place.
        self.core
            .reloads
            .doom(failed.id, "the build that it was to replace was rolled back meanwhile; try again");
        let begun = Instant::now();
        let Some(build) = self.core.roll_back(library) else { return };
        let committed_at = self.rolled_back(failed.id, &build);
        let ports_changed = self.change_ports(prepared);
        let line = self.tell_of_roll_back(failed, committed_at);
        crash_points::pass(Point::RolledBack);
        // Generation, converters, ports and ledger in one epoch, as in a reload's commit.
        self.core.handle(Input::Commit);
        crash_points::pass(Point::RollBackCommitted);
        if ports_changed {
            self.link.send(&ToKeeper::Ports(self.ports.clone()));
        }
        let pause_us = begun.elapsed().as_nanos() as f64 / 1000.0;
        self.amend_ledger(line, |report| report.pause_us = pause_us);
        self.core.handle(Input::Commit);
        self.board.say(&self.services());
        self.answer_waiting();
    }

    /// The records follow the core, which has put the build before in charge. Returns the line of the ledger that tells of the
    /// commit of the one that failed; 0: none.
    pub(in crate::worker) fn rolled_back(&mut self, id: LibraryId, build: &Build) -> u64 {
        let library = &self.core.reloads.libraries()[id.0];
        let (seen, highest) = (library.seen.clone(), library.highest);
        self.core.reloads.goes_on_with(id, build.clone(), seen.clone(), highest);
        let Some(mut record) = self.records.get(&id.0).cloned() else { return 0 };
        let Some(OnProbation { before, line, .. }) = record.probation.take() else { return 0 };
        let newer = record.current.clone();
        record.put_in_charge(before, self.config.limits.builds_kept);
        if self.core.converts(&build.library) {
            record.converters.push(newer);
        }
        record.seen = seen;
        let superfluous = self.write_record(id, record);
        self.superfluous.extend(superfluous);
        line
    }

    /// The ledger: the build that failed, whose commit is in line `committed_at`, and what serves now. Returns the second's line.
    pub(in crate::worker) fn tell_of_roll_back(&mut self, failed: &Failed, committed_at: u64) -> u64 {
        let Failed { id, build, record, why } = failed;
        let why = format!("generation {} is rolled back: {why}", build.generation);
        self.settle_line(committed_at, &build.library, ProbationState::RolledBack, *record, why.clone());
        let library = &self.core.reloads.libraries()[id.0];
        let mut report = library.rolled_back(why, self.core.services());
        report.quarantined = self.quarantined(&report.library);
        tracing::error!("{}", crate::admin::text::ledger_line(&report));
        self.note_in_ledger("host", report)
    }

    /// A probation is over, and the build stays.
    fn settle(&mut self, id: LibraryId, state: ProbationState, record: ProbationCounts, why: String) {
        let Some(mut known) = self.records.get(&id.0).cloned() else { return };
        let line = known.probation.take().map_or(0, |p| p.line);
        let library = known.current.library.clone();
        let superfluous = self.write_record(id, known);
        self.superfluous.extend(superfluous);
        self.settle_line(line, &library, state, record, why);
        self.core.handle(Input::Commit);
        self.answer_waiting();
    }

    /// The line and the record of a build that is about to be replaced before it has proved itself.
    pub(in crate::worker) fn unproved(&self, id: LibraryId) -> Option<(u64, ProbationCounts)> {
        let known = self.records.get(&id.0)?;
        let record = self.core.probation(&known.current.library).map(|p| p.record).unwrap_or_default();
        Some((known.probation.as_ref()?.line, record))
    }

    /// The ledger follows: other builds have taken the place of these.
    pub(in crate::worker) fn replaced(&mut self, unproved: Vec<(u64, ProbationCounts)>) {
        for (line, record) in unproved {
            self.amend_ledger(line, |report| {
                report.probation = Some(ProbationReport { state: ProbationState::Replaced, record });
            });
        }
    }

    /// Writes how a build's probation ended into the line that told of its commit.
    fn settle_line(
        &mut self,
        line: u64,
        library: &str,
        state: ProbationState,
        record: ProbationCounts,
        why: String,
    ) {
        let quarantined = self.quarantined(library);
        self.amend_ledger(line, |report| {
            report.probation = Some(ProbationReport { state, record });
            report.reason = why;
            report.quarantined = quarantined;
        });
    }

    pub(in crate::worker) fn await_line(&mut self, line: u64, reply: Sender<Answer>) {
        self.awaiting.push((line, reply));
        self.answer_waiting();
    }

    /// Tells those who wait how the probations ended that are over.
    pub(in crate::worker) fn answer_waiting(&mut self) {
        for (line, reply) in std::mem::take(&mut self.awaiting) {
            let answer = match self.ledger_line(line) {
                None => Answer::Error(format!("the ledger has no line {line}")),
                Some(report) => match report.probation.as_ref().map(|p| p.state) {
                    Some(ProbationState::UnderWay) if self.is_on_probation(line) => {
                        self.awaiting.push((line, reply));
                        continue;
                    }
                    // Nobody was left to write down that another build took its place.
                    Some(ProbationState::UnderWay) => {
                        Answer::Report(Box::new(self.as_it_is(report, Some(ProbationState::Replaced))))
                    }
                    state => Answer::Report(Box::new(self.as_it_is(report, state))),
                },
            };
            let _ = reply.send(answer);
        }
    }

    fn is_on_probation(&self, line: u64) -> bool {
        self.records.values().any(|r| r.probation.as_ref().is_some_and(|p| p.line == line))
    }

    /// A commit's report as it is to be told after its probation.
    fn as_it_is(&self, report: Report, state: Option<ProbationState>) -> Report {
        let id = self.core.reloads.named(&report.library);
        let current = id.and_then(|id| self.core.reloads.libraries()[id.0].current.as_ref());
        let generation = current.map_or(report.generation, |b| b.generation);
        let outcome = match state {
            Some(ProbationState::RolledBack) => Outcome::RolledBack,
            Some(ProbationState::Replaced) => Outcome::Replaced,
            _ => report.outcome,
        };
        Report { outcome, generation, ..report }
    }

    /// Sessions of a library that wait in quarantine.
    pub(in crate::worker) fn quarantined(&self, library: &str) -> usize {
        self.core.quarantined(library)
    }

    /// Drops builds that nobody needs any more.
    pub(in crate::worker) fn drop_retired(&mut self) {
        // All that was recorded in this pass is committed by now.
        let superfluous = std::mem::take(&mut self.superfluous);
        self.drop_copies(superfluous);
        if let Some(retired) = self.core.take_retired() {
            self.job(Job::Drop(retired, Vec::new()));
            self.converters_are_done();
        }
    }

    pub(in crate::worker) fn drop_copies(&mut self, copies: Vec<std::path::PathBuf>) {
        if !copies.is_empty() {
            self.job(Job::Drop(Box::new(()), copies));
        }
    }
}
