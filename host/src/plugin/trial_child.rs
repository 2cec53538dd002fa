//! The trial, in the child process: loads a candidate, builds it from its settings and rehearses
//! it.

use crate::memory::board::Board;
use crate::plugin::confine::confine;
use crate::plugin::ffi::library::Library;
use crate::plugin::rehearse::rehearse;
use crate::plugin::trial::{Task, Tried};
use crate::protocol::link::Link;
use greenroom_state::abi::level;
use std::fs::File;
use std::io::{BufReader, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};

/// Runs the child: reads the task, confines the process, tries the candidate, and prints the
/// report.
pub fn run() -> Result<(), String> {
    let own = |e: &dyn std::fmt::Display| format!("this command is the host's own: {e}");
    let socket = std::io::stdin().as_fd().try_clone_to_owned().map_err(|e| own(&e))?;
    let Some(((), files)) = Link::<(), ()>::new(socket).wait().map_err(|e| own(&e))? else {
        return Err(own(&"nothing came"));
    };
    let mut files = files.into_iter();
    let (Some(task), Some(board), records) = (files.next(), files.next(), files.next()) else {
        return Err(own(&"no task came"));
    };
    let mut task = File::from(task);
    task.rewind().map_err(|e| own(&e))?;
    let task: Task = serde_json::from_reader(BufReader::new(task)).map_err(|e| own(&e))?;
    let board = Board::open(&board).map_err(|e| own(&e))?;
    // Before any of the candidate's code runs.
    confine(task.cpu_s, task.memory)?;
    let found = tried(&task, board, records.as_ref());
    let report = serde_json::to_string(&found).map_err(|e| e.to_string())?;
    say(&task.nonce, &report).map_err(|e| e.to_string())
}

/// Loads the candidate, builds its services and rehearses them.
fn tried(task: &Task, board: Board, records: Option<&OwnedFd>) -> Result<Tried, String> {
    let before = threads();
    let candidate = Library::load(&task.copy, &task.entry)?;
    let (library, offers) = candidate.offers()?;
    // Settings that it refuses are refused here.
    let serving = candidate.create(&task.settings, level::ERROR, board)?;
    let mut rehearsal = None;
    if let (Some(live), Some(records)) = (&task.live, records) {
        let newer = match &live.newer {
            Some((copy, entry)) => {
                Some(Library::load(copy, entry)?.create(&task.settings, level::ERROR, board)?)
            }
            None => None,
        };
        let tell = |done: u64, total: u64| {
            let _ = say(&task.nonce, &format!(":{done}/{total}"));
        };
        tell(0, 0);
        rehearsal = Some(rehearse(&library, serving, newer, live, records, tell)?);
    }
    let more = threads().saturating_sub(before);
    if more > 0 {
        return Err(format!(
            "it has {more} threads running after it was loaded; a handler keeps none, as they would outlive it"
        ));
    }
    Ok(Tried { library, offers, rehearsal })
}

/// Prints a line that begins with the nonce.
fn say(nonce: &str, text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    // The candidate may have printed half a line.
    writeln!(out, "\n{nonce}{text}")?;
    out.flush()
}

/// Number of threads of this process.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}
