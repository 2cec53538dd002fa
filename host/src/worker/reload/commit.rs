//! Commits prepared builds between two passes.
//!
//! The core's `Library::current` is the truth about the build that runs. A commit hands the build
//! to the core first, and writes the library's record from the same value. Both are one epoch,
//! together with ports, ledger and configuration, so no successor finds them different.
//!
//! A commit costs clients its pause: no turn runs, and nothing is read or sent meanwhile.

use crate::clock::now_ns;
use crate::crash_points;
use crate::crash_points::Point;
use crate::plugin::prepare::Loaded;
use crate::worker::ledger::requester;
use crate::worker::reload::build_records::{LibraryRecord, OnProbation, RunningBuild};
use crate::worker::reload::carry_out::{ReloadDriver, is_configured};
use crate::worker::reload::configure::{put_in_force, report_in_force};
use crate::worker::reload::probation::Probations;
use crate::worker::reload::roll_back::{record_replaced, unproved};
use crate::worker::shell::Shell;
use greenroom_core::input::Input;
use greenroom_core::ledger::{ProbationCounts, ProbationReport, ProbationState};
use greenroom_core::reload::request::{Event, LibraryId, Want};
use greenroom_core::service::offer::{Build, Serving};
use std::path::PathBuf;
use std::time::Instant;

/// Circumstances under which a build takes charge.
struct Charge {
    /// The reload is a rollback to an earlier generation.
    back: bool,
    /// The build begins a probation.
    on_probation: bool,
    /// End of the probation, in nanoseconds on CLOCK_MONOTONIC.
    until_ns: u64,
}

impl ReloadDriver {
    /// Commits the groups of builds that are prepared. Asks for a fresh process once this one has
    /// loaded too many builds.
    pub(in crate::worker) fn step(&mut self, shell: &mut Shell, probations: &mut Probations) {
        for all in std::mem::take(&mut self.commits) {
            self.commit(shell, probations, all);
        }
        let loaded = shell.builds.loaded();
        let many = loaded >= shell.config.limits().builds_max;
        if many && shell.keeper.may_recycle() && !shell.core.reloads.is_busy() {
            shell.keeper.recycle(format!("it has loaded {loaded} builds (limit builds_max)"));
        }
    }

    /// Puts the builds of one group in charge. The pause is the time that clients could notice.
    fn commit(&mut self, shell: &mut Shell, probations: &mut Probations, all: Vec<(LibraryId, Build)>) {
        let ids: Vec<_> = all.iter().map(|(id, _)| *id).collect();
        let begun = Instant::now();
        let (mut unused_copies, mut ports_changed) = (Vec::new(), false);
        let replaced: Vec<_> = ids.iter().filter_map(|id| unproved(shell, *id)).collect();
        let configures = ids.first().is_some_and(|id| is_configured(&shell.core, *id));
        let line = if configures { put_in_force(shell) } else { 0 };
        for (id, build) in all {
            shell.builds.count_load();
            ports_changed |= self.put_in_charge(shell, id, build, &mut unused_copies);
        }
        crash_points::pass(Point::Adopted);
        // Generations, ports and ledger in one epoch: a successor finds all of it or nothing.
        shell.core.handle(Input::Commit);
        crash_points::pass(Point::ReloadCommitted);
        if ports_changed {
            shell.ports.tell(&mut shell.keeper);
        }
        let pause_us = begun.elapsed().as_nanos() as f64 / 1000.0;
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

    /// Makes one library's part of a commit. True: ports have changed.
    fn put_in_charge(
        &mut self,
        shell: &mut Shell,
        id: LibraryId,
        build: Build,
        unused_copies: &mut Vec<PathBuf>,
    ) -> bool {
        let Some(loaded) = self.loaded.remove(&id) else { return false };
        let prepared = shell.ports.take_prepared(id).unwrap_or_default();
        let Loaded { code, copy, entry, settings } = loaded;
        let charge = adopt(shell, id, &build, code);
        let line = self.add_line(shell, id, charge.on_probation);
        let current = RunningBuild::of(&build, copy, entry, settings);
        let record = record_of(shell, id, current, &charge, line);
        unused_copies.extend(shell.builds.write(&mut shell.core, id, record));
        shell.ports.change(&mut shell.core, prepared)
    }

    /// Adds the ledger line of a commit. Returns its number; 0: another line of the commit says it.
    fn add_line(&mut self, shell: &mut Shell, id: LibraryId, on_probation: bool) -> u64 {
        let line = match shell.core.reloads.about_to_report(id, shell.core.services()) {
            None => 0,
            Some((by, mut report)) => {
                report.probation = on_probation.then(|| ProbationReport {
                    state: ProbationState::UnderWay,
                    record: ProbationCounts::default(),
                });
                report.quarantined = shell.core.quarantined(&report.library);
                shell.ledger.add(&mut shell.core, &requester(by), report)
            }
        };
        self.lines.insert(id, line);
        line
    }
}

/// Hands a build to the core, which puts it in charge of its services.
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
    let Some(mut record) = shell.builds.get(id).cloned() else {
        return LibraryRecord::first(library.path.clone(), seen, highest, current);
    };
    let Charge { back, on_probation, until_ns } = *charge;
    let converts = shell.core.converts(&current.library);
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
