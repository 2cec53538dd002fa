//! Command `greenroom canary`: shows canaries, promotes one, or takes it back.
//!
//! Both builds are shown side by side, with what was counted since the canary began. A promotion is
//! a reload, and ends with its outcome; so does the way back. Exit code 1: there is no canary, or
//! the candidate was refused.

use crate::admin::client::{call, call_recorded};
use crate::cli::output::{CommandFailure, print_json, print_text};
use crate::cli::reload::Told;
use crate::cli::table::{Form, table};
use crate::protocol::admin::{AdminCommand, Reply};
use crate::protocol::canary::{CanaryColumn, CanaryLine};
use clap::{Args, Subcommand};
use greenroom_core::ledger::Outcome;
use std::path::Path;
use std::time::Duration;

// Doc comments of the fields are the help text of the command line.
#[derive(Args)]
pub(super) struct Canary {
    #[command(subcommand)]
    change: Option<Change>,
    /// JSON: an array of canaries, or the report of a change
    #[arg(long, global = true)]
    json: bool,
}

/// `greenroom canary promote` and `cancel`.
#[derive(Subcommand)]
enum Change {
    /// Let the candidate serve all sessions, on probation like any build
    Promote {
        /// A service or its library
        service: String,
    },
    /// Let all sessions run the build before again
    Cancel {
        /// A service or its library
        service: String,
    },
}

impl Canary {
    /// Runs the command.
    pub(super) fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        let Some(change) = self.change else { return show(dir, self.json) };
        let (command, wanted) = match change {
            Change::Promote { service } => (AdminCommand::Promote(service), Outcome::Committed),
            Change::Cancel { service } => (AdminCommand::TakeBack(service), Outcome::TakenBack),
        };
        let mut told = Told::new(self.json, false);
        call_recorded(dir, &command, |reply| match reply {
            Reply::Progress(library, done, total) => told.progress(&library, done, total),
            Reply::Report(report) => told.report(&report),
            _ => {}
        })?;
        told.end(|outcome| *outcome == wanted)
    }
}

/// Prints all canaries.
fn show(dir: &Path, json: bool) -> Result<(), CommandFailure> {
    call(dir, &AdminCommand::Canaries, |reply| {
        let Reply::Canaries(all) = reply else { return };
        match json {
            true => print_json(&all),
            false if all.is_empty() => print_text("no canary runs\n"),
            false => all.iter().for_each(|canary| print_text(&text_of(canary))),
        }
    })?;
    Ok(())
}

/// A canary as text: its terms, then both builds side by side.
fn text_of(canary: &CanaryLine) -> String {
    let time = |ms: u64| humantime::format_duration(Duration::from_secs(ms.div_ceil(1000))).to_string();
    let mut terms = format!(
        "{}: generation {} as a canary of {}, {} % of new sessions, {} chosen",
        canary.library,
        canary.candidate.generation,
        canary.services.join(", "),
        canary.share,
        canary.chosen
    );
    if let Some(ms) = canary.promote_in_ms {
        terms += &format!("; to be promoted in {}", time(ms));
    }
    if let Some(max) = canary.faults_max {
        terms += &format!("; taken back beyond {max} faults");
    }
    let ns = |ns: Option<u64>| ns.map_or_else(|| "-".to_owned(), time_of);
    let column = |c: &CanaryColumn| {
        let faults = match c.shared_faults {
            0 => c.faults.to_string(),
            shared => format!("{}, {shared} of them in both builds", c.faults),
        };
        [
            c.generation.to_string(),
            c.build.get(..12).unwrap_or(&c.build).to_owned(),
            c.sessions.to_string(),
            c.turns.to_string(),
            faults,
            ns(c.mean_ns),
            ns(c.p99_ns),
            ns(Some(c.longest_ns).filter(|n| *n > 0)),
        ]
    };
    let names =
        ["generation", "build", "sessions", "turns", "faults", "mean turn", "99 % below", "longest turn"];
    let mut table = table(&["", "BEFORE", "CANDIDATE"]);
    let both = column(&canary.serving).into_iter().zip(column(&canary.candidate));
    for (name, (before, candidate)) in names.into_iter().zip(both) {
        table.add_row([name.to_owned(), before, candidate]);
    }
    let mut compared = match canary.compare_every {
        0 => "no turns are compared".to_owned(),
        every => format!(
            "compared: {} batches of turns, one in {every}; {} differ",
            canary.compared, canary.differing
        ),
    };
    if canary.no_way_back > 0 {
        compared += &format!("; {} had no way back", canary.no_way_back);
    }
    format!("{terms}\n{}\n{compared}\n", table.in_form(Form::of_output(true)))
}

/// A short time, in the unit that fits.
pub(super) fn time_of(ns: u64) -> String {
    match ns {
        ..10_000 => format!("{ns} ns"),
        10_000..10_000_000 => format!("{:.1} µs", ns as f64 / 1e3),
        _ => format!("{:.1} ms", ns as f64 / 1e6),
    }
}
