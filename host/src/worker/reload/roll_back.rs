//! Records and reports that the previous build is back in charge.
//!
//! A rollback happens between two passes, when a build fails its probation, or in a takeover, when
//! a build has killed workers. The core rolls back first; its answer names the build to record. The
//! caller commits.

use crate::admin::text::ledger_line;
use crate::worker::reload::build_records::OnProbation;
use crate::worker::reload::ports::FailedBuild;
use crate::worker::shell::Shell;
use greenroom_core::ledger::{ProbationCounts, ProbationReport, ProbationState};
use greenroom_core::reload::request::LibraryId;
use greenroom_core::service::offer::Build;

/// Writes the record of a library whose previous build the core has put back in charge. Returns the
/// ledger line of the failed build's commit; 0: none.
pub(in crate::worker) fn record_roll_back(shell: &mut Shell, id: LibraryId, build: &Build) -> u64 {
    let library = &shell.core.reloads.libraries()[id.0];
    let (seen, highest) = (library.seen.clone(), library.highest);
    shell.core.reloads.goes_on_with(id, build.clone(), seen.clone(), highest);
    let Some(mut record) = shell.builds.get(id).cloned() else { return 0 };
    let Some(OnProbation { before, line, .. }) = record.probation.take() else { return 0 };
    debug_assert_eq!(before.build(), *build, "the record's previous build is the core's");
    let newer = record.current.clone();
    record.put_in_charge(before, shell.config.limits().builds_kept);
    if shell.core.converts(&build.library) {
        record.converters.push(newer);
    }
    record.seen = seen;
    shell.builds.update(&mut shell.core, id, record);
    line
}

/// Writes a rollback to the ledger: amends the line of the failed build's commit, and adds one for
/// the build that serves now. Returns the second line's number.
pub(in crate::worker) fn report_roll_back(shell: &mut Shell, failed: &FailedBuild, committed_at: u64) -> u64 {
    let FailedBuild { id, build, record, why } = failed;
    let why = format!("generation {} is rolled back: {why}", build.generation);
    end_line(shell, committed_at, &build.library, ProbationState::RolledBack, *record, why.clone());
    let library = &shell.core.reloads.libraries()[id.0];
    let mut report = library.rolled_back(why, shell.core.services());
    report.quarantined = shell.core.quarantined(&report.library);
    tracing::error!("{}", ledger_line(&report));
    shell.ledger.add(&mut shell.core, "host", report)
}

/// Writes the end of a build's probation to the line of its commit.
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

/// Ledger line and counts of a build that another one is about to replace during its probation.
pub(super) fn unproved(shell: &Shell, id: LibraryId) -> Option<(u64, ProbationCounts)> {
    let known = shell.builds.get(id)?;
    let record = shell.core.probation(&known.current.library).map(|p| p.record).unwrap_or_default();
    Some((known.probation.as_ref()?.line, record))
}

/// Writes to the ledger that other builds have replaced these during their probation.
pub(super) fn record_replaced(shell: &mut Shell, unproved: Vec<(u64, ProbationCounts)>) {
    for (line, record) in unproved {
        shell.ledger.amend(&mut shell.core, line, |report| {
            report.probation = Some(ProbationReport { state: ProbationState::Replaced, record });
        });
    }
}
