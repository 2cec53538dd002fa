//! Option `--watch`: prints the same again, every few seconds.
//!
//! On a terminal each round is drawn over the one before, in one write, so nothing flickers. It has
//! a screen of its own, and leaves the terminal as it was. In a pipe, and as JSON, each round
//! follows the one before. SIGINT, SIGTERM and SIGHUP end the command in order, with exit code 0.

use crate::cli::output::{CommandFailure, end_with_the_reader, print_text};
use crate::cli::table::terminal;
use crate::printable;
use clap::Args;
use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, DisableLineWrap, EnableLineWrap, EndSynchronizedUpdate,
    EnterAlternateScreen, LeaveAlternateScreen,
};
use crossterm::{Command, queue};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::Write;
use std::time::Duration;

/// Shortest time between two rounds, in seconds.
const EVERY_MIN: f64 = 0.1;

// Doc comments of the fields are the help text of the command line.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(super) struct Watch {
    /// Print it again every few seconds, until Ctrl-C [default: 2]
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = seconds)]
    watch: Option<f64>,
}

/// Reads a time in seconds.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    match (EVERY_MIN..=86_400.0).contains(&seconds) {
        true => Ok(seconds),
        false => Err(format!("from {EVERY_MIN} to 86400 seconds")),
    }
}

impl Watch {
    /// Time between two rounds; `None`: there is only one.
    pub(super) fn every(self) -> Option<Duration> {
        self.watch.map(Duration::from_secs_f64)
    }

    /// Prints what `round` makes, once or again and again. `draws`: a terminal gets each round over
    /// the one before. A failure ends it; on a terminal, only the first round's does.
    pub(super) fn run(
        self,
        draws: bool,
        round: impl FnMut() -> Result<String, CommandFailure>,
    ) -> Result<(), CommandFailure> {
        self.run_showing(draws, Part::Begin, round)
    }

    /// Does as above. `part`: what a terminal shows of a text that is longer than it.
    pub(super) fn run_showing(
        self,
        draws: bool,
        part: Part,
        mut round: impl FnMut() -> Result<String, CommandFailure>,
    ) -> Result<(), CommandFailure> {
        let Some(every) = self.every() else {
            print_text(&round()?);
            return Ok(());
        };
        end_with_the_reader();
        let first = round()?;
        let draws = draws && terminal().is_some();
        end_at_signals(draws)?;
        if draws {
            write(&[&EnterAlternateScreen, &Hide, &DisableLineWrap]);
            draw(&first, part);
        } else {
            print_text(&first);
        }
        loop {
            std::thread::sleep(every);
            match (round(), draws) {
                (Ok(text), true) => draw(&text, part),
                // The host may come back: a change of its binary, or a restart.
                (Err(failed), true) => draw(&format!("greenroom: {}\n", failed.text()), part),
                (Ok(text), false) => print_text(&format!("\n{text}")),
                (Err(failed), false) => return Err(failed),
            }
        }
    }
}

/// Ends the process in order at the signals that end a command. A thread waits for them, so that an
/// answer that takes long holds nothing up.
pub(super) fn end_at_signals(drew: bool) -> Result<(), CommandFailure> {
    let failed = |e: std::io::Error| CommandFailure::Failed(format!("signals can't be handled: {e}"));
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(failed)?;
    let waits = move || {
        if signals.forever().next().is_some() {
            if drew {
                // Does nothing unless keys were read one by one.
                let _ = crossterm::terminal::disable_raw_mode();
                write(&[&EnableLineWrap, &Show, &LeaveAlternateScreen]);
            }
            std::process::exit(0);
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(waits).map_err(failed)?;
    Ok(())
}

/// Writes commands for the terminal, past the lock of standard output: a thread may hold that while
/// the terminal stands still.
fn write(commands: &[&dyn AnsiText]) {
    let text: String = commands.iter().map(|command| command.text()).collect();
    let _ = rustix::io::write(std::io::stdout(), text.as_bytes());
}

/// Command for a terminal as its escape sequence.
trait AnsiText {
    fn text(&self) -> String;
}

impl<C: Command> AnsiText for C {
    fn text(&self) -> String {
        let mut text = String::new();
        let _ = self.write_ansi(&mut text);
        text
    }
}

/// Part of a text that a terminal shows if the text has more lines.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    /// The first lines.
    Begin,
    /// The head, and the last lines: they are the news.
    End,
}

/// Draws a round over the one before. Lines that the terminal has no room for are counted.
fn draw(text: &str, part: Part) {
    let rows = terminal().map_or(usize::MAX, |(_, rows)| rows.max(2));
    let text = printable::lines(text);
    let mut lines: Vec<_> = text.lines().collect();
    // The last row of the screen stays for the count.
    let room = if lines.len() > rows { rows - 1 } else { lines.len() };
    let left_out = lines.len() - room;
    match part {
        Part::Begin => lines.truncate(room),
        Part::End => drop(lines.drain(1.min(room)..1.min(room) + left_out)),
    }
    let mut out = Vec::new();
    let _ = queue!(out, BeginSynchronizedUpdate, MoveTo(0, 0));
    for (at, line) in lines.iter().enumerate() {
        let _ = write!(out, "{}{line}", if at > 0 { "\r\n" } else { "" });
        let _ = queue!(out, Clear(ClearType::UntilNewLine));
    }
    let _ = queue!(out, Clear(ClearType::FromCursorDown));
    if left_out > 0 {
        let _ = write!(out, "\r\n… {left_out} lines more");
        let _ = queue!(out, Clear(ClearType::UntilNewLine));
    }
    let _ = queue!(out, EndSynchronizedUpdate);
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(&out).and_then(|()| stdout.flush());
    if written.is_err() {
        // The terminal is gone.
        std::process::exit(0);
    }
}
