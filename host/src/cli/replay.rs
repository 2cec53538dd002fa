//! Command `greenroom replay`: has a candidate run a recording, and prints where it differs.
//!
//! Needs no host. The candidate is looked at as `check` does it, and runs in the confined child.
//!
//! | outcome | exit code |
//! | --- | --- |
//! | no difference, or only allowed ones | 0 |
//! | differences; or the candidate, or the file, is refused | 1 |
//! | wrong usage | 2 |

use crate::cli::check::look;
use crate::cli::output::{CommandFailure, complain, print_json, print_text};
use crate::config::{Config, is_text};
use crate::plugin::recording::unpack;
use clap::Args;
use std::path::PathBuf;

// Doc comments of the fields are the help text of the command line.
#[derive(Args)]
pub(super) struct Replay {
    /// The recording
    file: PathBuf,
    /// The library that runs it
    #[arg(long, value_name = "LIBRARY")]
    handler: PathBuf,
    /// Differences that are wanted: FIELD or SERVICE:FIELD, as they are printed, with * for any
    /// characters; may be repeated
    #[arg(long, value_name = "PATTERN")]
    allow: Vec<String>,
    /// The configuration to run it with (TOML)
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// JSON, for programs
    #[arg(long)]
    json: bool,
}

impl Replay {
    /// Runs the command.
    pub(super) fn run(self) -> Result<(), CommandFailure> {
        let config = match &self.config {
            Some(path) => Config::read(path).map_err(CommandFailure::Failed)?,
            None => Config::default(),
        };
        is_text(&self.handler).map_err(CommandFailure::Usage)?;
        let unpacked = unpack(&self.file).map_err(CommandFailure::Failed)?;
        if unpacked.is_cut {
            complain(&format!(
                "greenroom: {} ends in the middle; its {} whole turns are replayed",
                self.file.display(),
                unpacked.turns
            ));
        }
        let looked = look(&self.handler, &config, Some((&unpacked, &self.allow)));
        let report = looked.map_err(CommandFailure::Failed)?.tried.replay;
        let report =
            report.ok_or_else(|| CommandFailure::Failed("the trial told nothing of a replay".into()))?;
        if self.json {
            print_json(&report);
        } else {
            let lines: Vec<_> = report.differences.iter().map(|d| d.in_words() + "\n").collect();
            print_text(&lines.concat());
            complain(&report.in_words());
        }
        match (report.differing, report.replayed) {
            (0, 1..) => Ok(()),
            (0, 0) if report.turns == 0 => Ok(()),
            (0, 0) => {
                Err(CommandFailure::Failed("no turn of the recording can be replayed by this library".into()))
            }
            _ => Err(CommandFailure::Failed(String::new())),
        }
    }
}
