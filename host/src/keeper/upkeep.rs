//! Upkeep of the host's files, on threads of its own.
//!
//! Files in the runtime directory may be deleted while the host lives. Every two seconds they are
//! looked at, and what is gone is made anew. So commands get in again, and no crash finds a build
//! missing. `status` and the log say what was gone.
//!
//! A look costs two stats for each lock, the admin socket, each private copy in use, and the Unix
//! sockets of services. The saved file and the sockets may lie on other disks, so each has a thread
//! of its own: a disk that hangs holds up its own look alone, and never the keeper's loop.

use crate::admin::server::AdminSocket;
use crate::keeper::Keeper;
use crate::keeper::belongings::Belongings;
use crate::keeper::events::Event;
use crate::runtime_dir::Runtime;
use crate::runtime_dir::save_lock::SaveLock;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Time for which the end of the host waits for a look under way. A disk may hang.
const END_WAIT: Duration = Duration::from_secs(1);

/// The threads, which own runtime directory, locks and admin socket. Dropping it ends them, removes
/// the socket, and gives the locks back. Waits for looks under way, up to a second: the end of the
/// process gives the locks back as well.
pub struct Upkeep(Vec<LookThread>);

/// A thread that looks at files.
struct LookThread {
    /// Ends the thread when it is dropped.
    end: Option<Sender<()>>,
    thread: JoinHandle<()>,
    /// Closed at the end of the thread.
    done: Receiver<()>,
}

/// State of the thread that looks at the host's own files. The socket is dropped first: it is
/// removed under the lock.
struct Keep {
    socket: AdminSocket,
    runtime: Runtime,
    belongings: Belongings,
    /// Private copies that the last look found missing.
    suspects: BTreeSet<PathBuf>,
}

impl Upkeep {
    /// Starts the threads, for the belongings of a keeper. Fails if the system has no thread to
    /// give.
    pub fn start(
        (runtime, socket): (Runtime, AdminSocket),
        mut save_lock: SaveLock,
        keeper: &Keeper,
    ) -> io::Result<Upkeep> {
        let belongings = keeper.belongings.clone();
        let gone = keeper.mailbox().for_kind(Event::SocketGone);
        let mut keep = Keep { socket, runtime, belongings: belongings.clone(), suspects: BTreeSet::new() };
        let (of_save, of_sockets) = (belongings.clone(), belongings);
        Ok(Upkeep(vec![
            LookThread::start("upkeep", move || keep.look())?,
            LookThread::start("upkeep save", move || {
                let looked = save_lock.look();
                looked.made.iter().for_each(|path| of_save.count_made("locks", path));
                of_save.note_missing("save", looked.missing);
            })?,
            LookThread::start("upkeep sockets", move || {
                of_sockets.gone_sockets().into_iter().for_each(|file| _ = gone.post(file));
            })?,
        ]))
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(|look| drop(look.end.take()));
        let give_up = Instant::now() + END_WAIT;
        for LookThread { thread, done, .. } in self.0.drain(..) {
            // The thread sends nothing: its end closes the channel.
            let left = give_up.saturating_duration_since(Instant::now());
            if done.recv_timeout(left) == Err(RecvTimeoutError::Disconnected) {
                let _ = thread.join();
            }
        }
    }
}

impl LookThread {
    /// Starts a thread that looks every two seconds, until it is to end. What `look` owns is
    /// dropped there.
    fn start(name: &str, mut look: impl FnMut() + Send + 'static) -> io::Result<LookThread> {
        let ((end, ended), (ends, done)) = (channel(), channel());
        let run = move || {
            let _ends: Sender<()> = ends;
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(LOOK_EVERY) {
                look();
            }
            drop(look);
        };
        let thread = std::thread::Builder::new().name(name.into()).spawn(run)?;
        Ok(LookThread { end: Some(end), thread, done })
    }
}

impl Keep {
    /// Looks at all files once. Directories and locks come first: the rest lies in them, and counts
    /// only if the directory is this host's.
    fn look(&mut self) {
        let looked = self.runtime.look();
        for path in &looked.made {
            self.belongings.count_made("locks", path);
        }
        let mut missing = looked.missing;
        if self.runtime.is_ours() && !self.socket.is_in_place() {
            match self.socket.listen_again() {
                Ok(()) => self.belongings.count_made("socket", self.socket.path()),
                Err(e) => missing.push(format!("{}: {e}", self.socket.path().display())),
            }
        }
        if self.runtime.is_ours()
            && let Err(e) = self.socket.set_modes()
        {
            missing.push(format!("modes of {}: {e}", self.socket.path().display()));
        }
        self.suspects = self.belongings.look_at_builds(&self.suspects, &mut missing);
        self.belongings.note_missing("host", missing);
    }
}
