//! Thread for the slow steps of a reload, so that the loop never blocks.
//!
//! The thread reads and hashes files, runs trials, loads libraries, and drops builds. Jobs are
//! done one after the other, in the order in which the loop sends them. So a trial delays the
//! steps of other libraries, for as long as its limits allow, and never delays the loop.
//!
//! Each of [`Job::Stage`], [`Job::Try`] and [`Job::Load`] is answered once with [`Done`].
//! Between these jobs the thread keeps the candidate of each library; [`Job::Discard`] forgets
//! it. Loading happens here because `dlopen` runs initialisers and [`Library::create`] runs the
//! author's code. If that kills the worker, the reload is forgotten, and the build that ran
//! goes on.
//!
//! All of its state is in memory. A worker that dies leaves private copies behind, which its
//! successor removes.

use crate::config::Config;
use crate::config::file_contents::FileContents;
use crate::memory::board::Board;
use crate::plugin::authors_code::{AuthorsCode, AuthorsStep};
use crate::plugin::ffi::library::Library;
use crate::plugin::inspect::{Inspected, build_id, has_note, inspect};
use crate::plugin::recording;
use crate::plugin::replay::{ReplayReport, TurnDifference};
use crate::plugin::room::{Room, RoomLeft};
use crate::plugin::stage::{self, Content, Copies};
use crate::plugin::trial::{self, Snapshot, Trial, Tried};
use crate::sys::proc::own_binary;
use greenroom_core::reload::request::{Candidate, LibraryId};
use greenroom_core::service::offer::{Offer, Serving};
use greenroom_state::elf_note::Note;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Job of the thread.
pub enum Job {
    /// Read, hash and inspect a file. Replaces the candidate of the library.
    Stage(LibraryId, PathBuf),
    /// Write the private copy, try it in a child, and rehearse it with a snapshot; `None`: no
    /// rehearsal. If a recording is named, replay it.
    Try(LibraryId, Option<Box<Snapshot>>, Option<Against>),
    /// Load the private copy into this process, and build its instances.
    Load(LibraryId),
    /// Forget the candidate, and remove its private copy.
    Discard(LibraryId),
    /// Prepare this library under a configuration that is not in force, from here on.
    Propose(LibraryId, Arc<Config>),
    /// Prepare this library under the configuration in force again.
    Withdraw(LibraryId),
    /// Take over a configuration that is in force from here on.
    Configure(Arc<Config>),
    /// Find out whether this file, which no library is known by, carries a note. Answered only
    /// if it does.
    Probe(PathBuf),
    /// Drop replaced builds, whose destructors run here, and remove private copies that nobody
    /// will load again. Mappings keep the content of removed copies alive.
    Drop(Box<dyn Send>, Vec<PathBuf>),
    /// Remove the private copies of this host that a predecessor left, except these. Must come
    /// before anything is staged, as copies of this process are not among these.
    RemoveOthers(BTreeSet<PathBuf>),
}

/// Recording that a candidate must replay without differences.
#[derive(Debug, Clone)]
pub struct Against {
    /// File of the recording.
    pub file: PathBuf,
    /// Patterns of differences that are wanted.
    pub allow: Vec<String>,
}

/// Report of the thread to the loop.
pub enum Done {
    /// Hash of a file that was read. The end of staging follows.
    Read(LibraryId, String),
    /// End of staging, with the hash of the content.
    Staged(LibraryId, Result<String, String>),
    /// Progress of a rehearsal: items done, and of how many.
    Progress(LibraryId, u64, u64),
    /// End of a trial, with the epoch that was pinned for it and can be released.
    Tried(LibraryId, Option<u64>, Result<Candidate, String>),
    /// End of loading. The library may be committed, or cannot be loaded.
    Loaded(LibraryId, Result<Loaded, String>),
    /// File that carries a note and has appeared.
    Discovered(PathBuf),
    /// Room for private copies has changed.
    Room(RoomLeft),
}

/// Library ready to serve.
pub struct Loaded {
    /// Services and their code.
    pub code: Serving,
    /// Private copy that it was loaded from.
    pub copy: PathBuf,
    /// Name of its entry.
    pub entry: String,
    /// Settings of its services, as JSON. A rollback to this build uses them again.
    pub settings: BTreeMap<String, String>,
    /// Contents of the files that the settings name.
    pub files: FileContents,
    /// Bytes of initial-exec thread-local storage that it takes.
    pub static_tls: u64,
}

/// Starts the thread. It ends when the sender is dropped. Calls `done` on the thread with each
/// answer. `code` shows which code of authors runs there. Fails if the system has no thread to
/// give.
pub fn start(
    config: Arc<Config>,
    copies: Copies,
    board: Board,
    code: AuthorsCode,
    done: impl Fn(Done) + Send + 'static,
) -> std::io::Result<Sender<Job>> {
    let (jobs, queue) = channel();
    let (staged, proposed) = (HashMap::new(), HashMap::new());
    let room = Room::new(copies.dir().to_owned());
    let stager = Stager { config, proposed, copies, room, board, code, staged };
    std::thread::Builder::new().name("stager".into()).spawn(move || stager.run(&queue, done))?;
    Ok(jobs)
}

/// State of the thread.
struct Stager {
    config: Arc<Config>,
    /// Configurations under which single libraries are prepared.
    proposed: HashMap<LibraryId, Arc<Config>>,
    copies: Copies,
    /// Space that the copies take.
    room: Room,
    board: Board,
    code: AuthorsCode,
    /// Candidates, at most one for each library.
    staged: HashMap<LibraryId, Staged>,
}

/// Candidate under way, from staging until it is loaded or discarded.
struct Staged {
    /// Hash of the content, and its bytes until the private copy is written.
    content: Content,
    /// Note, which names library and entry.
    note: Note,
    /// Bytes of initial-exec thread-local storage that it takes here.
    static_tls: u64,
    /// Build id, for the report.
    build_id: Option<String>,
    /// Private copy; `None`: not tried yet.
    copy: Option<PathBuf>,
    /// Offers, as the trial reported them.
    offers: Vec<Offer>,
}

impl Stager {
    /// Runs jobs until the sender is dropped.
    fn run(mut self, queue: &Receiver<Job>, done: impl Fn(Done)) {
        for job in queue {
            match job {
                Job::Stage(id, path) => {
                    let tell = |hash: &str| done(Done::Read(id, hash.to_owned()));
                    let result = answered(|| self.stage(id, &path, tell));
                    done(Done::Staged(id, result));
                }
                Job::Try(id, snapshot, against) => {
                    let tell = |now, total| done(Done::Progress(id, now, total));
                    let result = answered(|| self.try_out(id, snapshot.as_deref(), against.as_ref(), tell));
                    if result.is_err() {
                        done(Done::Room(self.room.left()));
                    }
                    done(Done::Tried(id, snapshot.map(|s| s.live.epoch), result));
                }
                Job::Load(id) => {
                    let (code, board) = (self.code.clone(), self.board);
                    board.loads(Some(id));
                    let result = code.run(AuthorsStep::Load(id), || answered(|| self.load(id)));
                    board.loads(None);
                    done(Done::Loaded(id, result));
                }
                Job::Discard(id) => {
                    if let Some(copy) = self.staged.remove(&id).and_then(|s| s.copy) {
                        // If the copy was loaded here and refused, the mapping keeps its content.
                        self.room.remove(&copy);
                        done(Done::Room(self.room.left()));
                    }
                }
                Job::Propose(id, config) => _ = self.proposed.insert(id, config),
                Job::Withdraw(id) => _ = self.proposed.remove(&id),
                Job::Configure(config) => self.config = config,
                Job::Probe(path) => {
                    if stage::read(&path, &self.config.trust).is_ok_and(|content| has_note(&content.bytes)) {
                        done(Done::Discovered(path));
                    }
                }
                Job::Drop(code, copies) => {
                    self.code.run(AuthorsStep::Drop, || drop(code));
                    for copy in &copies {
                        self.room.remove(copy);
                    }
                    if !copies.is_empty() {
                        done(Done::Room(self.room.left()));
                    }
                }
                Job::RemoveOthers(needed) => self.copies.remove_others(&needed),
            }
        }
    }

    /// Configuration that a library is prepared under: the proposed one, or the one in force.
    fn config_for(&self, id: LibraryId) -> Arc<Config> {
        self.proposed.get(&id).unwrap_or(&self.config).clone()
    }

    /// Reads and inspects a file, and makes it the library's candidate. Returns the hash, and calls
    /// `tell` with it as soon as it is known. Waits for a writer of the file.
    fn stage(
        &mut self,
        id: LibraryId,
        path: &std::path::Path,
        tell: impl FnOnce(&str),
    ) -> Result<String, String> {
        let config = self.config_for(id);
        let content = stage::read(path, &config.trust)?;
        tell(&content.hash);
        // Before anything else is made of the content: only named builds may be loaded, if the
        // configuration names some.
        config.trust.check_hash(&content.hash)?;
        let Inspected { note, static_tls } =
            inspect(&content.bytes, path).map_err(|e| format!("{}: {e}", path.display()))?;
        let hash = content.hash.clone();
        let build_id = build_id(&content.bytes);
        let (copy, offers) = (None, Vec::new());
        self.staged.insert(id, Staged { content, note, static_tls, build_id, copy, offers });
        Ok(hash)
    }

    /// Writes the private copy and tries it in a child. Blocks for as long as the trial takes.
    /// If it fails, the copy stays until the candidate is discarded.
    fn try_out(
        &mut self,
        id: LibraryId,
        snapshot: Option<&Snapshot>,
        against: Option<&Against>,
        tell: impl FnMut(u64, u64),
    ) -> Result<Candidate, String> {
        // Before anything is written: a recording that can't be read refuses the reload.
        let unpack = |a: &Against| {
            // A FIFO would hold this thread, and with it all reloads.
            match std::fs::metadata(&a.file) {
                Ok(meta) if !meta.is_file() => Err(format!("{}: it is not a file", a.file.display())),
                _ => recording::unpack(&a.file).map(|unpacked| (unpacked, a.allow.clone())),
            }
        };
        let against = against.map(unpack).transpose()?;
        let config = self.config_for(id);
        let staged = self.staged.get_mut(&id).ok_or("nothing is staged")?;
        let bytes = staged.content.bytes.len() as u64;
        self.room.expect(bytes);
        let copy = self
            .copies
            .write(&staged.content, &staged.note.library)
            .map_err(|why| self.room.explain(why, bytes, self.copies.kept()))?;
        // From here on the copy is the build. Its bytes may be many, and need not stay until
        // the commit.
        staged.content.bytes = Vec::new();
        staged.copy = Some(copy.clone());
        let (entry, limits) = (staged.note.entry.as_str(), &config.limits);
        let settings = config.files.filled_in(&config.settings());
        let recording = against.as_ref().map(|(unpacked, allow)| (unpacked, allow.as_slice()));
        let trial = Trial { copy: &copy, entry, settings: &settings, snapshot, recording, limits };
        // The child must be this very version of the host, even if the binary was replaced on
        // disk.
        let binary = own_binary().map_err(trial::cannot_start)?;
        let Tried { library: name, offers, rehearsal, replay } =
            trial::run_confined(&binary, &trial, config.reload.confinement, tell)?;
        staged.offers = offers.clone();
        if let Some(replay) = replay {
            tracing::info!("{name}: {}", replay.in_words());
            judge_replay(&replay)?;
        }
        if let Some(r) = &rehearsal {
            tracing::info!(
                "{name}: rehearsed with {} sessions, {} migrated, and {} table entries, {} migrated, in {} ms",
                r.sessions,
                r.migrated,
                r.entries_read(),
                r.entries_migrated,
                r.ms
            );
        }
        Ok(Candidate { name, offers, build_id: staged.build_id.clone(), rehearsal })
    }

    /// Loads the private copy here, and builds its services. The candidate is forgotten only if
    /// that succeeds. A library that was loaded stays mapped, even if it is refused then.
    fn load(&mut self, id: LibraryId) -> Result<Loaded, String> {
        let staged = self.staged.get(&id).ok_or("nothing is staged")?;
        let (copy, entry) = (staged.copy.clone().ok_or("nothing was tried")?, staged.note.entry.clone());
        let config = self.config_for(id);
        let all = config.settings();
        let filled_in = config.files.filled_in(&all);
        let code = Library::load(&copy, &entry)?.create(&filled_in, self.board)?;
        // The judgement rests on the offers of the trial, so other offers must not come into
        // force.
        if !code.iter().map(|(offer, _)| offer).eq(&staged.offers) {
            return Err("it offers something else here than in its trial".into());
        }
        let static_tls = staged.static_tls;
        self.staged.remove(&id);
        // Services that the file does not name count, too: a rollback to this build gives them
        // no settings again.
        let of = |name: &String| all.get(name).cloned().unwrap_or_else(|| "{}".into());
        let settings = code.iter().map(|(o, _)| (o.name.clone(), of(&o.name))).collect();
        let files = config.files.needed_by(&settings);
        Ok(Loaded { code, copy, entry, settings, files, static_tls })
    }
}

/// Differences of a replay that a refusal names.
const DIFFERENCES_NAMED: usize = 5;

/// Refuses a candidate that differs from a recording, or could replay nothing of it.
fn judge_replay(replay: &ReplayReport) -> Result<(), String> {
    if replay.differing == 0 && (replay.replayed > 0 || replay.turns == 0) {
        return Ok(());
    }
    let named = replay.differences.iter().take(DIFFERENCES_NAMED).map(TurnDifference::in_words);
    let all: Vec<_> =
        [format!("against the recording: {}", replay.in_words())].into_iter().chain(named).collect();
    Err(all.join("; "))
}

/// Runs a job that must be answered. A panic refuses the reload: without an answer, this reload and
/// all later ones would wait for ever.
fn answered<T>(job: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(job))
        .unwrap_or_else(|_| Err("the host panicked; the log says where".into()))
}
