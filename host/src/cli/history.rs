//! `greenroom history`: what reloads there were, and what came of them.

use super::{Failure, print_json, print_text, table};
use crate::admin::call::call;
use crate::admin::wire::{Command, Reply};
use clap::Args;
use greenroom_core::reload::Outcome;
use std::path::Path;

#[derive(Args)]
pub(super) struct History {
    /// JSON, for programs
    #[arg(long)]
    json: bool,
}

impl History {
    pub(super) fn run(self, dir: &Path) -> Result<(), Failure> {
        let mut lines = Vec::new();
        call(dir, &Command::History, |reply| {
            if let Reply::History(slice) = reply {
                lines.extend(slice);
            }
        })?;
        if self.json {
            print_json(&lines);
            return Ok(());
        }
        let mut table =
            table(&["WHEN", "WHO", "LIBRARY", "OUTCOME", "GENERATION", "BUILD", "SESSIONS", "PAUSE", "WHY"]);
        for line in &lines {
            let r = &line.report;
            let outcome = match r.outcome {
                Outcome::Committed => "committed",
                Outcome::Unchanged => "unchanged",
                Outcome::Refused => "refused",
                Outcome::RolledBack => "rolled back",
            };
            let pause = if r.outcome == Outcome::Committed {
                format!("{:.1} µs", r.pause_us)
            } else {
                String::new()
            };
            table.add_row([
                line.at.clone(),
                line.by.clone(),
                r.library.clone(),
                outcome.to_owned(),
                r.generation.to_string(),
                r.build.get(..12).unwrap_or_default().to_owned(),
                r.sessions.to_string(),
                pause,
                r.reason.clone(),
            ]);
        }
        print_text(&format!("{table}\n"));
        Ok(())
    }
}
