//! Command `greenroom top`: the host on a terminal, as it is now.
//!
//! | file | does |
//! | --- | --- |
//! | `sample` | what the host says at one moment, and rates between two moments |
//! | `screen` | draws it |
//!
//! A thread asks the host, so keys are heard while an answer takes long. The keeper answers for the
//! host; the lists of sessions are the worker's, and are asked for more rarely: they cost it a look
//! at each session. If the host goes away, the screen says so and waits for it.

mod sample;
mod screen;

use crate::cli::output::CommandFailure;
use crate::cli::table::terminal;
use crate::cli::watch::end_at_signals;
use clap::Args;
use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use sample::{HostSample, ServiceOrder, View};
use std::io::IsTerminal;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Time between two looks at the sessions, at least.
const SESSIONS_EVERY: Duration = Duration::from_secs(5);
/// Longest time until a sample that has come is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(100);

// Doc comments of the fields are the help text of the command line.
#[derive(Args)]
pub(super) struct Top {
    /// Seconds between two looks at the host
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
}

impl Top {
    /// Runs the command until `q`, Escape or Ctrl-C.
    pub(super) fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        if terminal().is_none() || !std::io::stdin().is_terminal() {
            let why = "`top` wants a terminal; elsewhere, `greenroom status --json` has the same figures";
            return Err(CommandFailure::Usage(why.into()));
        }
        // Without a host there is nothing to draw, and the exit code says so.
        let first = HostSample::take(dir, true)?;
        end_at_signals(true)?;
        let (to, samples) = sync_channel(1);
        let (dir, every) = (dir.to_owned(), Duration::from_secs(self.every));
        let failed = |e: std::io::Error| CommandFailure::Failed(format!("the terminal: {e}"));
        std::thread::Builder::new()
            .name("samples".into())
            .spawn(move || ask(&dir, every, &to))
            .map_err(failed)?;
        let mut screen = ratatui::try_init().map_err(failed)?;
        let result = show(&mut screen, View::new(first), &samples);
        ratatui::restore();
        result.map_err(failed)
    }
}

/// Asks the host again and again, until nobody listens.
fn ask(dir: &Path, every: Duration, to: &SyncSender<Result<HostSample, String>>) {
    let mut looked = Instant::now();
    loop {
        std::thread::sleep(every);
        let sessions = looked.elapsed() >= SESSIONS_EVERY;
        if sessions {
            looked = Instant::now();
        }
        if to.send(HostSample::take(dir, sessions).map_err(CommandFailure::text)).is_err() {
            return;
        }
    }
}

/// Draws samples as they come, until a key ends it.
fn show(
    screen: &mut ratatui::DefaultTerminal,
    mut view: View,
    samples: &Receiver<Result<HostSample, String>>,
) -> std::io::Result<()> {
    let mut is_old = true;
    loop {
        if is_old {
            screen.draw(|frame| screen::draw(frame, &view))?;
        }
        is_old = event::poll(DRAW_EVERY)?;
        if is_old
            && let Event::Key(key) = event::read()?
            && !hear(&mut view, key)
        {
            return Ok(());
        }
        for sample in samples.try_iter() {
            view.add(sample);
            is_old = true;
        }
    }
}

/// Takes a key. False: it ends the command.
fn hear(view: &mut View, key: KeyEvent) -> bool {
    if key.kind == KeyEventKind::Release {
        return true;
    }
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => false,
        KeyCode::Char('q') | KeyCode::Esc => false,
        KeyCode::Char('p') => {
            view.is_paused = !view.is_paused;
            true
        }
        KeyCode::Char('s') => {
            view.order = match view.order {
                ServiceOrder::Name => ServiceOrder::Turns,
                ServiceOrder::Turns => ServiceOrder::Sessions,
                ServiceOrder::Sessions => ServiceOrder::Name,
            };
            true
        }
        _ => true,
    }
}
