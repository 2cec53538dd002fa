//! The record of each library: current and earlier builds, and the files they are loaded from.
//!
//! The core decides which build runs. A record is written from that at a commit, for the
//! successor. The successor loads the recorded private copies and ignores the files at watched
//! paths, which may have changed since.
//!
//! | role in a record | loaded by a successor | private copy kept for |
//! | --- | --- | --- |
//! | current | yes; without it no worker can serve | this build |
//! | previous, on probation | yes; without it the probation ends | a rollback |
//! | converter | yes; without it, its data is not converted | the data that it left |
//! | canary's candidate, one of them | yes; without it the canary ends | its sessions |
//! | earlier | on request | `greenroom rollback`, at most `builds_kept` |
//!
//! *Invariant*: a private copy is removed only behind the commit of a record that no longer names
//! it. A worker that dies in between leaves the file, and its successor removes all others.
//!
//! A record is JSON in the store. Fields are only added, with defaults, because an older or a newer
//! version may read it. If the store has no room, an error is logged. A successor would go on with
//! the previous record then, whose oldest copies may be gone.

use crate::config::Config;
use crate::config::file_contents::FileContents;
use crate::plugin::room::RoomLeft;
use crate::plugin::stage::NOT_WRITTEN;
use crate::protocol::keeper::LOADS_MAX;
use crate::worker::reload::held_files;
use crate::worker::reload::running_build::RunningBuild;
use greenroom_core::core::Core;
use greenroom_core::limits::host::Limits;
use greenroom_core::reload::request::LibraryId;
use greenroom_core::service::canary_terms::CanaryTerms;
use greenroom_core::store::kind::Kind;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Bytes of initial-exec thread-local storage that a process has for builds: what glibc keeps free
/// (about 1,700 by default), without a rest for libraries of the system.
const STATIC_TLS_BYTES: u64 = 1536;

/// The record of a library, as JSON in the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::worker) struct LibraryRecord {
    /// The watched path that builds come from.
    pub path: PathBuf,
    /// Hash of the file that was last seen there when the record was written. The watcher does not
    /// try the same content again.
    pub seen: Option<String>,
    /// Hash of the file that was about to be loaded, and how often. After [`LOADS_MAX`] loads that
    /// ended a worker, the file counts as seen.
    #[serde(default)]
    pub trying: Option<(String, u32)>,
    /// The highest generation that ran. Later builds are numbered above it, also after a rollback.
    pub highest: u64,
    /// The build that runs, as the core says.
    pub current: RunningBuild,
    /// The builds that ran before, the one that ran last first. At most `builds_kept`.
    #[serde(default)]
    pub earlier: Vec<RunningBuild>,
    /// Probation of the build that runs; `None`: the build has none, or has passed.
    #[serde(default)]
    pub probation: Option<OnProbation>,
    /// Builds that were rolled back and convert the data that they left. Empty once the core needs
    /// none.
    #[serde(default)]
    pub converters: Vec<RunningBuild>,
    /// Canary beside the build that runs. Its candidate is among the converters, as which a host
    /// that knows no canaries takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<RecordedCanary>,
}

/// A canary, as it is recorded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::worker) struct RecordedCanary {
    /// Generation of the candidate.
    pub generation: u64,
    /// Sessions that run it, and the rules of its end.
    pub terms: CanaryTerms,
}

/// A probation, as it is recorded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::worker) struct OnProbation {
    /// The last build that passed its probation, or the first build. A rollback goes to it.
    pub before: RunningBuild,
    /// End of the probation, in nanoseconds on CLOCK_MONOTONIC, which goes on across processes.
    pub until_ns: u64,
    /// Number of the ledger line of the build's commit; 0: none.
    pub line: u64,
}

impl LibraryRecord {
    /// Records the first build of a library.
    pub(in crate::worker) fn first(
        path: PathBuf,
        seen: Option<String>,
        highest: u64,
        current: RunningBuild,
    ) -> LibraryRecord {
        let (earlier, converters) = (Vec::new(), Vec::new());
        let (probation, canary) = (None, None);
        LibraryRecord { path, seen, trying: None, highest, current, earlier, probation, converters, canary }
    }

    /// Hash of the file that the watcher need not load again: the one last seen, or one whose loads
    /// have ended [`LOADS_MAX`] workers.
    pub(in crate::worker) fn seen(&self) -> Option<String> {
        match &self.trying {
            Some((hash, times)) if *times >= LOADS_MAX => Some(hash.clone()),
            _ => self.seen.clone(),
        }
    }

    /// Builds that may run turns without another check of their files, each with the words that
    /// stand between its library and it.
    pub(in crate::worker) fn may_run(&self) -> impl Iterator<Item = (&RunningBuild, &'static str)> {
        let candidate = self.canary.as_ref().map(|c| c.generation);
        let candidate = self.converters.iter().find(move |b| Some(b.generation) == candidate);
        let standby =
            self.probation.as_ref().map(|p| (&p.before, "may go back, until its probation ends, to"));
        let candidate = candidate.map(|b| (b, "runs as a canary"));
        [(&self.current, "runs")].into_iter().chain(candidate).chain(standby)
    }

    /// The build that an operator's rollback without a generation goes to: the one that the present
    /// one has replaced. If that one is not kept, the next lower generation that is.
    pub(in crate::worker) fn replaced(&self) -> Option<&RunningBuild> {
        let standby = self.probation.as_ref().map(|p| &p.before);
        let kept = || self.earlier.iter().chain(standby);
        let lower = kept().filter(|b| b.generation < self.current.generation);
        let replaced = kept().find(|b| b.generation == self.current.replaced);
        replaced.or(lower.max_by_key(|b| b.generation))
    }

    /// Generation that a build has replaced which is about to take charge. `back`: it takes charge
    /// again, and has replaced what it replaced at first.
    pub(in crate::worker) fn replaced_by(&self, generation: u64, back: bool) -> u64 {
        match back {
            false => self.current.generation,
            true => self.builds().find(|b| b.generation == generation).map_or(0, |b| b.replaced),
        }
    }

    /// The build that the host's own rollback goes to: the last one that passed its probation, else
    /// the one of the next lower generation.
    pub(in crate::worker) fn before(&self) -> Option<&RunningBuild> {
        let earlier = self.earlier.iter().filter(|b| b.generation < self.current.generation);
        self.probation.as_ref().map(|p| &p.before).or(earlier.max_by_key(|b| b.generation))
    }

    /// Records that another build runs. At most `kept` earlier builds are remembered (limit
    /// `builds_kept`), the latest first. The private copies of others become unused. A generation
    /// stands at one place only: a build that takes charge again leaves the earlier ones.
    pub(in crate::worker) fn put_in_charge(&mut self, current: RunningBuild, kept: usize) {
        self.earlier.retain(|b| b.generation != current.generation);
        let old = std::mem::replace(&mut self.current, current);
        self.earlier.retain(|b| b.generation != old.generation);
        self.earlier.insert(0, old);
        self.earlier.truncate(kept);
        self.trying = None;
        // The candidate of a canary that was promoted converts nothing.
        let generation = self.current.generation;
        self.converters.retain(|b| b.generation != generation);
        self.canary = None;
    }

    /// Bytes of initial-exec thread-local storage that a successor takes for this library.
    pub(in crate::worker) fn static_tls(&self) -> u64 {
        let before = self.probation.as_ref().map(|p| &p.before);
        self.converters.iter().chain(before).chain([&self.current]).map(|b| b.static_tls).sum()
    }

    /// The private copies that a process may still load: of all builds in the record, without
    /// doubles.
    pub(in crate::worker) fn copies(&self) -> BTreeSet<&Path> {
        self.builds().map(|b| b.copy.as_path()).collect()
    }
}

impl LibraryRecord {
    /// All builds of the record.
    fn builds(&self) -> impl Iterator<Item = &RunningBuild> {
        let before = self.probation.as_ref().map(|p| &p.before);
        self.earlier.iter().chain(&self.converters).chain(before).chain([&self.current])
    }

    /// Reads the files of all builds' settings from the store, but those that `read` has.
    fn read_files(&mut self, core: &Core, read: &mut FileContents) {
        let before = self.probation.as_mut().map(|p| &mut p.before);
        let all =
            self.earlier.iter_mut().chain(&mut self.converters).chain(before).chain([&mut self.current]);
        for build in all {
            let files = build.settings.as_ref().map(|s| held_files::of(core, s, read));
            build.files = files.unwrap_or_default();
        }
    }
}

/// The records of all libraries, and what this process has loaded.
#[derive(Default)]
pub(in crate::worker) struct BuildRecords {
    /// Records by [`LibraryId`], whose numbers hold for this process alone.
    records: BTreeMap<usize, LibraryRecord>,
    /// Builds that this process has loaded and committed. Those that it took over do not count.
    loaded: u32,
    /// Bytes of initial-exec thread-local storage of all builds that this process has loaded.
    static_tls: u64,
    /// A build found no room for its thread-local storage.
    lacked_tls: bool,
    /// Room for private copies.
    room: RoomLeft,
    /// Private copies that no process will load again, once the latest records are committed.
    unused_copies: Vec<PathBuf>,
    /// Libraries whose records were written since the keeper was told of them.
    untold: BTreeSet<usize>,
    /// Files of settings may be held that no record needs any more.
    pub(super) files_due: bool,
}

impl BuildRecords {
    /// The record of a library; `None`: no build of it ran.
    pub(in crate::worker) fn get(&self, id: LibraryId) -> Option<&LibraryRecord> {
        self.records.get(&id.0)
    }

    /// All records, by library.
    pub(in crate::worker) fn all(&self) -> impl Iterator<Item = (LibraryId, &LibraryRecord)> {
        self.records.iter().map(|(at, record)| (LibraryId(*at), record))
    }

    /// Writes a library's record, which counts from the next commit on. Returns the private copies
    /// that the new record needs no more. The caller has them removed once the record is committed.
    /// If the store has no room, an error is logged.
    #[must_use = "copies that no record needs are removed once the record is committed"]
    pub(in crate::worker) fn write(
        &mut self,
        core: &mut Core,
        id: LibraryId,
        record: LibraryRecord,
    ) -> Vec<PathBuf> {
        record.builds().for_each(|build| held_files::hold(core, &build.files));
        self.files_due = true;
        let json = serde_json::to_vec(&record).unwrap_or_default();
        if !core.put_host_record(Kind::Library, key_of(&record.path), &json) {
            tracing::error!(
                "no room to record generation {} of {}",
                record.current.generation,
                record.current.library
            );
        }
        let needed = record.copies();
        let old = self.records.get(&id.0);
        let unused = old
            .map(|old| old.copies().difference(&needed).map(|p| p.to_path_buf()).collect())
            .unwrap_or_default();
        self.records.insert(id.0, record);
        self.untold.insert(id.0);
        unused
    }

    /// Returns whether the store has the canary of a library's record.
    pub(in crate::worker) fn is_recorded(&self, core: &Core, id: LibraryId) -> bool {
        let Some(record) = self.records.get(&id.0) else { return false };
        let key = key_of(&record.path);
        let stored = core.host_records_from(Kind::Library, key, 1).pop().filter(|(at, _)| *at == key);
        let stored = stored.and_then(|(_, json)| serde_json::from_slice::<LibraryRecord>(&json).ok());
        let generation = |r: &LibraryRecord| r.canary.as_ref().map(|c| c.generation);
        stored.is_some_and(|stored| generation(&stored) == generation(record))
    }

    /// Takes the records that were written since the last call. The caller has committed them.
    pub(in crate::worker) fn take_untold(&mut self) -> Vec<LibraryRecord> {
        if self.untold.is_empty() {
            return Vec::new();
        }
        let untold = std::mem::take(&mut self.untold);
        untold.iter().filter_map(|at| self.records.get(at)).cloned().collect()
    }

    /// Writes a library's record, and has [`BuildRecords::take_unused_copies`] return the private
    /// copies that it needs no more.
    pub(in crate::worker) fn update(&mut self, core: &mut Core, id: LibraryId, record: LibraryRecord) {
        let unused = self.write(core, id, record);
        self.unused_copies.extend(unused);
    }

    /// Takes the private copies to remove. The caller has committed the records: a successor of a
    /// worker that dies would look for a copy that the last commit still names.
    pub(in crate::worker) fn take_unused_copies(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.unused_copies)
    }

    /// Removes converters from the records of libraries that have converted all their data. Follows
    /// the retirement of a build. O(libraries).
    pub(in crate::worker) fn forget_converters(&mut self, core: &mut Core) {
        for at in self.records.keys().copied().collect::<Vec<_>>() {
            let Some(record) = self.records.get(&at).filter(|r| !r.converters.is_empty()) else { continue };
            if core.converts(&record.current.library) {
                continue;
            }
            let mut record = record.clone();
            record.converters.clear();
            self.update(core, LibraryId(at), record);
        }
    }

    /// Deletes the content of files that neither builds nor the configuration in force need. The
    /// deletion counts with the next commit. O(files held), and only if records have changed.
    pub(in crate::worker) fn forget_files(&mut self, core: &mut Core, config: &Config) {
        if !std::mem::take(&mut self.files_due) || !held_files::any(core) {
            return;
        }
        let builds = self.records.values().flat_map(LibraryRecord::builds);
        held_files::forget_others(core, builds.map(|build| &build.files).chain([&config.files]));
    }

    /// Counts a build that this process has loaded and is about to commit.
    pub(in crate::worker) fn count_load(&mut self) {
        self.loaded += 1;
    }

    /// Counts initial-exec thread-local storage of builds that this process has loaded, whatever
    /// becomes of them.
    pub(in crate::worker) fn count_static_tls(&mut self, bytes: u64) {
        self.static_tls = self.static_tls.saturating_add(bytes);
    }

    /// The reason why a fresh process should go on; `None`: this one has room for more builds. One
    /// comparison, and O(libraries) if builds take initial-exec thread-local storage.
    pub(in crate::worker) fn is_full(&self, limits: &Limits) -> Option<String> {
        if self.loaded >= limits.builds_max {
            return Some(format!("it has loaded {} builds (limit builds_max)", self.loaded));
        }
        let RoomLeft { retired_bytes, is_short } = self.room;
        if is_short || retired_bytes >= limits.retired_bytes_max as u64 {
            return Some(format!(
                "builds that it has left behind take {retired_bytes} bytes of disk (limit retired_bytes_max, or the space that is left)"
            ));
        }
        if self.static_tls > 0 && self.frees_static_tls() {
            let most = self.records.values().map(|r| r.current.static_tls).max().unwrap_or(0);
            if self.lacked_tls || self.static_tls.saturating_add(most) > STATIC_TLS_BYTES {
                return Some(format!(
                    "its builds have taken {} bytes of initial-exec thread-local storage, and there is little more",
                    self.static_tls
                ));
            }
        }
        None
    }

    /// Whether a fresh process would take less initial-exec thread-local storage than this one.
    fn frees_static_tls(&self) -> bool {
        self.static_tls > self.records.values().map(LibraryRecord::static_tls).sum()
    }

    /// Notes the room for private copies.
    pub(in crate::worker) fn note_room(&mut self, left: RoomLeft) {
        self.room = left;
    }

    /// Notes a refusal. True: the candidate lacked room in this process, and a fresh one has more.
    pub(in crate::worker) fn lacked_room(&mut self, why: &str, limits: &Limits) -> bool {
        let lacked_tls = why.contains("static TLS");
        self.lacked_tls |= lacked_tls;
        (lacked_tls || why.contains(NOT_WRITTEN)) && self.is_full(limits).is_some()
    }

    /// Returns whether a ledger line is the commit of a build that is on probation. O(libraries).
    pub(in crate::worker) fn is_on_probation(&self, line: u64) -> bool {
        self.records.values().any(|r| r.probation.as_ref().is_some_and(|p| p.line == line))
    }
}

/// Reads the records of all libraries from the store, in the order of their keys. An error says why
/// a record cannot be read: without its build no worker can serve.
pub(in crate::worker) fn recorded(core: &Core) -> Result<Vec<LibraryRecord>, String> {
    let mut files = FileContents::default();
    let read = |(_, json): (u64, Vec<u8>)| {
        let read = serde_json::from_slice(&json);
        let mut record: LibraryRecord =
            read.map_err(|e| format!("the record of a library cannot be read: {e}"))?;
        record.read_files(core, &mut files);
        Ok(record)
    };
    core.host_records_from(Kind::Library, 0, usize::MAX).into_iter().map(read).collect()
}

/// Key of a library's record: the first 64 bits of the SHA-256 of its path. A [`LibraryId`] is no
/// key, because its number differs in each process.
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
        let library = "a".into();
        let files = FileContents::default();
        RunningBuild {
            library,
            generation,
            hash,
            copy,
            entry,
            settings: None,
            files,
            static_tls: 0,
            replaced: 0,
        }
    }

    #[test]
    fn builds_that_ran_before_are_remembered_and_bounded() {
        let mut r = LibraryRecord::first("a.so".into(), None, 1, build(1));
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
        assert_eq!(r.replaced().map(|b| b.generation), Some(3), "an operator's goes one step");
        assert!(r.copies().contains(Path::new("1.so")), "{:?}", r.copies());
        let read: LibraryRecord = serde_json::from_slice(&serde_json::to_vec(&r).unwrap()).unwrap();
        assert_eq!(read.copies(), r.copies());
    }

    /// A rollback goes to what the build replaced, which need not be the generation below.
    #[test]
    fn a_rollback_goes_to_the_build_before() {
        let mut r = LibraryRecord::first("a.so".into(), None, 1, build(1));
        let load = |r: &mut LibraryRecord, n: u64, back: bool| {
            let replaced = r.replaced_by(n, back);
            r.put_in_charge(RunningBuild { replaced, ..build(n) }, 2);
        };
        let before = |r: &LibraryRecord| r.replaced().map(|b| b.generation);
        assert_eq!(before(&r), None);
        load(&mut r, 2, false);
        load(&mut r, 1, true);
        assert_eq!(before(&r), None, "never forth");
        load(&mut r, 3, false);
        assert_eq!(before(&r), Some(1), "2 was left behind");
        load(&mut r, 1, true);
        load(&mut r, 3, true);
        assert_eq!(before(&r), Some(1));
        load(&mut r, 4, false);
        load(&mut r, 5, false);
        load(&mut r, 3, true);
        // Generation 1 is not kept any more.
        assert_eq!(before(&r), None);
        let mut older = LibraryRecord::first("a.so".into(), None, 1, build(1));
        (2..=3).for_each(|n| older.put_in_charge(build(n), 2));
        assert_eq!(before(&older), Some(2), "a record of an older host");
        older.earlier.clear();
        older.probation = Some(OnProbation { before: build(1), until_ns: 0, line: 0 });
        assert_eq!(before(&older), Some(1), "none is kept but the one that stands by");
    }

    #[test]
    fn builds_that_may_run_are_named_with_what_they_do() {
        let mut r = LibraryRecord::first("a.so".into(), None, 1, build(1));
        r.put_in_charge(build(2), 3);
        let all = |r: &LibraryRecord| r.may_run().map(|(b, how)| (b.generation, how)).collect::<Vec<_>>();
        assert_eq!(all(&r), [(2, "runs")], "not those that only an operator goes back to");
        r.probation = Some(OnProbation { before: build(1), until_ns: 0, line: 0 });
        assert_eq!(all(&r)[1..], [(1, "may go back, until its probation ends, to")]);
        (r.probation, r.converters) = (None, vec![build(4), build(3)]);
        r.canary = Some(RecordedCanary { generation: 3, terms: CanaryTerms::default() });
        assert_eq!(all(&r), [(2, "runs"), (3, "runs as a canary")]);
    }

    /// The records of the store that `tests/tests/old_store.rs` describes.
    #[test]
    fn records_of_an_older_build_are_read() {
        let store = include_str!("../../../../tests/fixtures/store-1.json");
        let store: serde_json::Value = serde_json::from_str(store).unwrap();
        let read = |at: usize| {
            let record = store["contents"]["libraries"][at][1].clone();
            serde_json::from_value::<LibraryRecord>(record).unwrap()
        };
        let (tally, room) = (read(0), read(1));
        let before = tally.before().map(|b| (b.library.as_str(), b.generation));
        assert_eq!((tally.probation.is_some(), before), (true, Some(("tally", 1))));
        assert_eq!(tally.copies().len(), 2);
        assert_eq!((room.current.generation, room.highest, room.earlier.len()), (2, 2, 1));
        assert_eq!(room.seen(), Some(room.current.hash.clone()));
    }
}
