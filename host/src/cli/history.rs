//! Command `greenroom history`: prints the ledger of reloads, restores and configurations.
//!
//! The whole ledger, at most 1000 lines, is read before the first line is printed: columns are
//! as wide as their widest cell. A narrow terminal gets the columns that fit, and the others below.

use crate::admin::client::call;
use crate::admin::text::{canary_words, ledger_line};
use crate::cli::output::{CommandFailure, json_line};
use crate::cli::table::{Form, Table, table};
use crate::cli::watch::{Part, Watch};
use crate::protocol::admin::{AdminCommand, LedgerLine, Reply};
use clap::Args;
use greenroom_core::ledger::Report;
use serde_json::json;
use std::path::Path;

// Doc comments of the fields are the help text of the command line.
#[derive(Args)]
pub(super) struct History {
    /// All columns, on lines of any length
    #[arg(long, conflicts_with = "json")]
    wide: bool,
    /// JSON, for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    watch: Watch,
}

impl History {
    /// Runs the command. With `--json` prints one array on one line.
    pub(super) fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        self.watch.run_showing(!self.json, Part::End, || {
            let mut lines = Vec::new();
            call(dir, &AdminCommand::History, |reply| {
                if let Reply::History(slice) = reply {
                    lines.extend(slice);
                }
            })?;
            Ok(match self.json {
                true => json_line(&lines),
                false => laid_out(&lines).in_form(Form::of_output(self.wide)) + "\n",
            })
        })
    }
}

/// Table of the ledger's lines. Cells that do not apply are empty; `--json` has every field.
fn laid_out(lines: &[LedgerLine]) -> Table {
    let mut table = table(&[
        "LINE",
        "WHEN",
        "WHO",
        "LIBRARY",
        "OUTCOME",
        "GENERATION",
        "BUILD",
        "BUILD ID",
        "VERSIONS",
        "VERDICT",
        "SESSIONS",
        "MIGRATED",
        "QUARANTINED",
        "REHEARSAL",
        "PAUSE",
        "PROBATION",
        "WHY",
    ]);
    for line in lines {
        let r = &line.report;
        // The same word as in JSON.
        let word = |v: serde_json::Value| v.as_str().unwrap_or_default().to_owned();
        // Twelve digits tell builds apart; `--json` has all of them.
        let short = |text: &str| text.get(..12).unwrap_or(text).to_owned();
        // Zero is shown as an empty cell, so that the other numbers stand out.
        let some = |n: u64, text: String| if n > 0 { text } else { String::new() };
        let versions: Vec<_> = r.versions.iter().map(|(s, v)| format!("{s} v{v}")).collect();
        let probation = r.probation.as_ref().map(|p| match p.record.faults {
            0 => word(json!(p.state)),
            n => format!("{}, {n} faults, {} spared", word(json!(p.state)), p.record.spared),
        });
        table.add_row([
            r.line.to_string(),
            line.at.clone(),
            line.by.clone(),
            r.library.clone(),
            word(json!(r.outcome)),
            if r.restored.is_none() { r.generation.to_string() } else { String::new() },
            short(&r.build),
            r.build_id.as_deref().map(short).unwrap_or_default(),
            versions.join(", "),
            r.verdict.map(|v| v.to_string()).unwrap_or_default(),
            r.sessions.to_string(),
            some(r.migrated, r.migrated.to_string()),
            some(r.quarantined as u64, r.quarantined.to_string()),
            r.rehearsal.as_ref().map(|_| format!("{} ms", r.rehearsal_ms)).unwrap_or_default(),
            if r.pause_us > 0.0 { format!("{:.1} µs", r.pause_us) } else { String::new() },
            probation.unwrap_or_default(),
            // Restores have no columns of their own.
            r.restored.as_ref().map_or_else(|| why(r), |_| ledger_line(r)),
        ]);
    }
    table
}

/// Reason of an outcome, and what is to tell of a canary.
fn why(r: &Report) -> String {
    let words = [Some(r.reason.clone()).filter(|reason| !reason.is_empty()), canary_words(r)];
    words.into_iter().flatten().collect::<Vec<_>>().join("; ")
}
