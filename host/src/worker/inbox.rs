//! Messages for the loop from other threads.

use crate::admin::query::Ask;
use crate::job_threads::JobEnd;
use crate::mailbox::Mailbox;
use crate::net::sockets::WAKER;
use crate::plugin::prepare::Done;
use crate::worker::save::SaveEnd;
use mio::Registry;
use std::io;
use std::sync::mpsc::Receiver;

/// A message for the loop.
pub(super) enum Message {
    /// A slow step of a reload is done.
    Prepare(Done),
    /// A save is written, or has failed.
    Save(SaveEnd),
    /// A job has ended.
    Job(JobEnd),
    /// An operator asks a query.
    Ask(Ask),
}

/// The loop's end of the channel that other threads post to.
pub(super) struct Inbox {
    mailbox: Mailbox<Message>,
    messages: Receiver<Message>,
}

impl Inbox {
    /// Makes the channel. Each message wakes the poll of `registry`.
    pub(super) fn new(registry: &Registry) -> io::Result<Inbox> {
        let (mailbox, messages) = Mailbox::new(registry, WAKER)?;
        Ok(Inbox { mailbox, messages })
    }

    /// Makes a mailbox for one kind of message.
    pub(super) fn mailbox<T: Send + 'static>(&self, kind: fn(T) -> Message) -> Mailbox<T> {
        self.mailbox.for_kind(kind)
    }

    /// Takes the messages that have arrived. Later ones wake the poll again.
    pub(super) fn take(&self) -> Vec<Message> {
        self.messages.try_iter().collect()
    }
}
