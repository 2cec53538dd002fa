//! Events for the keeper from other threads: signals, callers, the watch of files, the reader of
//! the configuration.
//!
//! The queue has no limit. Callers are limited where they are accepted, and the watch reports a
//! path only once it is quiet.

use crate::admin::server::Asked;
use crate::config::Config;
use crate::keeper::bind::MadeFile;
use crate::keeper::tokens::WAKER;
use crate::mailbox::Mailbox;
use crate::plugin::watch::WatchNews;
use greenroom_core::reload::request::Requester;
use mio::Registry;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Receiver;

/// An event from another thread.
pub enum Event {
    /// An operator's command.
    Asked(Asked),
    /// SIGTERM, SIGINT, SIGHUP, SIGUSR1 or SIGCHLD, by number.
    Signal(i32),
    /// File of a service's Unix socket that is gone.
    SocketGone(MadeFile),
    /// News of the watched files.
    Watched(WatchNews),
    /// The configuration was read again.
    Read {
        /// The configuration, or why it cannot be read.
        config: Box<Result<Config, String>>,
        /// The requester.
        by: Requester,
        /// The caller's socket, if a command asked.
        stream: Option<UnixStream>,
    },
}

/// Events that wait for the loop, and the mailbox that they are posted to.
pub(super) struct EventQueue {
    /// Mailbox that is cloned for other threads. This clone keeps the waker alive.
    mailbox: Mailbox<Event>,
    /// Events that were posted and not taken.
    waiting: Receiver<Event>,
}

impl EventQueue {
    /// Makes a queue that wakes the poll of `registry`.
    pub(super) fn new(registry: &Registry) -> io::Result<EventQueue> {
        let (mailbox, waiting) = Mailbox::new(registry, WAKER)?;
        Ok(EventQueue { mailbox, waiting })
    }

    /// Mailbox for another thread.
    pub(super) fn mailbox(&self) -> Mailbox<Event> {
        self.mailbox.clone()
    }

    /// Takes all events that wait, in the order of their arrival. Never blocks.
    pub(super) fn take(&self) -> Vec<Event> {
        self.waiting.try_iter().collect()
    }
}
