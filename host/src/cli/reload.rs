//! `greenroom reload` and `greenroom rollback`: request it, wait for it, and end with its outcome.

use crate::admin::client::{call, call_recorded};
use crate::admin::text::ledger_line;
use crate::cli::output::{Failure, print_json, print_text};
use crate::cli::report::print_rehearsal;
use crate::protocol::admin::{AdminCommand, Reply};
use clap::Args;
use greenroom_core::ledger::{Outcome, ProbationState, Report};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(Args)]
pub(super) struct Reload {
    /// A service or its library; none: every library that changed
    service: Option<String>,
    /// Load this file instead of the one that is watched
    #[arg(long, value_name = "PATH", requires = "service")]
    from: Option<PathBuf>,
    /// All libraries in one commit: all of them, or none
    #[arg(long, conflicts_with = "service")]
    all: bool,
    /// Read the configuration file again and put it in force: all of it, or nothing
    #[arg(long, conflicts_with_all = ["service", "from", "all", "dry_run", "wait"])]
    config: bool,
    /// Stop before anything changes, and print what would change
    #[arg(long)]
    dry_run: bool,
    /// Wait until the new build has passed its probation or was rolled back
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// JSON, a line for each library
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Rollback {
    /// A service or its library
    service: String,
    /// The generation to go back to; none: the previous one
    #[arg(long, value_name = "N")]
    to: Option<u64>,
    /// JSON, on one line
    #[arg(long)]
    json: bool,
}

impl Reload {
    pub(super) fn run(self, dir: &Path) -> Result<(), Failure> {
        let from = match self.from {
            None => None,
            Some(p) => {
                Some(std::path::absolute(&p).map_err(|e| Failure::Usage(format!("{}: {e}", p.display())))?)
            }
        };
        let (service, together, dry_run) = (self.service, self.all, self.dry_run);
        let mut told = Told::new(self.json, dry_run);
        let mut settled = Vec::new();
        let asked = match self.config {
            true => AdminCommand::Configure,
            false => AdminCommand::Reload { service, from, together, dry_run },
        };
        call_recorded(dir, &asked, |reply| match reply {
            Reply::Progress(library, done, total) => told.progress(&library, done, total),
            Reply::Report(report) if is_settled_later(&report, self.wait) => settled.push(report.line),
            Reply::Report(report) => told.report(&report),
            _ => {}
        })?;
        for line in settled {
            call(dir, &AdminCommand::Await(line), |reply| {
                if let Reply::Report(report) = reply {
                    told.report(&report);
                }
            })?;
        }
        use Outcome::{Committed, Configured, Rehearsed, Unchanged};
        told.end(|o| matches!(o, Committed | Unchanged | Rehearsed | Configured))
    }
}

impl Rollback {
    pub(super) fn run(self, dir: &Path) -> Result<(), Failure> {
        let mut told = Told::new(self.json, false);
        call_recorded(
            dir,
            &AdminCommand::RollBack { service: self.service, to: self.to },
            |reply| match reply {
                Reply::Progress(library, done, total) => told.progress(&library, done, total),
                Reply::Report(report) => told.report(&report),
                _ => {}
            },
        )?;
        told.end(|o| matches!(o, Outcome::RolledBack | Outcome::Unchanged))
    }
}

/// Whether a later answer tells the end: of a probation that is waited for, or one that was over
/// before the ledger was read.
fn is_settled_later(report: &Report, wait: bool) -> bool {
    report.probation.as_ref().is_some_and(|p| wait || p.state != ProbationState::UnderWay)
}

/// Time after which a rehearsal's progress is shown.
const QUIET: Duration = Duration::from_millis(500);
/// Interval of progress lines, without a terminal.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Reports and progress printed so far.
struct Told {
    json: bool,
    dry_run: bool,
    began: Instant,
    said: Instant,
    bar: Option<ProgressBar>,
    outcomes: Vec<Outcome>,
}

impl Told {
    fn new(json: bool, dry_run: bool) -> Told {
        let now = Instant::now();
        Told { json, dry_run, began: now, said: now, bar: None, outcomes: Vec::new() }
    }

    fn progress(&mut self, library: &str, done: u64, total: u64) {
        if self.began.elapsed() < QUIET {
            return;
        }
        if std::io::stderr().is_terminal() {
            let bar = self.bar.get_or_insert_with(|| {
                let style = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len}");
                ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
            });
            bar.set_message(format!("{library}: rehearsing"));
            bar.set_position(done);
        } else if self.said.elapsed() >= LINE_EVERY {
            self.said = Instant::now();
            eprintln!("{library}: rehearsing, {done} of {total} sessions and table entries");
        }
    }

    fn report(&mut self, report: &Report) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.outcomes.push(report.outcome);
        if self.json {
            return print_json(report);
        }
        print_text(&(ledger_line(report) + "\n"));
        let shown = self.dry_run || report.outcome == Outcome::Refused;
        if let Some(rehearsal) = report.rehearsal.as_ref().filter(|_| shown) {
            print_rehearsal(rehearsal);
        }
    }

    fn end(self, fine: impl Fn(&Outcome) -> bool) -> Result<(), Failure> {
        match self.outcomes.iter().all(fine) {
            true => Ok(()),
            false => Err(Failure::Failed(String::new())),
        }
    }
}
