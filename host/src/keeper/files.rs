//! Files of libraries and of the configuration: `status` names those that differ from what runs,
//! or is in force.
//!
//! The watching thread says what a file holds, and the worker which build of it runs and what it
//! refused. Both are kept while no worker lives. A library whose file was never refused and whose
//! build never ran is none of this host's: it may be any library beside handlers.

use crate::config::Config;
use crate::plugin::watch::{SettingsFiles, WatchNews};
use crate::protocol::status::{ConfigFileStatus, FileStatus};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Files of libraries, by their watched paths.
#[derive(Default)]
pub(super) struct LibraryFiles {
    files: BTreeMap<PathBuf, LibraryFile>,
    /// Reason why the system gives no notice of changes.
    slow: Option<String>,
    /// Files that settings name, shared with the thread that watches.
    settings: SettingsFiles,
    /// Hashes of those files, or reasons why they can't be read, with the times of the news.
    settings_hold: BTreeMap<PathBuf, Told<String>>,
    /// Content of the configuration's file. `None`: not told yet.
    config_holds: Option<Told<Config>>,
}

/// Content of a file, or the reason why it can't be used, and when that was told.
type Told<T> = (Result<T, String>, Instant);

/// A library's file.
#[derive(Default)]
struct LibraryFile {
    /// Hash of the content, or the reason why it cannot be read. `None`: not known yet.
    holds: Option<Result<String, String>>,
    /// Name of the library, and hash of its build.
    runs: Option<(String, String)>,
    /// Refusal of the file, the last one.
    refused: Option<Refusal>,
}

/// Refusal of a file.
struct Refusal {
    /// Hash of the content; empty: it was not read.
    build: String,
    reason: String,
    at: Instant,
}

/// Time after which the watch has told what a file holds. It looks every two seconds.
const TOLD_AFTER: Duration = Duration::from_secs(3);

impl LibraryFiles {
    /// Notes news of the watch, as far as `status` tells of them.
    pub(super) fn hear(&mut self, news: WatchNews) {
        match news {
            WatchNews::Changed(_) | WatchNews::Settings => {}
            WatchNews::Holds(path, holds) => self.holds(path, holds),
            WatchNews::HoldsSettings(path, holds) => {
                _ = self.settings_hold.insert(path, (holds, Instant::now()));
            }
            WatchNews::HoldsConfig(holds) => self.config_holds = Some((*holds, Instant::now())),
            WatchNews::Slow(why) => self.slow = why,
        }
    }

    /// Notes what a file holds now. An earlier refusal without a hash was that of the content
    /// before. A refusal of this moment may be that of this content: an operator asked before the
    /// watch told.
    fn holds(&mut self, path: PathBuf, holds: Result<String, String>) {
        let file = self.files.entry(path).or_default();
        let known = file.holds.replace(holds);
        if known.is_some() && known != file.holds {
            file.refused.take_if(|r| r.build.is_empty() && r.at.elapsed() > TOLD_AFTER);
        }
    }

    /// Notes the build that runs. What was refused before is in the past. True: it is another build
    /// than before.
    pub(super) fn runs(&mut self, path: PathBuf, library: String, build: String) -> bool {
        let file = self.files.entry(path).or_default();
        let is_new = file.runs.as_ref().is_none_or(|(_, before)| *before != build);
        // A refusal of other content stays: the file may hold that again, or still.
        file.refused.take_if(|r| is_new && (r.build.is_empty() || r.build == build));
        file.runs = Some((library, build));
        is_new
    }

    /// Name of the library that a file is of, as of the build that runs.
    pub(super) fn library(&self, path: &Path) -> Option<&str> {
        self.files.get(path)?.runs.as_ref().map(|(library, _)| library.as_str())
    }

    /// Notes that a file was refused.
    pub(super) fn refused(&mut self, path: PathBuf, build: String, reason: String) {
        let refusal = Refusal { build, reason, at: Instant::now() };
        self.files.entry(path).or_default().refused = Some(refusal);
    }

    /// Files that settings name, for the thread that watches.
    pub(super) fn settings(&self) -> SettingsFiles {
        self.settings.clone()
    }

    /// Has these files watched for changes of settings, and no others.
    pub(super) fn watch_settings(&self, files: BTreeSet<PathBuf>) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = files;
    }

    /// Reason why the system gives no notice of changes; `None`: it does.
    pub(super) fn slow_look(&self) -> Option<String> {
        self.slow.clone()
    }

    /// Files that are not the build that runs. `is_canary`: whether a build runs as a canary.
    /// O(files).
    pub(super) fn differing(&self, is_canary: impl Fn(&str) -> bool) -> Vec<FileStatus> {
        let mut all: Vec<_> =
            self.files.iter().filter_map(|(path, file)| file.status(path.clone())).collect();
        all.iter_mut().for_each(|file| file.is_canary = file.build.as_deref().is_some_and(&is_canary));
        all
    }

    /// Files of the configuration that hold something else than is in force. `path`: the
    /// configuration's own. `refused`: reason and time of the last refusal of a configuration.
    /// O(values).
    pub(super) fn not_in_force(
        &self,
        in_force: &Config,
        path: Option<&Path>,
        refused: Option<(&str, Instant)>,
    ) -> Vec<ConfigFileStatus> {
        // A refusal a moment before the news may be that of this content: an operator asked before
        // the watch told.
        let reason = |told: &Instant| {
            refused.filter(|(_, at)| *at + TOLD_AFTER >= *told).map(|(why, _)| why.to_owned())
        };
        let of_config = path.zip(self.config_holds.as_ref()).and_then(|(path, (holds, at))| {
            let (values, reason) = match holds {
                Err(why) => (Vec::new(), Some(why.clone())),
                Ok(config) => match in_force.without_hashes().changes(config) {
                    (fixed, live) if fixed.is_empty() && live.is_empty() => return None,
                    (fixed, live) => ([fixed, live].concat(), reason(at)),
                },
            };
            Some(ConfigFileStatus { path: path.into(), is_of_settings: false, values, reason })
        });
        let of_settings = in_force.hashes_of_files().into_iter().filter_map(|(path, in_force)| {
            let (holds, at) = self.settings_hold.get(&path)?;
            let reason = match holds {
                Ok(hash) if *hash == in_force => return None,
                Ok(_) => reason(at),
                Err(why) => Some(why.clone()),
            };
            Some(ConfigFileStatus { path, is_of_settings: true, values: Vec::new(), reason })
        });
        of_config.into_iter().chain(of_settings).collect()
    }
}

impl LibraryFile {
    /// Status of the file; `None`: it is the build that runs, or nothing is known of it.
    fn status(&self, path: PathBuf) -> Option<FileStatus> {
        let (library, runs) = self.runs.clone().unzip();
        let refused = self.refused.as_ref();
        let of = |hash: &str| refused.filter(|r| r.build.is_empty() || r.build == hash);
        let reason = |r: &Refusal| r.reason.clone();
        let (build, reason) = match &self.holds {
            Some(Ok(hash)) if runs.as_ref() == Some(hash) => return None,
            Some(Ok(hash)) => (Some(hash.clone()), of(hash).map(reason)),
            Some(Err(why)) => (None, Some(why.clone())),
            None => (refused.map(|r| r.build.clone()).filter(|build| !build.is_empty()), refused.map(reason)),
        };
        // A file that is gone and ran nothing is missed by nobody.
        let is_known = runs.is_some() || (refused.is_some() && self.holds.as_ref().is_none_or(Result::is_ok));
        (is_known && (self.holds.is_some() || reason.is_some())).then_some(FileStatus {
            path,
            library,
            build,
            runs,
            reason,
            is_canary: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_differ_are_named_with_the_reason() {
        let mut files = LibraryFiles::default();
        let text = |s: &str| s.to_owned();
        // Some library beside handlers.
        files.holds("b.so".into(), Ok(text("9")));
        files.holds("a.so".into(), Ok(text("1")));
        files.runs("a.so".into(), text("a"), text("1"));
        assert_eq!(files.differing(|_| false), []);
        files.refused("a.so".into(), text(""), text("it is open to others"));
        assert_eq!(files.differing(|_| false), []);
        files.holds("a.so".into(), Ok(text("2")));
        let of = |build: Option<&str>, reason: Option<&str>| FileStatus {
            path: "a.so".into(),
            library: Some(text("a")),
            build: build.map(text),
            runs: Some(text("1")),
            reason: reason.map(text),
            is_canary: false,
        };
        // Refused a moment ago, and not read: it may have been this content.
        assert_eq!(files.differing(|_| false), [of(Some("2"), Some("it is open to others"))]);
        files.refused("a.so".into(), text("2"), text("no"));
        assert_eq!(files.differing(|_| false), [of(Some("2"), Some("no"))]);
        files.holds("a.so".into(), Ok(text("3")));
        assert_eq!(files.differing(|_| false), [of(Some("3"), None)]);
        let as_canary = FileStatus { is_canary: true, ..of(Some("3"), None) };
        assert_eq!(files.differing(|build| build == "3"), [as_canary]);
        files.holds("a.so".into(), Err(text("gone")));
        assert_eq!(files.differing(|_| false), [of(None, Some("gone"))]);
        files.holds("a.so".into(), Ok(text("1")));
        assert_eq!(files.differing(|_| false), []);
        // Refused at the start: none runs.
        files.refused("b.so".into(), text("9"), text("never"));
        assert_eq!(files.differing(|_| false)[0].reason.as_deref(), Some("never"));
    }

    #[test]
    fn a_configuration_that_is_not_in_force_is_named_with_the_last_refusal_of_it() {
        let mut files = LibraryFiles::default();
        let in_force = Config::default();
        let path = Some(Path::new("a.toml"));
        assert_eq!(files.not_in_force(&in_force, path, None), []);
        files.hear(WatchNews::HoldsConfig(Box::new(Ok(Config::default()))));
        let now = Instant::now();
        assert_eq!(files.not_in_force(&in_force, path, Some(("no", now))), []);
        files.hear(WatchNews::HoldsConfig(Box::new(Ok(Config { watch: false, ..Config::default() }))));
        let of = |values: &[&str], reason: Option<&str>| ConfigFileStatus {
            path: "a.toml".into(),
            is_of_settings: false,
            values: values.iter().map(|v| v.to_string()).collect(),
            reason: reason.map(str::to_owned),
        };
        assert_eq!(files.not_in_force(&in_force, path, None), [of(&["watch"], None)]);
        assert_eq!(files.not_in_force(&in_force, path, Some(("no", now))), [of(&["watch"], Some("no"))]);
        // Refused long before the content was this one.
        files.config_holds.as_mut().unwrap().1 += 2 * TOLD_AFTER;
        assert_eq!(files.not_in_force(&in_force, path, Some(("no", now))), [of(&["watch"], None)]);
        files.hear(WatchNews::HoldsConfig(Box::new(Err("line 1".into()))));
        assert_eq!(files.not_in_force(&in_force, path, None), [of(&[], Some("line 1"))]);
    }
}
