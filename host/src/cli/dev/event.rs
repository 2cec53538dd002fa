//! News that reach the loop of the command, each from a thread of its own.

use crate::cli::dev::project::BuildFailure;
use crate::plugin::notices::Notices;
use notify::event::{AccessKind, AccessMode, EventKind};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::thread;

/// News for the loop.
pub(super) enum DevEvent {
    /// Something happened in a watched folder.
    Hint,
    /// Key of the terminal.
    Key(u8),
    /// Signal that ends the command.
    Signal,
    /// Line of the host's log.
    Log(String),
    /// Host serves at these addresses.
    Ready(Vec<String>),
    /// Output of the host has ended, and so has the host.
    HostEnded,
    /// Build ended, with its libraries.
    Built(Result<Vec<PathBuf>, BuildFailure>),
    /// Reload ended, and was told.
    Swapped { refused: bool },
}

/// Source of events of the system, each of which is a hint for the loop. The thread ends with it.
pub(super) fn hints(tell: Sender<DevEvent>) -> Notices {
    let (sender, events) = channel::<notify::Result<notify::Event>>();
    thread::spawn(move || {
        for event in events {
            // Compilers read. An event that tells of lost ones is a hint, too.
            let is_read = event.is_ok_and(|e| match e.kind {
                EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
                kind => kind.is_access(),
            });
            if !is_read && tell.send(DevEvent::Hint).is_err() {
                return;
            }
        }
    });
    Notices::new(sender)
}

/// Has signals end the command in order, from a thread of its own.
pub(super) fn hear_signals(tell: Sender<DevEvent>) -> std::io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let thread = thread::Builder::new().name("signals".into());
    thread.spawn(move || signals.forever().all(|_| tell.send(DevEvent::Signal).is_ok()))?;
    Ok(())
}
