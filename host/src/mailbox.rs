//! Mailbox: a channel that wakes a poll.
//!
//! The loops of keeper and worker wait in `poll`; other threads report to them through a
//! mailbox. The channel has no bound, so a sender never blocks.

use mio::{Registry, Token, Waker};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

/// Posts messages to a loop from any thread, and wakes the loop's poll.
///
/// A clone posts to the same loop. A message costs one system call beside the channel. The loop
/// keeps one clone: the last one to go takes the waker with it, and a wake that was not polled yet
/// is lost.
pub struct Mailbox<T> {
    /// Sends one message and wakes the poll. A closure, so that [`Mailbox::for_kind`] can wrap
    /// it without a type parameter for the loop's message.
    post: Arc<dyn Fn(T) -> bool + Send + Sync>,
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Mailbox<T> {
        Mailbox { post: self.post.clone() }
    }
}

impl<T: Send + 'static> Mailbox<T> {
    /// Makes a mailbox that wakes the poll of `registry` with `token`. A poll may have one such
    /// mailbox.
    pub fn new(registry: &Registry, token: Token) -> io::Result<(Mailbox<T>, Receiver<T>)> {
        let waker = Waker::new(registry, token)?;
        let (sender, receiver) = channel();
        // The message is in the channel before the poll wakes, so a loop that wakes finds it.
        let post = move |message| sender.send(message).is_ok() && waker.wake().is_ok();
        Ok((Mailbox { post: Arc::new(post) }, receiver))
    }

    /// Makes a mailbox for one kind of message, which `wrap` turns into this mailbox's. Threads
    /// get such a mailbox: they cannot post messages of other kinds. Costs one allocation.
    pub fn for_kind<U: Send + 'static>(&self, wrap: fn(U) -> T) -> Mailbox<U> {
        let whole = self.clone();
        Mailbox { post: Arc::new(move |message| whole.post(wrap(message))) }
    }

    /// Posts a message. False: the loop has ended, and the message is dropped. Also false if
    /// the message was sent and the poll could not be woken.
    pub fn post(&self, message: T) -> bool {
        (self.post)(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};
    use std::time::Duration;

    #[test]
    fn a_message_of_one_kind_arrives_wrapped_and_wakes_the_poll() {
        let mut poll = Poll::new().unwrap();
        let (mailbox, messages) = Mailbox::<Option<u32>>::new(poll.registry(), Token(7)).unwrap();
        let numbers = mailbox.for_kind(Some);
        let whole = mailbox.clone();
        let poster = std::thread::spawn(move || numbers.post(5) && whole.post(None));
        assert!(poster.join().unwrap());
        let mut events = Events::with_capacity(4);
        poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
        assert!(events.iter().any(|e| e.token() == Token(7)));
        assert_eq!(messages.try_iter().collect::<Vec<_>>(), [Some(5), None]);
        drop(mailbox);
    }

    #[test]
    fn a_post_fails_once_the_receiver_is_gone() {
        let poll = Poll::new().unwrap();
        let (mailbox, messages) = Mailbox::new(poll.registry(), Token(7)).unwrap();
        drop(messages);
        assert!(!mailbox.post(1));
    }
}
