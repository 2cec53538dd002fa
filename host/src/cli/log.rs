//! Command `greenroom log`: shows the levels of the log, or changes them while the host runs.
//!
//! The keeper answers, so this works while no worker serves or a callback stalls.

use crate::admin::client::call;
use crate::cli::output::{CommandFailure, complain, print_json, print_text};
use crate::cli::table::{Form, table};
use crate::logs::levels::LogLevel;
use crate::protocol::admin::{AdminCommand, Reply};
use crate::protocol::log::{LevelLine, LevelWish, LogReport};
use clap::Args;
use std::path::Path;
use std::time::Duration;

// Doc comments of the fields are the help text of the command line.
#[derive(Args)]
pub(super) struct Log {
    /// off, error, warn, info, debug or trace; `reset` goes back to the configured level. Without
    /// it, the levels in force are shown
    #[arg(value_name = "LEVEL | reset", value_parser = wanted)]
    level: Option<Wanted>,
    /// Lines about this service, and those of its handler; else of all that have no level of their
    /// own
    #[arg(long, value_name = "SERVICE", requires = "level")]
    service: Option<String>,
    /// Go back after this time, such as 30s or 10m; else the level stays until the host ends
    #[arg(long = "for", value_name = "DURATION", requires = "level", value_parser = humantime::parse_duration)]
    time: Option<Duration>,
    /// JSON, for programs
    #[arg(long)]
    json: bool,
}

/// Wish of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Level(LogLevel),
    Reset,
}

/// Reads the argument.
fn wanted(text: &str) -> Result<Wanted, String> {
    match text {
        "reset" => Ok(Wanted::Reset),
        level => level.parse().map(Wanted::Level).map_err(|e| format!("{e}, and `reset` goes back")),
    }
}

impl Log {
    /// Runs the command. The levels in force go to standard output.
    pub(super) fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        if self.level == Some(Wanted::Reset) && self.time.is_some() {
            return Err(CommandFailure::Usage("--for is the time of a level; `reset` has none".into()));
        }
        let level = self.level.map(|wanted| match wanted {
            Wanted::Level(level) => Some(level),
            Wanted::Reset => None,
        });
        let for_ms = self.time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let wish = level.map(|level| LevelWish { level, service: self.service, for_ms });
        let stays = level.flatten().is_some() && for_ms.is_none();
        call(dir, &AdminCommand::Log(wish), |reply| match reply {
            Reply::LogLevels(report) if self.json => print_json(&report),
            Reply::LogLevels(report) => print_text(&in_words(&report)),
            _ => {}
        })?;
        if stays {
            complain("the level stays until the host ends, or until `greenroom log reset`");
        }
        Ok(())
    }
}

/// Table of the levels in force.
fn in_words(report: &LogReport) -> String {
    let mut table = table(&["LINES OF", "LEVEL", "UNTIL"]);
    for line in &report.levels {
        let until = match (line.is_set, left(line)) {
            (false, _) => "configured".to_owned(),
            (true, Some(left)) => format!("another {left}"),
            (true, None) => "the host ends".to_owned(),
        };
        table.add_row([line.service.clone().unwrap_or_else(|| "all".into()), line.level.to_string(), until]);
    }
    format!("{}\n", table.in_form(Form::of_output(false)))
}

/// Time that is left of a level.
fn left(line: &LevelLine) -> Option<String> {
    // Whole seconds, rounded up: the last one is not 0.
    let left = Duration::from_secs(line.left_ms?.div_ceil(1000));
    Some(humantime::format_duration(left).to_string())
}

/// Describes a level that an operator has set.
pub(super) fn level_in_words(line: &LevelLine) -> String {
    let of = line.service.as_deref().unwrap_or("all");
    let left = left(line).map(|left| format!(", for another {left}")).unwrap_or_default();
    format!("{} for {of}{left}", line.level)
}
