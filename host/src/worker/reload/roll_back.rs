//! Records and reports of a rollback: the previous build is back in charge.
//!
//! A rollback happens when a build fails its probation, or in a takeover, when a build has killed
//! workers. The core rolls back first; its answer names the build to record. The caller commits.
//!
//! *Invariant*: record, ledger and pointers count from the same epoch, so a successor finds the
//! rollback whole, or the failed build still on probation.
//!
//! The build that failed leaves its line in the ledger with the outcome of its probation. The
//! rollback gets a line of its own. A build that another one replaces during its probation is no
//! rollback; only its line is amended.
//!
//! Nothing here fails. If the store has no room, the log says so, and the build serves all the
//! same.

use crate::admin::text::ledger_line;
use crate::worker::reload::build_records::OnProbation;
use crate::worker::reload::ports::FailedBuild;
use crate::worker::shell::Shell;
use greenroom_core::ledger::{ProbationCounts, ProbationReport, ProbationState};
use greenroom_core::reload::request::LibraryId;
use greenroom_core::service::offer::Build;

/// Writes the record of a library whose previous build the core has put back in charge. Returns the
/// ledger line of the failed build's commit; 0: none.
///
/// The record must hold the probation, because it names the previous build's file. If the core
/// still finds data of the failed build, that build stays as a converter, with its private copy.
pub(in crate::worker) fn record_roll_back(shell: &mut Shell, id: LibraryId, build: &Build) -> u64 {
    let library = &shell.core.reloads.libraries()[id.0];
    let (seen, highest) = (library.seen.clone(), library.highest);
    // The state machine first: reloads that follow are numbered and compared with this build.
    shell.core.reloads.goes_on_with(id, build.clone(), seen.clone(), highest);
    let Some(mut record) = shell.builds.get(id).cloned() else { return 0 };
    let Some(OnProbation { before, line, .. }) = record.probation.take() else { return 0 };
    // Else a successor would load another build than the one that serves.
    debug_assert_eq!(before.build(), *build, "the record's previous build is the core's");
    let newer = record.current.clone();
    record.put_in_charge(before, shell.config.limits().builds_kept);
    if shell.core.converts(&build.library) {
        record.converters.push(newer);
    }
    // The watcher must not load the failed build's file again.
    record.seen = seen;
    shell.builds.update(&mut shell.core, id, record);
    line
}

/// Writes a rollback to the ledger: amends the line of the failed build's commit, and adds one for
/// the build that serves now. Returns the second line's number, which lacks the pause.
///
/// Both lines count from the next commit. The requester of the second one is the host.
pub(in crate::worker) fn report_roll_back(shell: &mut Shell, failed: &FailedBuild, committed_at: u64) -> u64 {
    let FailedBuild { id, build, record, why } = failed;
    let why = format!("generation {} is rolled back: {why}", build.generation);
    end_line(shell, committed_at, &build.library, ProbationState::RolledBack, *record, why.clone());
    let library = &shell.core.reloads.libraries()[id.0];
    // The file may still hold the build: `status` tells why it does not run.
    shell.keeper.say_refused(library.path.clone(), build.hash.clone(), &why);
    let mut report = library.rolled_back(why, shell.core.services());
    report.quarantined = shell.core.quarantined(&report.library);
    tracing::error!("{}", ledger_line(&report));
    shell.add_line("host", report)
}

/// Writes the end of a build's probation to the line of its commit. A line that the ledger no
/// longer has is ignored. `why`: reason of a failure; empty if the build has passed.
pub(super) fn end_line(
    shell: &mut Shell,
    line: u64,
    library: &str,
    state: ProbationState,
    record: ProbationCounts,
    why: String,
) {
    let quarantined = shell.core.quarantined(library);
    shell.ledger.amend(&mut shell.core, line, |report| {
        report.probation = Some(ProbationReport { state, record });
        report.reason = why;
        report.quarantined = quarantined;
    });
}

/// Ledger line and counts of a build that another one is about to replace during its probation;
/// `None`: the build has no probation. Must come before the commit, which ends the probation.
pub(super) fn unproved(shell: &Shell, id: LibraryId) -> Option<(u64, ProbationCounts)> {
    let known = shell.builds.get(id)?;
    let record = shell.core.probation(&known.current.library).map(|p| p.record).unwrap_or_default();
    Some((known.probation.as_ref()?.line, record))
}

/// Writes to the ledger that other builds have replaced these during their probation. Counts from
/// the next commit. If the worker dies before it, the line still says that the probation is under
/// way. A later query is told that the build was replaced.
pub(super) fn record_replaced(shell: &mut Shell, unproved: Vec<(u64, ProbationCounts)>) {
    for (line, record) in unproved {
        shell.ledger.amend(&mut shell.core, line, |report| {
            report.probation = Some(ProbationReport { state: ProbationState::Replaced, record });
        });
    }
}
