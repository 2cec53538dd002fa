//! The thread that does a reload's slow steps, so that the loop never does: reading and hashing files, the trial, loading,
//! binding ports, and dropping what is no longer needed.

use crate::config::Config;
use crate::plugin::ffi::Library;
use crate::plugin::inspect::{has_note, inspect};
use crate::plugin::stage::{self, Content};
use crate::plugin::trial;
use greenroom_core::ports::{Changes, Port};
use greenroom_core::reload::{Event, LibraryId};
use greenroom_core::service::{Code, Offer, Serving};
use greenroom_state::note::Note;
use std::collections::HashMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Connections that the kernel queues for a port.
const BACKLOG: i32 = 4096;

/// What the loop wants done.
pub enum Job {
    /// Read, hash and inspect a file.
    Stage(LibraryId, PathBuf),
    /// Try it in a child.
    Try(LibraryId),
    /// Load it here, and open these ports.
    Load(LibraryId, Changes),
    /// Forget what was staged.
    Discard(LibraryId),
    /// Whether this file, which no library is known by, carries a note.
    Peek(PathBuf),
    /// Drop code that was replaced: its destructor runs here.
    Drop(Vec<Box<dyn Code>>),
}

/// What the loop is told.
pub enum Done {
    /// A step of a reload.
    Step(Event),
    /// A library is loaded and may be committed.
    Loaded(LibraryId, Result<Loaded, String>),
    /// A file with a note has appeared.
    Discovered(PathBuf),
}

/// A library ready to serve.
pub struct Loaded {
    /// Its services and their code.
    pub code: Serving,
    /// Ports that listen, not yet accepted from.
    pub opened: Vec<(Port, TcpListener)>,
    /// Ports to close, and to hand over from one service to another, once it serves.
    pub close: Vec<Port>,
    /// See `close`.
    pub hand_over: Vec<(Port, Port)>,
}

/// Starts the thread. It ends when the sender is dropped.
pub fn start(
    config: Arc<Config>,
    copies: PathBuf,
    log_level: u32,
    done: impl Fn(Done) + Send + 'static,
) -> std::io::Result<Sender<Job>> {
    let (jobs, queue) = channel();
    let stager = Stager { config, copies, log_level, staged: HashMap::new() };
    std::thread::Builder::new().name("stager".into()).spawn(move || stager.run(&queue, done))?;
    Ok(jobs)
}

struct Stager {
    config: Arc<Config>,
    copies: PathBuf,
    log_level: u32,
    staged: HashMap<LibraryId, Staged>,
}

struct Staged {
    content: Content,
    note: Note,
    copy: Option<PathBuf>,
}

impl Stager {
    fn run(mut self, queue: &Receiver<Job>, done: impl Fn(Done)) {
        for job in queue {
            match job {
                Job::Stage(id, path) => done(Done::Step(Event::Staged(id, self.stage(id, &path)))),
                Job::Try(id) => done(Done::Step(Event::Tried(id, self.try_out(id)))),
                Job::Load(id, ports) => done(Done::Loaded(id, self.load(id, ports))),
                Job::Discard(id) => {
                    if let Some(copy) = self.staged.remove(&id).and_then(|s| s.copy) {
                        // Never loaded here, so nothing maps it.
                        let _ = std::fs::remove_file(copy);
                    }
                }
                Job::Peek(path) => {
                    if stage::read(&path).is_ok_and(|content| has_note(&content.bytes)) {
                        done(Done::Discovered(path));
                    }
                }
                Job::Drop(code) => drop(code),
            }
        }
    }

    fn stage(&mut self, id: LibraryId, path: &std::path::Path) -> Result<String, String> {
        let content = stage::read(path)?;
        let note = inspect(&content.bytes).map_err(|e| format!("{}: {e}", path.display()))?;
        let hash = content.hash.clone();
        self.staged.insert(id, Staged { content, note, copy: None });
        Ok(hash)
    }

    fn try_out(&mut self, id: LibraryId) -> Result<(String, Vec<Offer>), String> {
        let staged = self.staged.get_mut(&id).ok_or("nothing is staged")?;
        let copy = stage::copy(&staged.content, &staged.note.library, &self.copies)?;
        // From here on the copy is the build; its bytes need not stay.
        staged.content.bytes = Vec::new();
        staged.copy = Some(copy.clone());
        trial::run(&copy, &staged.note.entry, &self.config.settings())
    }

    fn load(&mut self, id: LibraryId, ports: Changes) -> Result<Loaded, String> {
        let staged = self.staged.get(&id).ok_or("nothing is staged")?;
        let copy = staged.copy.as_ref().ok_or("nothing was tried")?;
        let opened = ports.open.into_iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let code =
            Library::load(copy, &staged.note.entry)?.create(&self.config.settings(), self.log_level)?;
        self.staged.remove(&id);
        Ok(Loaded { code, opened, close: ports.close, hand_over: ports.hand_over })
    }
}

/// Binds and listens: only both together reserve a port.
fn open(port: Port) -> Result<(Port, TcpListener), String> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
    let (service, addr) = &port;
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let made = || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        if addr.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        bind(&socket, addr)?;
        listen(&socket, BACKLOG)?;
        Ok(TcpListener::from(socket))
    };
    let made = made().map_err(|e: rustix::io::Errno| {
        format!("service {service} can't listen on {addr}: {}", std::io::Error::from(e))
    })?;
    Ok((port, made))
}
