//! Saves of tables and ledger, in time and at the end.
//!
//! A save in time costs the loop a pin and a thread: the thread reads the pinned epoch from the
//! records' memory file. The pin is invalidated if too much changes meanwhile (limit
//! `pin_bytes_max`); such a save is dropped, and the next one is due after the interval. A save at
//! the end runs on the loop's thread.
//!
//! | state | event | becomes |
//! | --- | --- | --- |
//! | planned | Its time has come. | under way: an epoch is pinned, and a thread writes |
//! | under way | The thread is done, and the pin holds. | planned; the file is in its place |
//! | under way | Writing failed, or the pin was lost. | planned; the old file stays |
//! | any | The host stops. | saved at the end |
//!
//! *Invariant*: the file at its path is always whole. A save is written beside it and renamed, so
//! a crash leaves the old file, and perhaps an unfinished one that the next save overwrites.
//!
//! The saved file serves the next host only. A successor in the same host reads the records, which
//! are newer.

use crate::mailbox::Mailbox;
use crate::memory::snapshot::core_at;
use crate::saved_file;
use crate::saved_file::{Saved, Unread};
use greenroom_core::core::Core;
use greenroom_core::limits::host::Limits;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Suffix of the unfinished file of a save at the end. Two writers may overlap, if a host stops
/// during a save in time, so each has a suffix of its own.
const AT_THE_END: &str = "new";
/// Suffix of the unfinished file of a save in time.
const MEANWHILE: &str = "under-way";

/// A save that a thread has finished: the file is written beside its place, and not yet in it.
pub(super) struct SaveEnd {
    /// The epoch that was pinned for the save.
    epoch: u64,
    /// Counts of what was written, or the error.
    written: io::Result<Saved>,
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
    /// Destination of every [`SaveEnd`].
    ends: Mailbox<SaveEnd>,
    /// A thread is writing. One save at a time: the next would overwrite the same unfinished file.
    under_way: bool,
}

impl Saver {
    /// Saves every `every_s` seconds; 0: only at the end. An existing file's age counts, so a
    /// successor goes on with its predecessor's interval, and workers that die often still save.
    pub(super) fn new(path: PathBuf, every_s: u64, region: OwnedFd, ends: Mailbox<SaveEnd>) -> Saver {
        let every = interval(every_s);
        let age = path.metadata().ok().and_then(|m| m.modified().ok()).and_then(|at| at.elapsed().ok());
        let next = every.map(|every| Instant::now() + every.saturating_sub(age.unwrap_or_default()));
        Saver { path, every, next, region, ends, under_way: false }
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
        std::fs::File::open(format!("/proc/self/fd/{}", self.region.as_raw_fd())).map(OwnedFd::from)
    }

    /// Time until the next save is due; `None`: none is planned, or one is under way.
    pub(super) fn sleep_max(&self) -> Option<Duration> {
        self.due_at().map(|at| at.saturating_duration_since(Instant::now()))
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
    /// loop may block. If this fails, the last save in time stays; the error is a sentence.
    pub(super) fn save_at_the_end(&self, core: &Core) -> Result<(), String> {
        let path = &self.path;
        let written = saved_file::write(core, path, AT_THE_END);
        match written.and_then(|saved| saved_file::put_in_place(path, AT_THE_END).map(|()| saved)) {
            Ok(s) => {
                tracing::info!("{} table entries saved to {}", s.entries, path.display());
                Ok(())
            }
            Err(e) => Err(format!("the tables cannot be saved to {}: {e}", path.display())),
        }
    }

    /// Begins a save if one is due: a thread writes a pinned snapshot, and the loop goes on. Runs
    /// between two passes. The thread copies all records to the heap, and posts a [`SaveEnd`].
    pub(super) fn begin_if_due(&mut self, core: &mut Core, limits: &Limits) {
        if self.due_at().is_none_or(|at| Instant::now() < at) {
            return;
        }
        let epoch = core.pin();
        let (path, limits, ends) = (self.path.clone(), limits.clone(), self.ends.clone());
        let begun = self.region.try_clone().and_then(|region| {
            std::thread::Builder::new().name("save".into()).spawn(move || {
                let written = core_at(&region, &limits, epoch)
                    .map_err(io::Error::other)
                    .and_then(|found| saved_file::write(&found.core, &path, MEANWHILE));
                ends.post(SaveEnd { epoch, written });
            })
        });
        // If no thread could be started, the save ends like any other that failed.
        self.under_way = true;
        if let Err(e) = begun {
            self.finish(core, SaveEnd { epoch, written: Err(e) });
        }
    }

    /// Puts a written save in place, unless the snapshot was invalidated meanwhile. The rename is
    /// on the loop's thread, because only the loop knows whether the pin has held. Costs a rename
    /// and a sync of the directory.
    pub(super) fn finish(&mut self, core: &mut Core, end: SaveEnd) {
        let whole = core.unpin(end.epoch);
        self.under_way = false;
        self.next = self.every.map(|every| Instant::now() + every);
        let written = match whole {
            true => end.written,
            false => Err(io::Error::other("too much changed while it was read (limit pin_bytes_max)")),
        };
        match written.and_then(|saved| saved_file::put_in_place(&self.path, MEANWHILE).map(|()| saved)) {
            Ok(s) => tracing::debug!("{} table entries saved to {}", s.entries, self.path.display()),
            Err(e) => tracing::error!("the tables cannot be saved to {}: {e}", self.path.display()),
        }
    }

    /// Time of the next save; `None`: none is planned, or one is under way.
    fn due_at(&self) -> Option<Instant> {
        self.next.filter(|_| !self.under_way)
    }
}

/// Interval of this many seconds; `None` for 0.
fn interval(seconds: u64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds))
}
