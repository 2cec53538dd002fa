//! Command `greenroom undo`: puts back what the last operator's change replaced.
//!
//! Refused if anybody has written to it since: the reason names what. A second `undo` takes the
//! first one back.

use crate::admin::client::call_recorded;
use crate::cli::changes::{end, print_report};
use crate::cli::output::CommandFailure;
use crate::protocol::admin::{AdminCommand, Reply};
use clap::Args;
use std::path::Path;

// Doc comments of the fields are the help text of the command line.
#[derive(Args)]
pub(super) struct Undo {
    /// JSON, on one line
    #[arg(long)]
    json: bool,
}

impl Undo {
    /// Runs the command.
    pub(super) fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        let mut told = None;
        call_recorded(dir, &AdminCommand::Undo, |reply| {
            if let Reply::Report(report) = reply {
                told = Some(report);
            }
        })?;
        let Some(report) = told else { return Err(CommandFailure::Failed("the host said nothing".into())) };
        print_report(&report, self.json);
        end(&report)
    }
}
