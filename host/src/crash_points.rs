//! Crash points: places at which the chaos test ends a worker, as `kill -9` does.
//!
//! `GREENROOM_KILL_PLAN` names a file. Each worker removes the first line of that file when it
//! starts. The line holds the name of a [`Point`] and how often the point is passed before the
//! kill. The name `unreconciled` kills nothing: the takeover then leaves out the kernel's byte
//! counts.
//!
//! Without the variable a point costs one relaxed load and one comparison, so points stay in
//! release builds. The test kills the binary that operators run. A signal and not an abort ends
//! the process: nothing is flushed and no destructor runs.
//!
//! | stretch | points, in their order |
//! | --- | --- |
//! | pass | noted, read, ran, commit, committed, sent, flushed, passed |
//! | takeover | recovered, reconciled, caught-up |
//! | reload | staged, tried, ports-open, loaded, adopted, reload-committed, reported |
//! | operator restore | put-back |
//! | rollback | rolled-back, roll-back-committed |

use rustix::process::{Signal, getpid, kill_process};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Crash point. The text says what has happened when the work passes the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Point {
    /// A read's owner and offset are noted, and nothing is read.
    Noted = 1,
    /// Bytes are read, and the core does not know them.
    Read,
    /// Turns have run, and nothing of them is committed.
    Ran,
    /// All records of the pass are written, without the epoch.
    Commit,
    /// The epoch is written, nothing is sent.
    Committed,
    /// Output was sent, and the core does not know it.
    Sent,
    /// Commands of the pass are carried out and its output was sent; the drivers have not run.
    Flushed,
    /// A pass is over.
    Passed,
    /// A successor has read the records, or a first worker found none.
    Recovered,
    /// A successor has the connections, and has not run any turn.
    Reconciled,
    /// A successor has run what its predecessor left, and committed nothing.
    CaughtUp,
    /// A reload's file is staged.
    Staged,
    /// A reload's candidate was tried and rehearsed.
    Tried,
    /// A reload's ports are open.
    PortsOpen,
    /// A reload's code is loaded.
    Loaded,
    /// A reload's build is in charge, and nothing of the reload is committed.
    Adopted,
    /// A reload is committed, and neither the keeper nor its requester was told.
    ReloadCommitted,
    /// A reload's requesters were told, and the pause is committed.
    Reported,
    /// An operator restore and its ledger line are written, and nothing of them is committed.
    PutBack,
    /// A rollback has put the previous build in charge, and nothing of that is committed.
    RolledBack,
    /// A rollback is committed, and nobody was told.
    RollBackCommitted,
}

/// Points by their names in a kill plan.
const ALL: [(&str, Point); 21] = [
    ("rolled-back", Point::RolledBack),
    ("roll-back-committed", Point::RollBackCommitted),
    ("staged", Point::Staged),
    ("tried", Point::Tried),
    ("ports-open", Point::PortsOpen),
    ("loaded", Point::Loaded),
    ("adopted", Point::Adopted),
    ("reload-committed", Point::ReloadCommitted),
    ("reported", Point::Reported),
    ("put-back", Point::PutBack),
    ("noted", Point::Noted),
    ("read", Point::Read),
    ("ran", Point::Ran),
    ("commit", Point::Commit),
    ("committed", Point::Committed),
    ("sent", Point::Sent),
    ("flushed", Point::Flushed),
    ("passed", Point::Passed),
    ("recovered", Point::Recovered),
    ("reconciled", Point::Reconciled),
    ("caught-up", Point::CaughtUp),
];

/// Number of the armed point; 0: none, and no point has this number.
static ARMED: AtomicU32 = AtomicU32::new(0);
/// Number of times that the armed point is still passed before the kill.
static LEFT: AtomicU64 = AtomicU64::new(0);
/// Whether the kill plan's line was `unreconciled`.
static UNRECONCILED: AtomicBool = AtomicBool::new(false);

/// Takes this worker's line off the kill plan, if there is one.
///
/// Called once, at the start of a worker. The rest of the plan is written before the point is
/// armed: a successor takes the next line, not the same one again. If the plan cannot be
/// written, nothing is armed.
pub fn arm() {
    let Some(path) = std::env::var_os("GREENROOM_KILL_PLAN") else { return };
    let Ok(plan) = std::fs::read_to_string(&path) else { return };
    let (line, rest) = plan.split_once('\n').unwrap_or((&plan, ""));
    if let Err(e) = std::fs::write(&path, rest) {
        return tracing::error!("kill plan: {e}");
    }
    let mut words = line.split_whitespace();
    let name = words.next().unwrap_or_default();
    UNRECONCILED.store(name == "unreconciled", Ordering::Relaxed);
    if let Some((_, point)) = ALL.iter().find(|(n, _)| *n == name) {
        LEFT.store(words.next().and_then(|n| n.parse().ok()).unwrap_or(0), Ordering::Relaxed);
        ARMED.store(*point as u32, Ordering::Relaxed);
    }
}

/// Ends the process if this point is armed and its count is used up; else does nothing.
#[inline]
pub fn pass(point: Point) {
    if ARMED.load(Ordering::Relaxed) == point as u32 {
        armed();
    }
}

/// Counts an armed point down, and ends the process at zero. Stays out of line: callers pay
/// only for the comparison.
#[cold]
fn armed() {
    if LEFT.fetch_sub(1, Ordering::Relaxed) == 0 {
        let _ = kill_process(getpid(), Signal::KILL);
    }
}

/// Whether a takeover believes the records instead of the kernel's byte counts.
pub fn unreconciled() -> bool {
    UNRECONCILED.load(Ordering::Relaxed)
}
