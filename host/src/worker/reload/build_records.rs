//! What is recorded of each library: the build that runs, those that ran before, and what they are loaded from. A successor goes on with
//! that, never with what lies at a watched path.

use crate::worker::Worker;
use greenroom_core::core::Core;
use greenroom_core::reload::request::LibraryId;
use greenroom_core::service::offer::Build;
use greenroom_core::store::kind::Kind;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What a successor must know of a library.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::worker) struct LibraryRecord {
    /// Where its builds come from.
    pub path: PathBuf,
    /// Hash of what was last seen there.
    pub seen: Option<String>,
    /// What was about to be loaded from there, and how often: the second time a worker didn't survive it, it counts as seen.
    #[serde(default)]
    pub trying: Option<(String, u32)>,
    /// The highest generation that ran.
    pub highest: u64,
    /// What runs.
    pub current: RunningBuild,
    /// What ran before, the latest first.
    #[serde(default)]
    pub earlier: Vec<RunningBuild>,
    /// What runs has still to prove itself.
    #[serde(default)]
    pub probation: Option<OnProbation>,
    /// Builds that were rolled back and are needed to convert what they left.
    #[serde(default)]
    pub converters: Vec<RunningBuild>,
}

/// A build, and what it is loaded from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::worker) struct RunningBuild {
    /// Name of the library.
    pub library: String,
    /// Its generation.
    pub generation: u64,
    /// SHA-256 of the file.
    pub hash: String,
    /// The private copy.
    pub copy: PathBuf,
    /// The entry that its note names.
    pub entry: String,
    /// The settings of its services, as JSON, that its instances were built from: with them it is a generation. `None`: a record of
    /// an older host, which had one configuration for all.
    #[serde(default)]
    pub settings: Option<BTreeMap<String, String>>,
}

/// See [`LibraryRecord::probation`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::worker) struct OnProbation {
    /// The last build that proved itself.
    pub before: RunningBuild,
    /// When it is over, on CLOCK_MONOTONIC.
    pub until_ns: u64,
    /// The line of the ledger that tells of it.
    pub line: u64,
}

/// Loads that may end a worker before the watcher leaves such a file alone.
const TRIES_MAX: u32 = 2;

impl LibraryRecord {
    /// What the watcher need not look at again.
    pub(in crate::worker) fn seen(&self) -> Option<String> {
        match &self.trying {
            Some((hash, times)) if *times >= TRIES_MAX => Some(hash.clone()),
            _ => self.seen.clone(),
        }
    }

    /// The build to go back to, if nobody says which: the last one that proved itself, or the one before.
    pub(in crate::worker) fn before(&self) -> Option<&RunningBuild> {
        let earlier = self.earlier.iter().filter(|b| b.generation < self.current.generation);
        self.probation.as_ref().map(|p| &p.before).or(earlier.max_by_key(|b| b.generation))
    }

    /// Puts a build in charge. At most `kept` of those that ran before are remembered.
    pub(in crate::worker) fn put_in_charge(&mut self, current: RunningBuild, kept: usize) {
        self.earlier.retain(|b| b.generation != current.generation);
        let old = std::mem::replace(&mut self.current, current);
        self.earlier.retain(|b| b.generation != old.generation);
        self.earlier.insert(0, old);
        self.earlier.truncate(kept);
        self.trying = None;
    }

    /// The copies that somebody may still load.
    pub(in crate::worker) fn copies(&self) -> BTreeSet<&Path> {
        let before = self.probation.as_ref().map(|p| &p.before);
        let all = self.earlier.iter().chain(&self.converters).chain(before).chain([&self.current]);
        all.map(|b| b.copy.as_path()).collect()
    }
}

impl RunningBuild {
    pub(in crate::worker) fn build(&self) -> Build {
        let RunningBuild { library, generation, hash, .. } = self.clone();
        Build { library, generation, hash }
    }
}

/// The records of libraries.
pub(in crate::worker) fn library_records(core: &Core) -> Result<Vec<LibraryRecord>, String> {
    let read = |(_, json): (u64, Vec<u8>)| {
        serde_json::from_slice(&json).map_err(|e| format!("the record of a library can't be read: {e}"))
    };
    core.kept(Kind::Library).into_iter().map(read).collect()
}

impl Worker {
    /// Records what is to be known of a library from now on. Returns the copies that nobody will load again.
    pub(in crate::worker) fn write_record(&mut self, id: LibraryId, record: LibraryRecord) -> Vec<PathBuf> {
        let json = serde_json::to_vec(&record).unwrap_or_default();
        if !self.core.keep(Kind::Library, key_of(&record.path), &json) {
            tracing::error!(
                "no room to record generation {} of {}",
                record.current.generation,
                record.current.library
            );
        }
        let needed = record.copies();
        let old = self.records.get(&id.0);
        let superfluous = old
            .map(|old| old.copies().difference(&needed).map(|p| p.to_path_buf()).collect())
            .unwrap_or_default();
        self.records.insert(id.0, record);
        superfluous
    }

    /// Forgets converters that have converted all.
    pub(in crate::worker) fn converters_are_done(&mut self) {
        for at in self.records.keys().copied().collect::<Vec<_>>() {
            let Some(record) = self.records.get(&at).filter(|r| !r.converters.is_empty()) else { continue };
            if self.core.converts(&record.current.library) {
                continue;
            }
            let mut record = record.clone();
            record.converters.clear();
            let superfluous = self.write_record(LibraryId(at), record);
            self.superfluous.extend(superfluous);
        }
    }
}

/// What a library's record is kept under: its path, whatever number it has in this process.
fn key_of(path: &Path) -> u64 {
    let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
    u64::from_le_bytes(std::array::from_fn(|i| digest[i]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(generation: u64) -> RunningBuild {
        let copy = PathBuf::from(format!("{generation}.so"));
        let (hash, entry) = (String::new(), String::new());
        RunningBuild { library: "a".into(), generation, hash, copy, entry, settings: None }
    }

    #[test]
    fn builds_that_ran_before_are_remembered_and_bounded() {
        let mut r = LibraryRecord {
            path: "a.so".into(),
            seen: None,
            trying: None,
            highest: 1,
            current: build(1),
            earlier: Vec::new(),
            probation: None,
            converters: Vec::new(),
        };
        let generations = |r: &LibraryRecord| r.earlier.iter().map(|b| b.generation).collect::<Vec<_>>();
        for n in 2..=5 {
            r.put_in_charge(build(n), 3);
        }
        assert_eq!((r.current.generation, generations(&r)), (5, vec![4, 3, 2]));
        assert_eq!(r.before().map(|b| b.generation), Some(4));
        // Back, and back again: not forth.
        r.put_in_charge(build(4), 3);
        assert_eq!((generations(&r), r.before().map(|b| b.generation)), (vec![5, 3, 2], Some(3)));
        r.probation = Some(OnProbation { before: build(1), until_ns: 0, line: 0 });
        assert_eq!(r.before().map(|b| b.generation), Some(1));
        assert!(r.copies().contains(Path::new("1.so")), "{:?}", r.copies());
        let read: LibraryRecord = serde_json::from_slice(&serde_json::to_vec(&r).unwrap()).unwrap();
        assert_eq!(read.copies(), r.copies());
    }
}
