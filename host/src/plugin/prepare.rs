//! Thread for the slow steps of a reload, so that the loop never blocks: it reads and hashes files,
//! runs trials, loads libraries, and drops builds.

use crate::config::Config;
use crate::exit_status::own_binary;
use crate::memory::board::Board;
use crate::plugin::ffi::library::Library;
use crate::plugin::inspect::{build_id, has_note, inspect};
use crate::plugin::stage::{self, Content, Copies};
use crate::plugin::trial::{self, Snapshot, Trial, Tried};
use greenroom_core::reload::request::{Candidate, Event, LibraryId};
use greenroom_core::service::offer::{Offer, Serving};
use greenroom_state::elf_note::Note;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Job of the thread.
pub enum Job {
    /// Read, hash and inspect a file.
    Stage(LibraryId, PathBuf),
    /// Try the candidate in a child, and rehearse it with a snapshot.
    Try(LibraryId, Option<Box<Snapshot>>),
    /// Load the candidate here.
    Load(LibraryId),
    /// Forget the candidate.
    Discard(LibraryId),
    /// Stage, try and load this library under a configuration that is not in force yet.
    Propose(LibraryId, Arc<Config>),
    /// End the proposal of that configuration.
    Withdraw(LibraryId),
    /// Take over a configuration that is in force now.
    Configure(Arc<Config>),
    /// Report whether this file, which no library is known by, carries a note.
    Probe(PathBuf),
    /// Drop replaced builds, whose destructors run here, and remove private copies that nobody will
    /// load again. Mappings keep those alive.
    Drop(Box<dyn Send>, Vec<PathBuf>),
    /// Remove the private copies of this host, except these: those that a predecessor left. Must
    /// come before anything is staged.
    RemoveOthers(BTreeSet<PathBuf>),
}

/// Report of the thread to the loop.
pub enum Done {
    /// Step of a reload.
    Step(Event),
    /// Progress of a rehearsal: items done, and of how many.
    Progress(LibraryId, u64, u64),
    /// Result of a trial, with the pinned epoch, which is needed no more.
    Tried(LibraryId, Option<u64>, Result<Candidate, String>),
    /// Loaded library, which may be committed.
    Loaded(LibraryId, Result<Loaded, String>),
    /// File with a note that has appeared.
    Discovered(PathBuf),
}

/// Library ready to serve.
pub struct Loaded {
    /// Services and their code.
    pub code: Serving,
    /// Private copy that it was loaded from.
    pub copy: PathBuf,
    /// Name of its entry.
    pub entry: String,
    /// Settings of its services.
    pub settings: BTreeMap<String, String>,
}

/// Starts the thread. It ends when the sender is dropped.
pub fn start(
    config: Arc<Config>,
    copies: Copies,
    log_level: u32,
    board: Board,
    done: impl Fn(Done) + Send + 'static,
) -> std::io::Result<Sender<Job>> {
    let (jobs, queue) = channel();
    let (staged, proposed) = (HashMap::new(), HashMap::new());
    let stager = Stager { config, proposed, copies, log_level, board, staged };
    std::thread::Builder::new().name("stager".into()).spawn(move || stager.run(&queue, done))?;
    Ok(jobs)
}

/// State of the thread.
struct Stager {
    config: Arc<Config>,
    proposed: HashMap<LibraryId, Arc<Config>>,
    copies: Copies,
    log_level: u32,
    board: Board,
    staged: HashMap<LibraryId, Staged>,
}

/// Candidate under way.
struct Staged {
    content: Content,
    note: Note,
    build_id: Option<String>,
    copy: Option<PathBuf>,
    /// Offers, as the trial reported them.
    offers: Vec<Offer>,
}

impl Stager {
    /// Runs jobs until the sender is dropped.
    fn run(mut self, queue: &Receiver<Job>, done: impl Fn(Done)) {
        for job in queue {
            match job {
                Job::Stage(id, path) => done(Done::Step(Event::Staged(id, self.stage(id, &path)))),
                Job::Try(id, snapshot) => {
                    let result = self
                        .try_out(id, snapshot.as_deref(), |now, total| done(Done::Progress(id, now, total)));
                    done(Done::Tried(id, snapshot.map(|s| s.live.epoch), result));
                }
                Job::Load(id) => done(Done::Loaded(id, self.load(id))),
                Job::Discard(id) => {
                    if let Some(copy) = self.staged.remove(&id).and_then(|s| s.copy) {
                        // The copy was never loaded here, so nothing maps it.
                        let _ = std::fs::remove_file(copy);
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
                    drop(code);
                    for copy in copies {
                        let _ = std::fs::remove_file(copy);
                    }
                }
                Job::RemoveOthers(needed) => self.copies.remove_others(&needed),
            }
        }
    }

    /// Configuration that a library is prepared under: a proposed one, or the one in force.
    fn config_for(&self, id: LibraryId) -> Arc<Config> {
        self.proposed.get(&id).unwrap_or(&self.config).clone()
    }

    /// Reads and inspects a file. Returns its hash.
    fn stage(&mut self, id: LibraryId, path: &std::path::Path) -> Result<String, String> {
        let config = self.config_for(id);
        let content = stage::read(path, &config.trust)?;
        config.trust.check_hash(&content.hash)?;
        let note = inspect(&content.bytes).map_err(|e| format!("{}: {e}", path.display()))?;
        let hash = content.hash.clone();
        let build_id = build_id(&content.bytes);
        self.staged.insert(id, Staged { content, note, build_id, copy: None, offers: Vec::new() });
        Ok(hash)
    }

    /// Writes the private copy and tries it in a child. Blocks for as long as the trial takes.
    fn try_out(
        &mut self,
        id: LibraryId,
        snapshot: Option<&Snapshot>,
        tell: impl FnMut(u64, u64),
    ) -> Result<Candidate, String> {
        let config = self.config_for(id);
        let staged = self.staged.get_mut(&id).ok_or("nothing is staged")?;
        let copy = self.copies.write(&staged.content, &staged.note.library)?;
        // From here on the copy is the build; its bytes need not stay.
        staged.content.bytes = Vec::new();
        staged.copy = Some(copy.clone());
        let (entry, limits) = (staged.note.entry.as_str(), &config.limits);
        let settings = config.settings();
        let trial = Trial { copy: &copy, entry, settings: &settings, snapshot, limits };
        let binary = own_binary().map_err(|e| format!("the trial process can't be started: {e}"))?;
        let Tried { library: name, offers, rehearsal } = trial::run(&binary, &trial, tell)?;
        staged.offers = offers.clone();
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

    /// Loads the private copy here, and builds its services.
    fn load(&mut self, id: LibraryId) -> Result<Loaded, String> {
        let staged = self.staged.get(&id).ok_or("nothing is staged")?;
        let (copy, entry) = (staged.copy.clone().ok_or("nothing was tried")?, staged.note.entry.clone());
        let all = self.config_for(id).settings();
        let code = Library::load(&copy, &entry)?.create(&all, self.log_level, self.board)?;
        if !code.iter().map(|(offer, _)| offer).eq(&staged.offers) {
            return Err("it offers something else here than in its trial".into());
        }
        self.staged.remove(&id);
        // Services that the file does not name count too: a rollback to this build gives them no
        // settings again.
        let of = |name: &String| all.get(name).cloned().unwrap_or_else(|| "{}".into());
        let settings = code.iter().map(|(o, _)| (o.name.clone(), of(&o.name))).collect();
        Ok(Loaded { code, copy, entry, settings })
    }
}
