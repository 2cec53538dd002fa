//! Reports of changes of states and entries: printed, and turned into exit codes.

use crate::admin::text::ledger_line;
use crate::cli::output::{CommandFailure, print_json, print_text};
use greenroom_core::ledger::{Outcome, Report};

/// Prints a report: the ledger's sentence, or JSON.
pub(super) fn print_report(report: &Report, json: bool) {
    match json {
        true => print_json(report),
        false => print_text(&(ledger_line(report) + "\n")),
    }
}

/// Success, unless the restore was refused. The reason was printed with the report.
pub(super) fn end(report: &Report) -> Result<(), CommandFailure> {
    match report.outcome {
        Outcome::Refused => Err(CommandFailure::Failed(String::new())),
        _ => Ok(()),
    }
}
