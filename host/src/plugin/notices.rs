//! Notices of changes from the system: inotify, as far as the system has it.
//!
//! Directories are watched, not files: a file that replaces another one has no watch of its own.
//! The system may have no instance or no watch left. Then there is a reason instead, and the slow
//! look finds the changes. Each call of [`Notices::follow`] tries again.

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;

/// Source of events.
pub struct Notices {
    /// Sends events to the watching thread. The channel has no bound, so none is dropped here.
    sender: Sender<notify::Result<Event>>,
    /// `None`: the system gave none.
    watcher: Option<RecommendedWatcher>,
    /// Directories that are watched, with the inode of each.
    dirs: BTreeMap<PathBuf, u64>,
}

impl Notices {
    /// Makes a source that watches nothing yet.
    pub fn new(sender: Sender<notify::Result<Event>>) -> Notices {
        Notices { sender, watcher: None, dirs: BTreeMap::new() }
    }

    /// Watches exactly these directories, those of them that are there. Returns the reason why some
    /// are not watched; `None`: all are. One stat for each directory.
    pub fn follow(&mut self, wanted: &BTreeSet<PathBuf>) -> Option<String> {
        if self.watcher.is_none() {
            let sender = self.sender.clone();
            let made = notify::recommended_watcher(move |event| {
                let _ = sender.send(event);
            });
            match made {
                Ok(watcher) => self.watcher = Some(watcher),
                Err(e) => return Some(e.to_string()),
            }
        }
        let watcher = self.watcher.as_mut()?;
        let inode = |dir: &Path| std::fs::metadata(dir).ok().filter(|m| m.is_dir()).map(|m| m.ino());
        self.dirs.retain(|dir, watched| {
            let stays = wanted.contains(dir) && inode(dir) == Some(*watched);
            if !stays {
                // An error means that no watch is left, which is as good.
                let _ = watcher.unwatch(dir);
            }
            stays
        });
        let mut reason = None;
        for dir in wanted {
            let Some(now) = inode(dir).filter(|_| !self.dirs.contains_key(dir)) else { continue };
            match watcher.watch(dir, RecursiveMode::NonRecursive) {
                Ok(()) => _ = self.dirs.insert(dir.clone(), now),
                // Gone since the stat.
                Err(_) if inode(dir).is_none() => {}
                Err(e) => reason = Some(format!("{}: {e}", dir.display())),
            }
        }
        reason
    }

    /// Takes a directory that was removed or renamed as not watched. A new directory may get the
    /// old one's inode, and would then pass for the watched one.
    pub(super) fn lost(&mut self, path: &Path) {
        if let Some((dir, _)) = self.dirs.remove_entry(path)
            && let Some(watcher) = &mut self.watcher
        {
            let _ = watcher.unwatch(&dir);
        }
    }
}
