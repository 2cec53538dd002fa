//! Canaries: their commit, their end, and what operators see of them.
//!
//! A canary begins like a reload: its candidate is staged, tried with all live data, judged and
//! loaded. Its commit puts it beside the build that serves. A promotion is a reload of the
//! candidate's private copy under the candidate's number, with every step of a reload, because data
//! has changed since. Taking back replaces pointers, between two passes.
//!
//! | event | record of the library | ledger |
//! | --- | --- | --- |
//! | begun | the candidate is among the converters, and named with its terms | a line |
//! | promoted | the candidate is the build that runs | the line of its commit, with counts |
//! | taken back | the candidate converts what it left, as after a rollback | a line with counts |
//!
//! *Invariant*: a candidate is a converter in its library's record. A host of an earlier version,
//! which knows no canaries, takes it back by that.

use crate::admin::query::Answer;
use crate::admin::text::ledger_line;
use crate::crash_points;
use crate::crash_points::Point;
use crate::worker::ledger::requester;
use crate::worker::reload::build_records::RecordedCanary;
use crate::worker::reload::canary_list::no_canary;
use crate::worker::reload::carry_out::{ReloadDriver, part_of};
use crate::worker::reload::requests::library_for;
use crate::worker::reload::running_build::RunningBuild;
use crate::worker::shell::Shell;
use greenroom_core::core::Core;
use greenroom_core::input::Input;
use greenroom_core::ledger::{CanaryReport, Outcome, Report};
use greenroom_core::reload::request::{LibraryId, Requester};
use greenroom_core::service::canaries::CanaryVerdict;
use greenroom_core::service::canary_counts::BothCounts;
use greenroom_core::service::canary_terms::CanaryTerms;
use greenroom_core::service::offer::{Build, Serving};
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::time::Instant;

/// The driver of canaries. Nothing of it is recorded: a rule orders again what a worker that died
/// did not carry out, and callers get no answer.
#[derive(Default)]
pub(in crate::worker) struct CanaryDriver {
    /// Orders of the core, in the order in which it gave them.
    due: Vec<(Build, CanaryVerdict)>,
    /// Operators that want canaries taken back: name, requester, destination of the report.
    take_back: Vec<(String, Requester, Sender<Answer>)>,
}

impl CanaryDriver {
    /// Notes an order of the core. Comes with its commands, behind a commit.
    pub(in crate::worker) fn note_due(&mut self, build: Build, verdict: CanaryVerdict) {
        self.due.push((build, verdict));
    }

    /// Queues an operator's wish to take a canary back. The answer is a report.
    pub(in crate::worker) fn ask_take_back(&mut self, name: String, by: Requester, reply: Sender<Answer>) {
        self.take_back.push((name, by, reply));
    }

    /// Carries out what rules and operators have ordered. Runs between two passes.
    pub(in crate::worker) fn step(&mut self, shell: &mut Shell, reload: &mut ReloadDriver) {
        for (build, verdict) in std::mem::take(&mut self.due) {
            // Another canary may run by now, or none.
            if shell.core.canary(&build.library).is_none_or(|(candidate, ..)| *candidate != build) {
                continue;
            }
            match verdict {
                CanaryVerdict::Promote => {
                    reload.ask_promote(shell, &build.library, Requester::Rule, None);
                }
                CanaryVerdict::TakeBack(why) => {
                    // A promotion that is being committed comes first: its probation follows.
                    let _ = take_back(shell, &build.library, Requester::Rule, why);
                }
            }
        }
        for (name, by, reply) in std::mem::take(&mut self.take_back) {
            let _ = match take_back(shell, &name, by, "by request".into()) {
                Ok(report) => {
                    let _ = reply.send(Answer::Reloading(1));
                    reply.send(Answer::Report(Box::new(report)))
                }
                Err(why) => reply.send(Answer::Error(why)),
            };
        }
    }
}

/// Takes a canary back, in one commit, and reports it. A second commit adds the pause. An error
/// says why there is nothing to take back.
fn take_back(shell: &mut Shell, name: &str, by: Requester, why: String) -> Result<Report, String> {
    let id = library_for(&shell.core, name)?;
    let library = shell.core.reloads.libraries()[id.0].name();
    let Some((candidate, ..)) = shell.core.canary(&library) else { return Err(no_canary(&shell.core, name)) };
    let generation = candidate.generation;
    if shell.core.reloads.is_committing(id) {
        return Err(format!("a reload of {library} is being committed; try again"));
    }
    shell.core.reloads.cancel(id, &format!("generation {generation} was taken back meanwhile"));
    let begun = Instant::now();
    let mut report = end_with_line(shell, id, &library, by, why)?;
    crash_points::pass(Point::RolledBack);
    shell.core.handle(Input::Commit);
    crash_points::pass(Point::RollBackCommitted);
    report.pause_us = begun.elapsed().as_nanos() as f64 / 1000.0;
    let pause_us = report.pause_us;
    shell.ledger.amend(&mut shell.core, report.line, |r| r.pause_us = pause_us);
    shell.core.handle(Input::Commit);
    shell.show_services();
    Ok(report)
}

/// Has the core take a canary back, writes the library's record, and adds a ledger line. All of it
/// counts from the caller's commit.
pub(in crate::worker) fn end_with_line(
    shell: &mut Shell,
    id: LibraryId,
    library: &str,
    by: Requester,
    why: String,
) -> Result<Report, String> {
    let terms = shell.core.canary(library).map(|(_, terms, _)| terms.clone()).unwrap_or_default();
    let taken = shell.core.canaries().take_back(library);
    let (candidate, counts) = taken.ok_or_else(|| no_canary(&shell.core, library))?;
    if let Some(mut record) = shell.builds.get(id).cloned() {
        record.canary = None;
        if !shell.core.converts(library) {
            record.converters.clear();
        }
        shell.builds.update(&mut shell.core, id, record);
    }
    let why = format!("generation {} is taken back: {why}", candidate.generation);
    let serves = &shell.core.reloads.libraries()[id.0];
    let mut report = serves.rolled_back(why, shell.core.services());
    report.outcome = Outcome::TakenBack;
    report.canary = Some(reported(candidate.generation, &terms, &counts));
    report.quarantined = shell.core.quarantined(library);
    let by = requester(by);
    tracing::warn!(%by, "{}", ledger_line(&report));
    // The canary was in the way of the file, which may have failed for that.
    let part = part_of(&shell.core.reloads.libraries()[id.0].path);
    shell.keeper.say_failing(&part, None);
    report.line = shell.add_uncounted_line(&by, report.clone());
    Ok(report)
}

/// Puts a candidate beside the build that serves, and records it: the commit of a canary, but for
/// the epoch. Returns the private copies that the record needs no more.
pub(super) fn begin(
    shell: &mut Shell,
    id: LibraryId,
    candidate: RunningBuild,
    code: Serving,
    terms: CanaryTerms,
) -> Vec<PathBuf> {
    shell.core.canaries().begin(&candidate.build(), code, terms.clone());
    // Always there: the judgement wants a build that serves.
    let Some(mut record) = shell.builds.get(id).cloned() else { return Vec::new() };
    let library = &shell.core.reloads.libraries()[id.0];
    (record.seen, record.trying) = (library.seen.clone(), None);
    record.highest = library.highest.max(candidate.generation);
    record.canary = Some(RecordedCanary { generation: candidate.generation, terms });
    let library = candidate.library.clone();
    record.converters.push(candidate);
    let unused = shell.builds.write(&mut shell.core, id, record);
    // A successor that knew of no canary would have nothing that reads the states of its sessions.
    if !shell.builds.is_recorded(&shell.core, id) {
        tracing::error!("{library}: the canary ends at once, as it cannot be recorded");
        shell.core.canaries().take_back(&library);
    }
    unused
}

/// The canary of a library for a report; `None`: there is none.
pub(super) fn report_of(core: &Core, library: &str) -> Option<CanaryReport> {
    let (candidate, terms, counts) = core.canary(library)?;
    Some(reported(candidate.generation, terms, &counts))
}

/// A canary for a report.
pub(super) fn reported(generation: u64, terms: &CanaryTerms, counts: &BothCounts) -> CanaryReport {
    CanaryReport {
        generation,
        share: terms.share,
        chosen: terms.chosen.len(),
        sessions: counts.sessions,
        turns: counts.candidate.turns,
        faults: counts.candidate.own_faults(),
        compared: counts.compared.batches,
        differing: counts.compared.differing,
    }
}
