//! Watch over files of libraries and of the configuration: reports each that changed, and what it
//! holds.
//!
//! A file changes in two ways: somebody writes it, or its path leads to another file. So a path is
//! looked up anew each time, through all links. Two sources find a change:
//!
//! | source | finds | after |
//! | --- | --- | --- |
//! | `notices` of the system | changes of entries that `lookups` names | at once |
//! | a look at each file | all else: another name of the file, a network file system | 2 s |
//!
//! Both are only hints. A path that was quiet for [`QUIET`] is reported once; the reader of the
//! file finds out whether its content is new. If events were lost, all files count as changed, so
//! no change is missed for good. A path that a compiler writes on and on is reported when it
//! pauses.
//!
//! The thread runs in the keeper, and needs no worker. A look costs a stat for each file and a
//! few calls for each path. A report reads the file once, for its hash, or for the values of a
//! configuration. One that cannot be used is read at each look: the fault may be in another file.

use crate::config::source::ConfigSource;
use crate::config::{Config, is_text};
use crate::plugin::lookups::deciding_entries;
use crate::plugin::notices::Notices;
use crate::plugin::stage::{QUIET, hash_of};
use crate::protocol::found::Found;
use notify::Event;
use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two looks at all files.
const LOOK: Duration = Duration::from_secs(2);
/// Time between two looks that events ask for.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Files that settings name. The keeper changes them with the configuration in force.
pub type SettingsFiles = Arc<Mutex<BTreeSet<PathBuf>>>;

/// Files of the configuration.
pub struct ConfigFiles {
    /// The configuration itself.
    pub source: ConfigSource,
    /// Files that its settings name.
    pub settings: SettingsFiles,
}

/// News of the watched files.
#[derive(Debug)]
pub enum WatchNews {
    /// This library's file changed, and is quiet since.
    Changed(PathBuf),
    /// A file that settings name changed, and is quiet since.
    Settings,
    /// The library's file has this hash, or can't be read for this reason.
    Holds(PathBuf, Result<String, String>),
    /// The file that settings name has this hash, or can't be read for this reason.
    HoldsSettings(PathBuf, Result<String, String>),
    /// The configuration's file holds this, or can't be used for this reason.
    HoldsConfig(Box<Result<Config, String>>),
    /// The system gives no notice of changes, for this reason; `None`: it does again.
    Slow(Option<String>),
}

/// Watches the files of libraries, and of all libraries that appear in directories. Calls `tell`
/// on a thread of its own, which lives as long as the process. What is not there yet is no error.
/// Fails if the system has no thread to give.
pub fn start(
    found: &Found,
    config: ConfigFiles,
    tell: impl Fn(WatchNews) + Send + 'static,
) -> Result<(), String> {
    let (sender, events) = channel();
    let mut watch = Watch {
        libraries: found.libraries.iter().map(|(path, _)| path.clone()).collect(),
        directories: found.directories.clone(),
        settings: config.settings,
        source: config.source,
        unusable: None,
        notices: Notices::new(sender),
        slow: None,
        files: BTreeMap::new(),
        entries: HashMap::new(),
        listed: HashMap::new(),
        pending: HashMap::new(),
        looked: Instant::now(),
        due: false,
        unnamed: BTreeSet::new(),
    };
    watch.look(&tell);
    // Files that are there already have not changed.
    watch.pending.clear();
    std::thread::Builder::new()
        .name("watch".into())
        .spawn(move || watch.run(&events, tell))
        .map(|_| ())
        .map_err(|e| format!("files can't be watched: {e}"))
}

/// Mark of a file, which differs once the file was written or is another one: device, inode, size,
/// and the times of the last write and the last change, in nanoseconds. `None`: no file.
type Mark = Option<(u64, u64, u64, i64, i64)>;

/// State of the watching thread.
struct Watch {
    /// Libraries that were named, or found when the host started.
    libraries: BTreeSet<PathBuf>,
    /// Directories whose libraries count.
    directories: Vec<PathBuf>,
    /// Files that settings name.
    settings: SettingsFiles,
    /// The configuration.
    source: ConfigSource,
    /// Reason why the configuration's file can't be used, as it was told.
    unusable: Option<String>,
    notices: Notices,
    /// Reason why the system gives no notice, as it was told.
    slow: Option<String>,
    /// Files as the last look found them.
    files: BTreeMap<PathBuf, Mark>,
    /// Files that each entry decides on.
    entries: HashMap<PathBuf, BTreeSet<PathBuf>>,
    /// Directories under the paths that events name, with the path that was given.
    listed: HashMap<PathBuf, PathBuf>,
    /// Files that changed and were not reported, with the time of their last change.
    pending: HashMap<PathBuf, Instant>,
    /// Time of the last look.
    looked: Instant,
    /// A look is due before its time: links or directories may have changed.
    due: bool,
    /// Files that were left out, since no message can hold their paths.
    unnamed: BTreeSet<PathBuf>,
}

impl Watch {
    /// Collects events, and reports each file once it is quiet. Returns only if the events end.
    fn run(mut self, events: &Receiver<notify::Result<Event>>, tell: impl Fn(WatchNews)) {
        for path in self.files.keys().filter(|path| !self.is_config(path)) {
            tell(self.holds(path));
        }
        if self.source.path.is_some() {
            // The file may have changed since the host has read it.
            self.read_config(&tell);
        }
        loop {
            // While a file is pending, the wait is short: a file is reported about 50 ms after it
            // is quiet, at the latest.
            let wait = match self.pending.is_empty() && !self.due {
                true => LOOK.saturating_sub(self.looked.elapsed()),
                false => LOOK_AGAIN,
            };
            match events.recv_timeout(wait) {
                Ok(Ok(event)) => self.heard(event),
                Ok(Err(e)) => {
                    tracing::warn!("watching files: {e}; looking at all of them");
                    self.take_all_as_changed();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // Asked after each event: a steady stream of events keeps the wait from timing out.
            let pause = if self.due { LOOK_AGAIN } else { LOOK };
            if self.looked.elapsed() >= pause {
                self.look(&tell);
                if self.unusable.is_some() {
                    self.read_config(&tell);
                }
            }
            for path in self.take_quiet() {
                if self.is_config(&path) {
                    self.read_config(&tell);
                    continue;
                }
                tell(match self.is_of_settings(&path) {
                    true => WatchNews::Settings,
                    false => WatchNews::Changed(path.clone()),
                });
                tell(self.holds(&path));
            }
        }
    }

    /// Notes the files that an event is about.
    fn heard(&mut self, event: Event) {
        if event.need_rescan() {
            return self.take_all_as_changed();
        }
        match event.kind {
            // A read is an event too. The reader of a file would be called again by its own
            // read, for ever.
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
            EventKind::Access(_) => return,
            _ => {}
        }
        let moved = event.kind.is_remove() || matches!(event.kind, EventKind::Modify(ModifyKind::Name(_)));
        for path in event.paths {
            if moved {
                self.notices.lost(&path);
            }
            if let Some(files) = self.entries.get(&path) {
                self.due = true;
                self.pending.extend(files.iter().map(|file| (file.clone(), Instant::now())));
            }
            let listed = path.parent().and_then(|dir| self.listed.get(dir)).zip(path.file_name());
            if let Some((dir, name)) = listed
                && is_library(&path)
                && path.to_str().is_some()
            {
                self.due = true;
                self.pending.insert(dir.join(name), Instant::now());
            }
        }
    }

    /// Takes each file as changed: events were lost.
    fn take_all_as_changed(&mut self) {
        self.due = true;
        self.pending.extend(self.files.keys().map(|file| (file.clone(), Instant::now())));
    }

    /// Takes the files that are quiet. A file that is still written, as its mark tells, waits on.
    fn take_quiet(&mut self) -> Vec<PathBuf> {
        let (files, mut quiet) = (&mut self.files, Vec::new());
        self.pending.retain(|path, at| {
            let (now, before) = (mark_of(path), files.get(path).copied().flatten());
            if now != before {
                files.insert(path.clone(), now);
                *at = Instant::now();
            }
            let stays = at.elapsed() < QUIET;
            if !stays {
                quiet.push(path.clone());
            }
            stays
        });
        quiet
    }

    /// Looks each path up anew, follows it with the notices, and takes a file whose mark differs as
    /// changed. Before the marks are read, the watch stands: no change falls in between.
    fn look(&mut self, tell: &impl Fn(WatchNews)) {
        (self.looked, self.due) = (Instant::now(), false);
        self.entries.clear();
        self.listed.clear();
        let mut paths = self.libraries.clone();
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        paths.extend(settings.iter().chain(&self.source.path).cloned());
        paths.extend(self.files.keys().cloned());
        for dir in &self.directories {
            for entry in deciding_entries(dir) {
                self.entries.entry(entry).or_default();
            }
            // Events name the directory without its links.
            if let Some(real) = deciding_entries(dir).pop() {
                self.listed.insert(real, dir.clone());
            }
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                let path = entry.path();
                match is_text(&path) {
                    _ if !is_library(&path) => {}
                    Ok(()) => _ = paths.insert(path),
                    Err(why) if self.unnamed.insert(path) => tracing::warn!("{why}; it is left out"),
                    Err(_) => {}
                }
            }
        }
        for path in &paths {
            for entry in deciding_entries(path) {
                self.entries.entry(entry).or_default().insert(path.clone());
            }
        }
        let parents = self.entries.keys().filter_map(|entry| entry.parent()).map(Path::to_path_buf);
        self.follow(&parents.chain(self.listed.keys().cloned()).collect(), tell);
        for path in paths {
            let (now, before) = (mark_of(&path), self.files.get(&path).copied().flatten());
            if now != before {
                self.pending.insert(path.clone(), Instant::now());
            }
            // A file that is gone from a directory is forgotten once that was reported.
            let stays = self.libraries.contains(&path) || settings.contains(&path) || self.is_config(&path);
            match now.is_some() || before.is_some() || stays {
                true => _ = self.files.insert(path, now),
                false => _ = self.files.remove(&path),
            }
        }
    }

    /// News of what a file of a library or of settings holds.
    fn holds(&self, path: &Path) -> WatchNews {
        let news = if self.is_of_settings(path) { WatchNews::HoldsSettings } else { WatchNews::Holds };
        news(path.to_path_buf(), hash_of(path))
    }

    /// Reads the configuration, and tells what it holds. The same fault is told once.
    fn read_config(&mut self, tell: &impl Fn(WatchNews)) {
        let read = self.source.read().map(|config| config.without_hashes());
        let unusable = read.as_ref().err().cloned();
        if unusable.is_none() || unusable != self.unusable {
            tell(WatchNews::HoldsConfig(Box::new(read)));
        }
        self.unusable = unusable;
    }

    /// Whether a file is the configuration.
    fn is_config(&self, path: &Path) -> bool {
        self.source.path.as_deref() == Some(path)
    }

    /// Whether a file is one that settings name.
    fn is_of_settings(&self, path: &Path) -> bool {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).contains(path)
    }

    /// Has the notices follow these directories. A reason that is new is told and logged once.
    fn follow(&mut self, dirs: &BTreeSet<PathBuf>, tell: &impl Fn(WatchNews)) {
        let slow = self.notices.follow(dirs);
        if slow == self.slow {
            return;
        }
        match &slow {
            Some(why) => tracing::warn!(
                "the system gives no notice of changed files ({why}); they are looked at every {} s",
                LOOK.as_secs()
            ),
            None => tracing::info!("the system gives notice of changed files again"),
        }
        self.slow = slow.clone();
        tell(WatchNews::Slow(slow));
    }
}

/// Mark of the file that a path leads to now.
fn mark_of(path: &Path) -> Mark {
    const NANOS: i64 = 1_000_000_000;
    let m = std::fs::metadata(path).ok()?;
    let written = m.mtime().wrapping_mul(NANOS).wrapping_add(m.mtime_nsec());
    let changed = m.ctime().wrapping_mul(NANOS).wrapping_add(m.ctime_nsec());
    Some((m.dev(), m.ino(), m.len(), written, changed))
}

/// Whether a file in a directory has the name of a library.
fn is_library(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "so")
}
