//! Commands `greenroom reload` and `greenroom rollback`: request it, wait for it, and end with
//! its outcome.
//!
//! A command returns when the outcome is known, not when it was asked for, so that a script can
//! rely on the exit code. If the worker dies meanwhile, the ledger tells what was committed
//! ([`call_recorded`]).
//!
//! | outcome | exit code of `reload` | exit code of `rollback` |
//! | --- | --- | --- |
//! | committed, configured, rehearsed, canary | 0 | 1 |
//! | unchanged | 0 | 0 |
//! | rolled back | 1 | 0 |
//! | refused, replaced | 1 | 1 |

use crate::admin::client::{CallError, call, call_recorded};
use crate::admin::text::ledger_line;
use crate::cli::canary_args::CanaryArgs;
use crate::cli::output::{CommandFailure, complain, print_json, print_text};
use crate::cli::report::{print_dialogues, print_rehearsal};
use crate::config::is_text;
use crate::protocol::admin::{AdminCommand, FRESH_WORKER, Reply};
use clap::Args;
use greenroom_core::ledger::{Outcome, ProbationState, Report};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

// Doc comments of the fields are the help text of the command line.
#[derive(Args)]
pub(super) struct Reload {
    /// A service or its library; none: every library that changed
    service: Option<String>,
    /// Load this file instead of the one that is watched
    #[arg(long, value_name = "PATH", requires = "service", conflicts_with_all = ["all", "config"])]
    from: Option<PathBuf>,
    /// All libraries in one commit: all of them, or none
    #[arg(long, conflicts_with = "service")]
    all: bool,
    /// Read the configuration file again and put it in force: all of it, or nothing
    #[arg(long, conflicts_with_all = ["service", "from", "all", "dry_run"])]
    config: bool,
    /// Stop before anything changes, and print what would change
    #[arg(long)]
    dry_run: bool,
    /// Replay this recording with the new build, and refuse it if it differs
    #[arg(long, value_name = "FILE", requires = "service", conflicts_with_all = ["all", "config"])]
    against: Option<PathBuf>,
    /// With --against: differences that are wanted, as for `greenroom replay`
    #[arg(long, value_name = "PATTERN", requires = "against")]
    allow: Vec<String>,
    /// Wait until the new build has passed its probation or was rolled back
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    #[command(flatten)]
    canary: CanaryArgs,
    /// JSON, a line for each library
    #[arg(long)]
    json: bool,
}

// Doc comments of the fields are the help text of the command line.
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
    /// Runs the command. A path is made absolute: the host has another working directory.
    ///
    /// With several libraries each has a report; the command fails if one of them was refused.
    pub(super) fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        // The keeper and the worker have other working directories.
        let absolute = |p: PathBuf| {
            let path = std::path::absolute(&p).map_err(|e| format!("{}: {e}", p.display()))?;
            is_text(&path).map(|()| path)
        };
        let from = self.from.map(absolute).transpose().map_err(CommandFailure::Usage)?;
        let against = self.against.map(absolute).transpose().map_err(CommandFailure::Usage)?;
        let against = against.map(|file| (file, self.allow));
        let (service, together, dry_run) = (self.service, self.all, self.dry_run);
        let wish = self.canary.wish()?;
        let mut told = Told::new(self.json, dry_run);
        // Reports whose end another query tells. Asked for after the answer, so no other report
        // waits.
        let mut settled = Vec::new();
        let asked = match (wish, service) {
            _ if self.config => AdminCommand::Configure,
            (Some(wish), Some(service)) => AdminCommand::Canary { service, from, wish },
            (_, service) => AdminCommand::Reload { service, from, together, dry_run, against },
        };
        ask_until_there_is_room(dir, &asked, |reply| match reply {
            Reply::Progress(library, done, total) => told.progress(&library, done, total),
            Reply::Report(report) if is_settled_later(&report, self.wait) => settled.push(report.line),
            Reply::Report(report) => told.report(&report),
            _ => {}
        })?;
        // Blocks until the probation ends. A worker that dies meanwhile changes nothing: the
        // question may be repeated, and the successor knows the line.
        for line in settled {
            call(dir, &AdminCommand::Await(line), |reply| {
                if let Reply::Report(report) = reply {
                    told.report(&report);
                }
            })?;
        }
        // A build that serves already is what was asked for.
        use Outcome::{Canary, Committed, Configured, Rehearsed, Unchanged};
        told.end(|o| matches!(o, Committed | Unchanged | Rehearsed | Configured | Canary))
    }
}

impl Rollback {
    /// Runs the command. Progress is shown if the host rehearses the build.
    pub(super) fn run(self, dir: &Path) -> Result<(), CommandFailure> {
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

/// Whether a later answer tells the end of a probation. So it is if the command waits for the
/// probation, or if the probation was over before the ledger was read.
fn is_settled_later(report: &Report, wait: bool) -> bool {
    report.probation.as_ref().is_some_and(|p| wait || p.state != ProbationState::UnderWay)
}

/// Time in which a refusal for want of room is tried again with a fresh worker.
const FRESH_WORKER_MAX: Duration = Duration::from_secs(10);
/// Pause before that.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Asks a host for a reload, and calls `each` with each reply. A build that was refused for want of
/// room is asked for again, for up to 10 s: a fresh worker has that room.
pub(super) fn ask_until_there_is_room(
    dir: &Path,
    asked: &AdminCommand,
    mut each: impl FnMut(Reply),
) -> Result<(), CallError> {
    let give_up = Instant::now() + FRESH_WORKER_MAX;
    loop {
        let mut again = false;
        call_recorded(dir, asked, |reply| match reply {
            Reply::Report(report) if is_for_a_fresh_worker(&report) && Instant::now() < give_up => {
                again = true;
            }
            other => each(other),
        })?;
        if !again {
            return Ok(());
        }
        // The worker asks the keeper behind the pass that refused. From then on commands wait for
        // the fresh one.
        std::thread::sleep(ASK_AGAIN_AFTER);
    }
}

/// Whether a build was refused for want of room that a fresh worker has.
fn is_for_a_fresh_worker(report: &Report) -> bool {
    report.outcome == Outcome::Refused && report.reason.ends_with(FRESH_WORKER)
}

/// Time after which a rehearsal's progress is shown.
const QUIET: Duration = Duration::from_millis(500);
/// Interval of progress lines, without a terminal.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Reports and progress printed so far.
pub(super) struct Told {
    json: bool,
    dry_run: bool,
    /// Time at which the command began.
    began: Instant,
    /// Time of the last progress line, without a terminal.
    said: Instant,
    /// Progress bar on a terminal; `None`: nothing is shown at the moment.
    bar: Option<ProgressBar>,
    /// Outcomes of the reports, which decide the exit code.
    outcomes: Vec<Outcome>,
}

impl Told {
    /// Begins with nothing printed.
    pub(super) fn new(json: bool, dry_run: bool) -> Told {
        let now = Instant::now();
        Told { json, dry_run, began: now, said: now, bar: None, outcomes: Vec::new() }
    }

    /// Shows the progress of a rehearsal on standard error: a bar on a terminal, else a line
    /// each second. A rehearsal of less than 500 ms shows nothing.
    pub(super) fn progress(&mut self, library: &str, done: u64, total: u64) {
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
            complain(&format!("{library}: rehearsing, {done} of {total} sessions and table entries"));
        }
    }

    /// Prints a report. What was rehearsed is printed if nothing was committed: then it is the
    /// reason, or the answer to a dry run.
    pub(super) fn report(&mut self, report: &Report) {
        // Cleared first, or the report would be written into the bar's line.
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.outcomes.push(report.outcome);
        if self.json {
            return print_json(report);
        }
        print_text(&(ledger_line(report) + "\n"));
        let shown = self.dry_run || report.outcome == Outcome::Refused;
        match &report.rehearsal {
            Some(rehearsal) if shown => print_rehearsal(rehearsal),
            // Peers see what becomes of their dialogues at their next line.
            Some(rehearsal) => print_dialogues(rehearsal),
            None => {}
        }
    }

    /// Ends the command: success if `fine` accepts every outcome. Why it failed was printed
    /// already.
    pub(super) fn end(self, fine: impl Fn(&Outcome) -> bool) -> Result<(), CommandFailure> {
        match self.outcomes.iter().all(fine) {
            true => Ok(()),
            false => Err(CommandFailure::Failed(String::new())),
        }
    }
}
