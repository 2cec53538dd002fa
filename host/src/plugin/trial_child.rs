//! Trial, in the child process: loads a candidate, builds it from its settings and rehearses
//! it.
//!
//! The order matters. The task and all descriptors are taken first. Then the process goes apart
//! from all others and is confined for good, and only then does code of the candidate run. The
//! report is printed last, so a candidate that ends the process before leaves none. Nothing is
//! cleaned up here: the parent ends the process and its group.
//!
//! | descriptor | is, when the candidate runs |
//! | --- | --- |
//! | 0 | `/dev/null` |
//! | 1, 2 | pipes that the parent reads to a limit |
//! | the records | open for reading alone |
//! | all others | closed |

use crate::memory::board::Board;
use crate::plugin::apart::separate;
use crate::plugin::confine::{confine, leave_no_core};
use crate::plugin::ffi::library::Library;
use crate::plugin::rehearse::rehearse;
use crate::plugin::replay::replay;
use crate::plugin::trial::{Task, TaskOfCandidate, Tried};
use crate::protocol::link::Link;
use crate::sys::fork::close_inherited;
use serde::Serialize;
use std::fs::File;
use std::io::{BufReader, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Time that ended threads have to vanish.
const VANISH_MAX: Duration = Duration::from_millis(200);

/// Runs the child: reads the task, confines the process, tries the candidate, and prints the
/// report.
///
/// A refusal of the candidate is part of the report. An error here means that there is no
/// report: the task cannot be read, or no process can be started.
pub fn run() -> Result<(), String> {
    close_inherited();
    // An operator who runs this command by hand has no socket on standard input.
    let own = |e: &dyn std::fmt::Display| format!("this command is the host's own: {e}");
    let (task, board, files) = take_task().map_err(|e| own(&e))?;
    leave_no_core();
    let namespaces = separate(|why| _ = report(&task, &Err::<Tried, _>(why)))?;
    // Behind the fork, which takes no mapping along. A descriptor would let the file grow.
    let mapped = Board::open(&board).map_err(|e| e.to_string())?;
    drop(board);
    // Before any of the candidate's code runs. Initialisers already run when it is loaded.
    let confined = confine(task.cpu_s, task.memory, namespaces);
    let Some(candidate) = &task.candidate else {
        return report(&task, &Ok::<_, String>(confined));
    };
    let found = match task.confinement.allows(&confined.missing) {
        Ok(()) => tried(&task, candidate, mapped, files),
        Err(why) => Err(why),
    };
    report(&task, &found)
}

/// Memory files that a task may have beside its own and the board.
struct TaskFiles {
    /// Records, of a rehearsal.
    records: Option<OwnedFd>,
    /// Recording, of a replay.
    recording: Option<OwnedFd>,
}

/// Takes the task and its files, and leaves no other descriptor open but the three standard ones.
fn take_task() -> Result<(Task, OwnedFd, TaskFiles), String> {
    let failed = |e: std::io::Error| e.to_string();
    let socket = std::io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
    let Some(((), files)) = Link::<(), ()>::new(socket).wait().map_err(failed)? else {
        return Err("nothing came".into());
    };
    let mut files = files.into_iter();
    let (Some(task), Some(board)) = (files.next(), files.next()) else {
        return Err("no task came".into());
    };
    let mut task = File::from(task);
    task.rewind().map_err(failed)?;
    let task: Task = serde_json::from_reader(BufReader::new(task)).map_err(|e| e.to_string())?;
    let nothing = File::open("/dev/null").map_err(failed)?;
    rustix::stdio::dup2_stdin(&nothing).map_err(|e| failed(e.into()))?;
    let of = task.candidate.as_ref();
    let records = of.filter(|c| c.live.is_some()).and_then(|_| files.next());
    let recording = of.filter(|c| c.replay.is_some()).and_then(|_| files.next());
    Ok((task, board, TaskFiles { records, recording }))
}

/// Prints the report: a finding, or the reason why there is none.
fn report<T: Serialize>(task: &Task, found: &Result<T, String>) -> Result<(), String> {
    let report = serde_json::to_string(found).map_err(|e| e.to_string())?;
    say(&task.nonce, &report).map_err(|e| e.to_string())
}

/// Loads the candidate, builds its services and rehearses them. An error is the reason to
/// refuse it.
fn tried(task: &Task, candidate: &TaskOfCandidate, board: Board, files: TaskFiles) -> Result<Tried, String> {
    let TaskOfCandidate { copy, entry, settings, live, replay: order } = candidate;
    // Compared at the end: a thread of the candidate would go on in a host that has replaced
    // it.
    let before = threads();
    let candidate = Library::load(copy, entry)?;
    let (library, offers) = candidate.offers()?;
    // Settings that the candidate refuses are refused here. Only errors of its log are wanted.
    let serving = candidate.create(settings, board)?;
    let mut rehearsal = None;
    // Made now: a rehearsal takes the services.
    let to_replay = order.as_ref().map(|_| candidate.create(settings, board)).transpose()?;
    if let (Some(live), Some(records)) = (live, &files.records) {
        // For a rollback: the build that is left downgrades the data that it wrote.
        let newer = match &live.newer {
            Some((copy, entry)) => Some(Library::load(copy, entry)?.create(settings, board)?),
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
            Some((copy, entry)) => Library::load(copy, entry)?.create(settings, board),
            None => Err("no build serves".into()),
        };
        rehearsal = Some(rehearse(&library, serving, newer, &mut live_build, live, records, tell)?);
    }
    let mut replayed = None;
    if let (Some(order), Some(serving), Some(recording)) = (order, to_replay, files.recording) {
        let tell = |done: u64| {
            let _ = say(&task.nonce, &format!(":{done}/0"));
        };
        tell(0);
        replayed = Some(replay(&library, serving, order, File::from(recording), tell)?);
    }
    let more = threads_beyond(before);
    if more > 0 {
        return Err(format!(
            "it has {more} threads running after it was loaded; a handler keeps none, as they would outlive it"
        ));
    }
    Ok(Tried { library, offers, rehearsal, replay: replayed })
}

/// Prints a line that begins with the nonce.
fn say(nonce: &str, text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    // The candidate may have printed half a line.
    writeln!(out, "\n{nonce}{text}")?;
    out.flush()
}

/// Number of threads beyond those `before`. A thread that was waited for may take a moment to
/// vanish, so this waits as long as there is one, for at most [`VANISH_MAX`].
fn threads_beyond(before: usize) -> usize {
    let give_up = Instant::now() + VANISH_MAX;
    loop {
        let more = threads().saturating_sub(before);
        if more == 0 || Instant::now() > give_up {
            return more;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Number of threads of this process; 0 if /proc cannot be read.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}
