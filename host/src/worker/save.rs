//! Saves of tables and ledger, in time and at the end.
//!
//! A save in time costs the loop a pin and a thread, and no file: the thread reads the pinned epoch
//! from the records' memory file, record by record. The pin is invalidated if too much changes
//! meanwhile (limit `pin_bytes_max`); such a save is dropped, and the next one is due after the
//! interval. A save at the end runs on the loop's thread.
//!
//! | state | event | becomes |
//! | --- | --- | --- |
//! | planned | Its time has come. | under way: an epoch is pinned, and a thread writes |
//! | under way | All is written, and the pin has held. | under way: put in its place |
//! | under way | The file is in its place. | planned |
//! | under way | A step failed, or the pin was lost. | planned; the old file stays |
//! | any | The host stops. | saved at the end |
//!
//! *Invariant*: the file at its path is always whole, and never older than one that was there. A
//! save is written beside it and renamed, so a crash leaves the old file, and perhaps an unfinished
//! one that the next save overwrites. A save at the end begins with a mark, behind which a thread
//! renames nothing.
//!
//! The saved file serves the next host only. A successor in the same host reads the records, which
//! are newer.

use crate::mailbox::Mailbox;
use crate::saved_file;
use crate::saved_file::{Saved, Unread};
use crate::saved_place;
use crate::sys::proc;
use crate::sys::process_state::give_way;
use crate::worker::keeper_link::KeeperLink;
use greenroom_core::core::Core;
use greenroom_core::limits::host::Limits;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Suffix of the unfinished file of a save at the end. Two writers may overlap, if a host stops
/// during a save in time, so each has a suffix of its own.
const AT_THE_END: &str = "new";
/// Suffix of the unfinished file of a save in time.
const MEANWHILE: &str = "under-way";

/// Time for which a start waits for the age of the last save.
const AGE_WAIT: Duration = Duration::from_millis(100);

/// Name of the saves, as a part of the host that may fail.
const PART: &str = "save";

/// End of a step of a save on its thread.
pub(super) enum SaveStep {
    /// The file is written beside its place, or writing has failed.
    Written {
        /// The epoch that was pinned for the save.
        epoch: u64,
        /// The error, if there is one.
        written: io::Result<()>,
        /// Tells the thread whether the pin has held: the file is put in its place, or dropped.
        held: Sender<bool>,
    },
    /// The file is in its place, or has not got there.
    Placed(io::Result<Saved>),
}

/// Saves on a schedule.
pub(super) struct Saver {
    /// The file that the next host reads.
    path: PathBuf,
    /// Time between two saves; `None`: only at the end.
    every: Option<Duration>,
    /// Time of the next save; `None`: none is planned.
    next: Option<Instant>,
    /// The records' memory file, for readers beside the loop.
    region: OwnedFd,
    /// Destination of every [`SaveStep`].
    steps: Mailbox<SaveStep>,
    /// True once a save at the end has begun. Locked during a rename.
    is_final: Arc<Mutex<bool>>,
    /// Begin of the save that a thread writes. One at a time: the next would overwrite the same
    /// unfinished file.
    begun: Option<Instant>,
    /// `status` says that the save under way takes long.
    is_late: bool,
}

impl Saver {
    /// Saves every `every_s` seconds; 0: only at the end. An existing file's age counts, so a
    /// successor goes on with its predecessor's interval, and workers that die often still save.
    pub(super) fn new(path: PathBuf, every_s: u64, region: OwnedFd, steps: Mailbox<SaveStep>) -> Saver {
        let every = interval(every_s);
        let age = every.and_then(|_| age(&path));
        let next = every.map(|every| Instant::now() + every.saturating_sub(age.unwrap_or_default()));
        Saver { path, every, next, region, steps, is_final: Arc::default(), begun: None, is_late: false }
    }

    /// Saves every `every_s` seconds from now on; 0: only at the end. The same interval as before
    /// changes nothing. A save under way goes on.
    pub(super) fn set_interval(&mut self, every_s: u64) {
        let every = interval(every_s);
        if every != self.every {
            self.next = every.map(|every| Instant::now() + every);
            self.every = every;
        }
    }

    /// Opens the records' memory file for a reader that may not write. Fails if the process is at
    /// its limit of open files.
    pub(super) fn records(&self) -> io::Result<OwnedFd> {
        std::fs::File::open(format!("/proc/self/fd/{}", self.region.as_raw_fd()))
            .map(OwnedFd::from)
            .map_err(proc::explain)
    }

    /// Time until the next save is due, or one under way is late; `None`: neither comes by itself.
    pub(super) fn sleep_max(&self, limits: &Limits) -> Option<Duration> {
        let at = self.due_at().or_else(|| self.late_at(limits));
        at.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Reads the tables and the ledger of an earlier host into an empty core. A damaged file is
    /// kept under another name, and the host starts without it. Fails if the file may be good and
    /// can't be used: a host that started without it would replace it. O(bytes of the file), before
    /// any client is served.
    pub(super) fn read(&self, core: &mut Core) -> Result<(), String> {
        let path = &self.path;
        match saved_file::read(core, path) {
            Ok(None) => {}
            Ok(Some(s)) => tracing::info!(
                "{} table entries and {} lines of the ledger read from {}",
                s.entries,
                s.lines,
                path.display()
            ),
            Err(Unread::Aside(why)) => {
                tracing::error!("the tables of the previous host cannot be read: {why}");
            }
            Err(Unread::Stays(why)) => {
                return Err(format!("the tables of the previous host cannot be used: {why}"));
            }
        }
        Ok(())
    }

    /// Saves on the loop's own thread, for a host that ends. No session is served any more, so the
    /// loop may block. The keeper hears that the save moves, and waits as long as it does. If this
    /// fails, the last save in time stays; the error is a sentence.
    pub(super) fn save_at_the_end(&self, core: &Core, keeper: &mut KeeperLink) -> Result<(), String> {
        // A rename under way is waited for.
        *self.is_final.lock().unwrap_or_else(PoisonError::into_inner) = true;
        save_at_the_end(core, &self.path, || keeper.say_saving())
    }

    /// Begins a save if one is due: a thread writes a pinned snapshot, and the loop goes on. Runs
    /// between two passes.
    pub(super) fn begin_if_due(&mut self, core: &mut Core, keeper: &mut KeeperLink, limits: &Limits) {
        if self.late_at(limits).is_some_and(|at| Instant::now() >= at) {
            self.is_late = true;
            let time = self.begun.map_or(Duration::ZERO, |at| at.elapsed());
            let path = self.path.display();
            let why = format!("a save to {path} has been under way for {} s (limit save_ms)", time.as_secs());
            tracing::warn!("{why}: the disk may hang, and the file is as old as the save before");
            keeper.say_failing(PART, Some(why));
        }
        if self.due_at().is_none_or(|at| Instant::now() < at) {
            return;
        }
        let epoch = core.pin();
        let dropped = core.tables().dropped();
        let (path, limits, steps) = (self.path.clone(), limits.clone(), self.steps.clone());
        let is_final = self.is_final.clone();
        let begun = self.region.try_clone().and_then(|region| {
            std::thread::Builder::new().name("save".into()).spawn(move || {
                give_way();
                let (held, is_held) = channel();
                let at = (epoch, &dropped);
                // Before the first byte: none is wanted below the mount point of a lost disk.
                let written = saved_place::check_lock(&path)
                    .and_then(|()| saved_file::write_at(&region, &limits, at, &path, MEANWHILE));
                let (saved, written) = match written {
                    Ok(saved) => (saved, Ok(())),
                    Err(e) => (Saved::default(), Err(e)),
                };
                steps.post(SaveStep::Written { epoch, written, held });
                if let Some(placed) = place(&path, &is_held, &is_final) {
                    steps.post(SaveStep::Placed(placed.map(|()| saved)));
                }
            })
        });
        // If no thread could be started, the save ends like any other that failed.
        self.begun = Some(Instant::now());
        if let Err(e) = begun {
            core.unpin(epoch);
            self.end(keeper, Err(e));
        }
    }

    /// Goes on with a save whose thread has ended a step. Costs no file: the thread puts a written
    /// save in its place, unless the snapshot was invalidated meanwhile.
    pub(super) fn step(&mut self, core: &mut Core, keeper: &mut KeeperLink, step: SaveStep) {
        match step {
            SaveStep::Written { epoch, written, held } => {
                let whole = core.unpin(epoch);
                let lost = || io::Error::other("too much changed while it was read (limit pin_bytes_max)");
                let result = if whole { written } else { Err(lost()) };
                let _ = held.send(result.is_ok());
                if let Err(e) = result {
                    self.end(keeper, Err(e));
                }
            }
            SaveStep::Placed(placed) => self.end(keeper, placed),
        }
    }

    /// Notes the end of a save, and plans the next one. `status` shows a failure.
    fn end(&mut self, keeper: &mut KeeperLink, ended: io::Result<Saved>) {
        (self.begun, self.is_late) = (None, false);
        self.next = self.every.map(|every| Instant::now() + every);
        let path = self.path.display();
        match ended {
            Ok(s) => {
                tracing::debug!("{} table entries saved to {path}", s.entries);
                keeper.say_failing(PART, None);
            }
            Err(e) => {
                let why = format!("the tables cannot be saved to {path}: {e}");
                tracing::error!("{why}");
                keeper.say_failing(PART, Some(why));
            }
        }
    }

    /// Time of the next save; `None`: none is planned, or one is under way.
    fn due_at(&self) -> Option<Instant> {
        self.next.filter(|_| self.begun.is_none())
    }

    /// Time when the save under way is late, unless that is told.
    fn late_at(&self, limits: &Limits) -> Option<Instant> {
        self.begun.filter(|_| !self.is_late).map(|at| at + Duration::from_millis(limits.save_ms))
    }
}

/// Time since a file was written. `None`: there is none, or its disk does not say so at once: no
/// start waits for it.
fn age(path: &Path) -> Option<Duration> {
    let (answer, answered) = channel();
    let path = path.to_owned();
    let ask = move || answer.send(path.metadata().and_then(|m| m.modified()).ok());
    std::thread::Builder::new().name("save age".into()).spawn(ask).ok()?;
    answered.recv_timeout(AGE_WAIT).ok().flatten()?.elapsed().ok()
}

/// Puts a written save in its place, if its snapshot has held, and no save at the end has begun.
/// `None`: it has not. Runs on the save's thread.
fn place(path: &Path, is_held: &Receiver<bool>, is_final: &Mutex<bool>) -> Option<io::Result<()>> {
    // Without a sender the loop has ended.
    let holds = is_held.recv().unwrap_or(false);
    // Before the lock of the end, which must not wait for the keeper.
    if holds && let Err(e) = saved_place::check_lock(path) {
        saved_place::discard(path, MEANWHILE);
        return Some(Err(e));
    }
    let is_final = is_final.lock().unwrap_or_else(PoisonError::into_inner);
    if !holds || *is_final {
        saved_place::discard(path, MEANWHILE);
        return None;
    }
    let renamed = saved_place::put_in_place(path, MEANWHILE);
    drop(is_final);
    Some(renamed.and_then(|()| saved_place::sync_place(path)))
}

/// Interval of this many seconds; `None` for 0.
fn interval(seconds: u64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds))
}
/// Saves tables and ledger of a host that ends. No save in time may be renamed meanwhile. `moved`
/// is called at the beginning, and whenever a part has reached the disk. The error is a sentence.
pub(super) fn save_at_the_end(core: &Core, path: &Path, mut moved: impl FnMut()) -> Result<(), String> {
    let begun = Instant::now();
    tracing::info!("saving the tables to {}", path.display());
    moved();
    // A save in time that is under way, or died with its worker, takes room on the disk.
    saved_place::discard(path, MEANWHILE);
    let written = saved_file::write(core, path, AT_THE_END, &mut moved);
    let placed = written.and_then(|saved| {
        saved_place::check_lock(path)
            .map_err(|e| io::Error::other(format!("{e}; {}", saved_place::keep_aside(path, AT_THE_END))))?;
        saved_place::put_in_place(path, AT_THE_END)?;
        moved();
        saved_place::sync_place(path).map(|()| saved)
    });
    match placed {
        Ok(s) => {
            let (entries, time) = (s.entries, begun.elapsed());
            tracing::info!("{entries} table entries saved to {} in {time:.1?}", path.display());
            Ok(())
        }
        Err(e) => Err(format!("the tables cannot be saved to {}: {e}", path.display())),
    }
}
