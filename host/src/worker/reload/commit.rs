//! Commit of prepared builds, between two passes.
//!
//! The core's `Library::current` is the truth about the build that runs. A commit hands the build
//! to the core first, and writes the library's record from the same value. Both are one epoch,
//! together with ports, ledger and configuration, so no successor finds them different.
//!
//! | the worker dies | a successor finds |
//! | --- | --- |
//! | before the first commit | the builds that ran; the reload is forgotten |
//! | behind the first commit | the new builds, ports and ledger lines, without the pause |
//! | behind the second commit | all of it |
//!
//! A commit costs clients its pause: no turn runs, and nothing is read or sent meanwhile. The pause
//! covers pointers, records and the epoch, O(services + sessions in quarantine) for each library.
//! Loading, judging and binding came before; dropping of old code follows on the prepare thread.
//! A commit cannot fail. If the store has no room for a record, the build serves all the same, and
//! an error is logged.

use crate::admin::query::CanaryRequest;
use crate::clock::now_ns;
use crate::crash_points;
use crate::crash_points::Point;
use crate::memory::figures_layout::Times;
use crate::plugin::prepare::Loaded;
use crate::worker::ledger::requester;
use crate::worker::reload::build_records::{LibraryRecord, OnProbation};
use crate::worker::reload::canary;
use crate::worker::reload::carry_out::{ReloadDriver, is_configured};
use crate::worker::reload::configure::{put_in_force, report_in_force};
use crate::worker::reload::probation::Probations;
use crate::worker::reload::roll_back::{record_replaced, unproved};
use crate::worker::reload::running_build::RunningBuild;
use crate::worker::shell::Shell;
use greenroom_core::input::Input;
use greenroom_core::ledger::{CanaryReport, ProbationCounts, ProbationReport, ProbationState};
use greenroom_core::reload::request::{Event, LibraryId, Want};
use greenroom_core::service::canary_terms::CanaryTerms;
use greenroom_core::service::offer::{Build, Serving};
use std::path::PathBuf;
use std::time::Instant;

/// Circumstances under which a build takes charge.
struct Charge {
    /// The reload is a rollback to an earlier generation.
    back: bool,
    /// The build begins a probation.
    on_probation: bool,
    /// End of the probation, in nanoseconds on CLOCK_MONOTONIC; of no meaning without one.
    until_ns: u64,
}

impl ReloadDriver {
    /// Commits the groups of builds that are prepared, each in an epoch of its own. Asks for a
    /// fresh process once this one holds too much of earlier builds: loaded code is never unloaded.
    /// A reload under way is finished first.
    pub(in crate::worker) fn step(&mut self, shell: &mut Shell, probations: &mut Probations) {
        for all in std::mem::take(&mut self.commits) {
            self.commit(shell, probations, all);
        }
        self.end_held(shell);
        self.try_again(shell);
        if shell.keeper.may_recycle()
            && !shell.core.reloads.is_busy()
            && let Some(why) = shell.builds.is_full(shell.config.limits())
        {
            shell.keeper.recycle(why);
        }
    }

    /// Puts the builds of one group in charge. The pause is the time that clients could notice. A
    /// configuration that the group belongs to is part of the same epoch.
    fn commit(&mut self, shell: &mut Shell, probations: &mut Probations, all: Vec<(LibraryId, Build)>) {
        let ids: Vec<_> = all.iter().map(|(id, _)| *id).collect();
        let begun = Instant::now();
        let (mut unused_copies, mut ports_changed) = (Vec::new(), false);
        // Before the records are replaced, which name the lines of probations that end here.
        let replaced: Vec<_> = ids.iter().filter_map(|id| unproved(shell, *id)).collect();
        let configures = ids.first().is_some_and(|id| is_configured(&shell.core, *id));
        // Before the builds: their probations follow the limits of the new configuration.
        let line = if configures { put_in_force(shell) } else { 0 };
        for (id, build) in all {
            shell.builds.count_load();
            ports_changed |= self.put_in_charge(shell, id, build, &mut unused_copies);
        }
        crash_points::pass(Point::Adopted);
        // Generations, ports and ledger in one epoch: a successor finds all of it or nothing.
        shell.core.handle(Input::Commit);
        crash_points::pass(Point::ReloadCommitted);
        // Behind the commit: if the worker died before it, its successor would miss closed ports.
        if ports_changed {
            shell.ports.tell(&mut shell.keeper);
        }
        let pause = begun.elapsed();
        shell.board.took(Times::Pause, pause.as_nanos() as u64);
        let pause_us = pause.as_nanos() as f64 / 1000.0;
        shell.say_builds();
        // Only now: the last commit names the copies no more.
        shell.threads.prepare.drop_copies(unused_copies);
        record_replaced(shell, replaced);
        self.handle(shell, Event::Committed(ids, pause_us));
        if configures {
            report_in_force(shell, line, begun);
        }
        // Commits the pause, which the ledger has by now.
        shell.core.handle(Input::Commit);
        crash_points::pass(Point::Reported);
        shell.show_services();
        probations.answer_waiting(shell);
    }

    /// Makes one library's part of a commit. True: ports have changed. `unused_copies` gets the
    /// private copies to remove behind the commit.
    fn put_in_charge(
        &mut self,
        shell: &mut Shell,
        id: LibraryId,
        build: Build,
        unused_copies: &mut Vec<PathBuf>,
    ) -> bool {
        // Always there: the core orders a commit only once every library of it is loaded.
        let Some(loaded) = self.loaded.remove(&id) else { return false };
        let prepared = shell.ports.take_prepared(id).unwrap_or_default();
        let Loaded { code, copy, entry, settings, files, static_tls } = loaded;
        let current = RunningBuild { static_tls, ..RunningBuild::of(&build, copy, entry, settings, files) };
        if let Some(terms) = self.terms_of(shell, id) {
            unused_copies.extend(canary::begin(shell, id, current, code, terms));
            let canary = canary::report_of(&shell.core, &build.library);
            self.add_line(shell, id, false, canary);
            return shell.ports.change(&mut shell.core, prepared);
        }
        // Before the build takes charge, which ends a canary.
        let canary = canary::report_of(&shell.core, &build.library);
        // The core first: line and record report what it says of the new build.
        let charge = adopt(shell, id, &build, code);
        let line = self.add_line(shell, id, charge.on_probation, canary);
        let record = record_of(shell, id, current, &charge, line);
        unused_copies.extend(shell.builds.write(&mut shell.core, id, record));
        shell.ports.change(&mut shell.core, prepared)
    }

    /// Terms of the canary that a library's reload is to begin; `None`: its build takes charge.
    fn terms_of(&mut self, shell: &Shell, id: LibraryId) -> Option<CanaryTerms> {
        let request = shell.core.reloads.under_way(id).filter(|r| r.want == Want::Canary)?;
        // Always there. Without it no session may run the candidate.
        let Some(wish) = self.canaries.remove(&request.id) else { return Some(CanaryTerms::default()) };
        let CanaryRequest { share, chosen, compare_every, promote_after_ms, faults_max, .. } = wish;
        let after_ns = |ms: u64| now_ns().saturating_add(ms.saturating_mul(1_000_000));
        let promote_at_ns = promote_after_ms.map(after_ns);
        let above = shell.core.session_number();
        Some(CanaryTerms { above, share, chosen, compare_every, promote_at_ns, faults_max })
    }

    /// Adds the ledger line of a commit. Returns its number; 0: no reload of the library is under
    /// way. The line lacks the pause, which the report adds.
    fn add_line(
        &mut self,
        shell: &mut Shell,
        id: LibraryId,
        on_probation: bool,
        canary: Option<CanaryReport>,
    ) -> u64 {
        let line = match shell.core.reloads.about_to_report(id, shell.core.services()) {
            None => 0,
            Some((by, mut report)) => {
                report.probation = on_probation.then(|| ProbationReport {
                    state: ProbationState::UnderWay,
                    record: ProbationCounts::default(),
                });
                report.quarantined = shell.core.quarantined(&report.library);
                report.canary = canary;
                shell.add_line(&requester(by), report)
            }
        };
        self.lines.insert(id, line);
        line
    }
}

/// Hands a build to the core, which puts it in charge of its services. The first build of a library
/// and a rollback by request have no probation, nor has any build while `probation_ms` is 0.
fn adopt(shell: &mut Shell, id: LibraryId, build: &Build, code: Serving) -> Charge {
    let want = shell.core.reloads.under_way(id).map(|r| r.want);
    let back = matches!(want, Some(Want::RollBack(_)));
    let probation_ms = shell.config.limits().probation_ms;
    let until_ns = now_ns().saturating_add(probation_ms.saturating_mul(1_000_000));
    let on_probation = match () {
        () if back => {
            shell.core.go_back_to(build, code);
            false
        }
        () if probation_ms == 0 => {
            shell.core.adopt(build, code);
            false
        }
        () => shell.core.adopt_on_probation(build, code, until_ns),
    };
    Charge { back, on_probation, until_ns }
}

/// The record of a library whose build has just taken charge.
///
/// The build that ran becomes an earlier one. After a rollback by request it also stays as a
/// converter, as long as the core finds data of its versions.
fn record_of(
    shell: &Shell,
    id: LibraryId,
    current: RunningBuild,
    charge: &Charge,
    line: u64,
) -> LibraryRecord {
    let library = &shell.core.reloads.libraries()[id.0];
    let (seen, highest) = (library.seen.clone(), library.highest.max(current.generation));
    // The first build of the library.
    let Some(mut record) = shell.builds.get(id).cloned() else {
        return LibraryRecord::first(library.path.clone(), seen, highest, current);
    };
    let Charge { back, on_probation, until_ns } = *charge;
    let current = RunningBuild { replaced: record.replaced_by(current.generation, back), ..current };
    let converts = shell.core.converts(&current.library);
    // A build that replaces one on probation may only be rolled back to the last that passed.
    let before = record.probation.take().map_or_else(|| record.current.clone(), |p| p.before);
    record.probation = on_probation.then_some(OnProbation { before, until_ns, line });
    let newer = record.current.clone();
    record.put_in_charge(current, shell.config.limits().builds_kept);
    match converts {
        true if back => record.converters.push(newer),
        true => {}
        false => record.converters.clear(),
    }
    (record.seen, record.highest) = (seen, highest);
    record
}
