//! Inbox: messages for the loop from other threads.
//!
//! Each message wakes the poll, so posting is a system call. Messages are taken in the order of
//! their arrival, behind the reads of a pass. A message that is posted once the loop has ended is
//! dropped; its sender is told so.
//!
//! The channel has no limit of its own. Senders are bounded: one prepare thread, one save, jobs up
//! to `jobs_running_max`, and callers up to 32, who ask one query at a time.

use crate::admin::query::Ask;
use crate::job_threads::JobEnd;
use crate::mailbox::Mailbox;
use crate::net::sockets::WAKER;
use crate::plugin::prepare::Done;
use crate::worker::save::SaveStep;
use mio::Registry;
use std::io;
use std::sync::mpsc::Receiver;

/// A message for the loop.
pub(super) enum Message {
    /// A slow step of a reload is done.
    Prepare(Done),
    /// A step of a save has ended.
    Save(SaveStep),
    /// A job has ended.
    Job(JobEnd),
    /// An operator asks a query.
    Ask(Ask),
}

/// The loop's end of the channel that other threads post to.
pub(super) struct Inbox {
    /// Kept although the loop posts nothing: the last mailbox takes the waker with it.
    mailbox: Mailbox<Message>,
    messages: Receiver<Message>,
}

impl Inbox {
    /// Makes the channel. Each message wakes the poll of `registry`. Fails if the kernel gives no
    /// waker. A poll has one inbox.
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
