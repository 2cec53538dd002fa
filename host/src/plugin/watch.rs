//! Watch over the directories of libraries: reports each path whose file changed.
//!
//! Directories are watched, not files. Cargo and editors put a new file in the old one's place,
//! so a watch on the file itself would follow the old one.
//!
//! Events are only a hint that something happened to a path. A path that was quiet for
//! [`QUIET`] is reported once; the reader of the file finds out whether its content is new. If
//! events were lost, all files count as changed, so no change is missed for good. A directory
//! that was removed (`cargo clean`) is watched again within 2 s of its return, and its files
//! count as changed.
//!
//! The thread runs in the keeper, and needs no worker. A path that a compiler writes on and on
//! is reported when it pauses.

use crate::plugin::stage::QUIET;
use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// Time between two checks that the watched directories are still the same.
const CHECK: Duration = Duration::from_secs(1);

/// Watches directories, and calls `changed`, on a thread of its own, with each path in them
/// that changed and is quiet since. Lives as long as the process. A directory that is not there
/// yet is no error; one that can't be watched is.
pub fn start(dirs: Vec<PathBuf>, changed: impl Fn(PathBuf) + Send + 'static) -> Result<(), String> {
    let (sender, events) = channel();
    let watcher = new_watcher(sender).map_err(|e| format!("files can't be watched: {e}"))?;
    let mut watch = Watch { watcher, dirs: BTreeMap::new(), pending: HashMap::new() };
    for dir in dirs {
        watch.dirs.insert(dir, None);
    }
    for (dir, result) in watch.check() {
        result.map_err(|e| format!("{} can't be watched: {e}", dir.display()))?;
    }
    // Files that are there already have not changed.
    watch.pending.clear();
    std::thread::Builder::new()
        .name("watch".into())
        .spawn(move || watch.run(&events, changed))
        .map(|_| ())
        .map_err(|e| format!("files can't be watched: {e}"))
}

/// Watcher that sends its events to a channel. The channel has no bound, so no event is dropped
/// here.
fn new_watcher(sender: Sender<notify::Result<Event>>) -> notify::Result<RecommendedWatcher> {
    notify::recommended_watcher(move |event| {
        let _ = sender.send(event);
    })
}

/// State of the watching thread.
struct Watch {
    /// Watcher, which holds the sender of the events.
    watcher: RecommendedWatcher,
    /// Directories, with the inode that is watched; `None`: not there, or not watched.
    dirs: BTreeMap<PathBuf, Option<u64>>,
    /// Paths that changed and were not reported, with the time of their last event.
    pending: HashMap<PathBuf, Instant>,
}

impl Watch {
    /// Collects events, and reports each path once it is quiet. Returns only if the events end.
    fn run(mut self, events: &Receiver<notify::Result<Event>>, changed: impl Fn(PathBuf)) {
        let mut checked = Instant::now();
        loop {
            // While a path is pending, the wait is short: a path is reported about 50 ms after
            // it is quiet, at the latest.
            let wait = if self.pending.is_empty() { CHECK } else { QUIET / 3 };
            match events.recv_timeout(wait) {
                Ok(Ok(event)) => self.heard(event),
                Ok(Err(e)) => {
                    tracing::warn!("watching files: {e}; looking at all of them");
                    self.look_at_all();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // Asked after each event: a steady stream of events keeps the wait from timing out.
            if checked.elapsed() >= CHECK {
                checked = Instant::now();
                for (dir, result) in self.check() {
                    match result {
                        Ok(()) => tracing::info!("watching {} again", dir.display()),
                        Err(e) => tracing::warn!("{} can't be watched: {e}", dir.display()),
                    }
                }
            }
            let quiet: Vec<_> =
                self.pending.iter().filter(|(_, at)| at.elapsed() >= QUIET).map(|(p, _)| p.clone()).collect();
            for path in quiet {
                self.pending.remove(&path);
                changed(path);
            }
        }
    }

    /// Notes the paths of an event, and the time.
    fn heard(&mut self, event: Event) {
        if event.need_rescan() {
            return self.look_at_all();
        }
        match event.kind {
            // A read is an event too. The reader of a file would be called again by its own
            // read, for ever.
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
            EventKind::Access(_) => return,
            _ => {}
        }
        for path in event.paths {
            if event.kind.is_remove()
                && let Some(watched) = self.dirs.get_mut(&path)
            {
                // A new directory may get the old one's inode, and would then pass for the
                // watched one.
                *watched = None;
            }
            self.pending.insert(path, Instant::now());
        }
    }

    /// Takes each file in the watched directories as changed.
    fn look_at_all(&mut self) {
        for dir in self.dirs.keys().cloned().collect::<Vec<_>>() {
            self.look_at(&dir);
        }
    }

    /// Takes each file in a directory as changed.
    fn look_at(&mut self, dir: &Path) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            self.pending.insert(entry.path(), Instant::now());
        }
    }

    /// Watches the directories that are new or were replaced, and returns the outcome for each.
    /// Their files count as changed: what happened before the watch began is unknown.
    fn check(&mut self) -> Vec<(PathBuf, notify::Result<()>)> {
        let mut done = Vec::new();
        for (dir, watched) in self.dirs.clone() {
            let now = std::fs::metadata(&dir).ok().filter(|m| m.is_dir()).map(|m| m.ino());
            if now == watched {
                continue;
            }
            if watched.is_some() {
                // An error means that no watch is left, which is as good.
                let _ = self.watcher.unwatch(&dir);
            }
            let mut watched = now;
            if now.is_some() {
                let result = self.watcher.watch(&dir, RecursiveMode::NonRecursive);
                watched = watched.filter(|_| result.is_ok());
                done.push((dir.clone(), result));
                self.look_at(&dir);
            }
            self.dirs.insert(dir, watched);
        }
        done
    }
}
