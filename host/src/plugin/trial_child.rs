//! Trial, in the child process: loads a candidate, builds it from its settings and rehearses
//! it.
//!
//! The order matters. The task and all descriptors are taken first, then the process is
//! confined for good, and only then does code of the candidate run. The report is printed last,
//! so a candidate that ends the process before leaves none. Nothing is cleaned up here: the
//! parent ends the process and its group.

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
///
/// A refusal of the candidate is part of the report. An error here means that there is no
/// report: the task cannot be read, or the process cannot be confined.
pub fn run() -> Result<(), String> {
    // An operator who runs this command by hand has no socket on standard input.
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
    // Before any of the candidate's code runs. Initialisers already run when it is loaded.
    confine(task.cpu_s, task.memory)?;
    let found = tried(&task, board, records.as_ref());
    let report = serde_json::to_string(&found).map_err(|e| e.to_string())?;
    say(&task.nonce, &report).map_err(|e| e.to_string())
}

/// Loads the candidate, builds its services and rehearses them. An error is the reason to
/// refuse it.
fn tried(task: &Task, board: Board, records: Option<&OwnedFd>) -> Result<Tried, String> {
    // Compared at the end: a thread of the candidate would go on in a host that has replaced
    // it.
    let before = threads();
    let candidate = Library::load(&task.copy, &task.entry)?;
    let (library, offers) = candidate.offers()?;
    // Settings that the candidate refuses are refused here. Only errors of its log are wanted.
    let serving = candidate.create(&task.settings, level::ERROR, board)?;
    let mut rehearsal = None;
    if let (Some(live), Some(records)) = (&task.live, records) {
        // For a rollback: the build that is left downgrades the data that it wrote.
        let newer = match &live.newer {
            Some((copy, entry)) => {
                Some(Library::load(copy, entry)?.create(&task.settings, level::ERROR, board)?)
            }
            None => None,
        };
        let tell = |done: u64, total: u64| {
            let _ = say(&task.nonce, &format!(":{done}/{total}"));
        };
        // Tells the parent that the rehearsal begins, so that a crash from here on is described
        // as one in it.
        tell(0, 0);
        // Asked for only if the candidate can't read something.
        let mut live_build = || match &live.serving {
            Some((copy, entry)) => Library::load(copy, entry)?.create(&task.settings, level::ERROR, board),
            None => Err("no build serves".into()),
        };
        rehearsal = Some(rehearse(&library, serving, newer, &mut live_build, live, records, tell)?);
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

/// Number of threads of this process; 0 if /proc cannot be read.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}
