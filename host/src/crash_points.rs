//! For the chaos test alone: ends the worker, as `kill -9` does, at a chosen point of its work.
//!
//! `GREENROOM_KILL_PLAN` names a file. Each worker takes its first line off it: a [`Point`]'s name
//! and how often the point is passed before the kill, or `unreconciled`, which leaves out what
//! [`crate::worker`] learns from the kernel when it takes over. Without the variable a point costs
//! one load.

use rustix::process::{Signal, getpid, kill_process};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Point {
    /// A read's owner is noted, nothing is read.
    Noted = 1,
    /// Bytes are read, and the core doesn't know them.
    Read,
    /// Turns have run, nothing of them is committed.
    Ran,
    /// All records of the pass are written, but for the epoch.
    Commit,
    /// The epoch is written, nothing is sent.
    Committed,
    /// Something was sent, and the core doesn't know it.
    Sent,
    /// All was sent, nothing was closed or dropped.
    Flushed,
    /// A pass is over.
    Passed,
    /// A successor has read the records.
    Recovered,
    /// A successor has the connections, and hasn't run anything.
    Reconciled,
    /// A successor has run what its predecessor left, and committed nothing.
    CaughtUp,
    /// A reload's file is staged.
    Staged,
    /// Its candidate was tried and rehearsed.
    Tried,
    /// Its ports are open.
    PortsOpen,
    /// Its code is loaded.
    Loaded,
    /// It is in charge, and nothing of that is committed.
    Adopted,
    /// It is committed, and nobody was told.
    ReloadCommitted,
    /// All were told.
    Reported,
    /// States and tables are put back, and nothing of that is committed.
    PutBack,
    /// The build before is in charge again, and nothing of that is committed.
    RolledBack,
    /// It is committed, and nobody was told.
    RollBackCommitted,
}

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

static ARMED: AtomicU32 = AtomicU32::new(0);
static LEFT: AtomicU64 = AtomicU64::new(0);
static UNRECONCILED: AtomicBool = AtomicBool::new(false);

/// Takes this worker's line off the plan, if there is one.
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

/// The work passes a point.
#[inline]
pub fn pass(point: Point) {
    if ARMED.load(Ordering::Relaxed) == point as u32 {
        armed();
    }
}

#[cold]
fn armed() {
    if LEFT.fetch_sub(1, Ordering::Relaxed) == 0 {
        let _ = kill_process(getpid(), Signal::KILL);
    }
}

/// Whether the kernel is not to be asked.
pub fn unreconciled() -> bool {
    UNRECONCILED.load(Ordering::Relaxed)
}
