//! Upkeep of the host's files, on a thread of its own.
//!
//! Files in the runtime directory may be deleted while the host lives. Every two seconds the thread
//! looks whether they are in place, and makes anew what is gone. So commands get in again, and no
//! crash finds a build missing. `status` and the log say what was gone.
//!
//! A look costs two stats for each lock, the admin socket, each private copy in use, and the Unix
//! sockets of services. The thread
//! may wait for a disk, and the keeper's loop never does for a look.

use crate::admin::server::AdminSocket;
use crate::keeper::Keeper;
use crate::keeper::belongings::Belongings;
use crate::keeper::bind::MadeFile;
use crate::keeper::events::Event;
use crate::mailbox::Mailbox;
use crate::runtime_dir::Runtime;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Time for which the end of the host waits for a look under way. A disk may hang.
const END_WAIT: Duration = Duration::from_secs(1);

/// The thread, which owns runtime directory and admin socket. Dropping it ends the thread, removes
/// the socket, and gives the locks back. Waits for a look under way, up to a second: the end of the
/// process gives the locks back as well.
pub struct Upkeep {
    /// Ends the thread when it is dropped.
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Closed at the end of the thread.
    done: Receiver<()>,
}

/// State of the thread. The socket is dropped first: it is removed under the lock.
struct Keep {
    socket: AdminSocket,
    runtime: Runtime,
    belongings: Belongings,
    /// Tells the keeper of Unix sockets that are gone.
    gone: Mailbox<MadeFile>,
    /// Private copies that the last look found missing.
    suspects: BTreeSet<PathBuf>,
}

impl Upkeep {
    /// Starts the thread, for the belongings of a keeper. Fails if the system has no thread to
    /// give.
    pub fn start(runtime: Runtime, socket: AdminSocket, keeper: &Keeper) -> io::Result<Upkeep> {
        let (belongings, (end, ended)) = (keeper.belongings.clone(), channel());
        let gone = keeper.mailbox().for_kind(Event::SocketGone);
        let keep = Keep { socket, runtime, belongings, gone, suspects: BTreeSet::new() };
        let (ends, done) = channel();
        let run = move || {
            let _ends: Sender<()> = ends;
            keep.run(&ended);
        };
        let thread = std::thread::Builder::new().name("upkeep".into()).spawn(run)?;
        Ok(Upkeep { end: Some(end), thread: Some(thread), done })
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        drop(self.end.take());
        let Some(thread) = self.thread.take() else { return };
        // The thread sends nothing: its end closes the channel.
        if self.done.recv_timeout(END_WAIT) == Err(RecvTimeoutError::Disconnected) {
            let _ = thread.join();
        }
    }
}

impl Keep {
    fn run(mut self, ended: &Receiver<()>) {
        while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(LOOK_EVERY) {
            self.look();
        }
    }

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
        for file in self.belongings.gone_sockets() {
            self.gone.post(file);
        }
        self.suspects = self.belongings.look_at_builds(&self.suspects, &mut missing);
        self.belongings.note_missing(missing);
    }
}
