//! What a turn can do. All of it takes effect together when the callback returns `Ok`, and none of it otherwise.

use crate::Fault;
use crate::host::Host;
use greenroom_state::abi::{BROADCAST_OTHERS, status};
use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// The session's state. Writing to it marks it changed; a turn that only reads encodes nothing.
pub struct State<'a, S> {
    pub(crate) value: &'a mut S,
    pub(crate) touched: bool,
}

impl<S> Deref for State<'_, S> {
    type Target = S;
    fn deref(&self) -> &S {
        self.value
    }
}

impl<S> DerefMut for State<'_, S> {
    fn deref_mut(&mut self) -> &mut S {
        self.touched = true;
        self.value
    }
}

/// One run of the callback.
///
/// When the host refuses something (a limit is reached), the turn fails after the callback returned, with the limit's
/// name; so the methods have no results to check.
pub struct Turn<'a, S> {
    /// The session's state.
    pub state: State<'a, S>,
    pub(crate) host: &'a mut dyn Host,
    pub(crate) session: u64,
    pub(crate) now_ns: u64,
    pub(crate) refused: Option<&'static str>,
}

impl<S> Turn<'_, S> {
    /// The session's number, never used twice in a host.
    pub fn session(&self) -> u64 {
        self.session
    }

    /// The time, on a clock that never goes back and that survives reloads; it has no relation to the calendar.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.now_ns)
    }

    /// The peer's address.
    pub fn peer(&mut self) -> String {
        self.host.peer()
    }

    /// Sends bytes to the peer.
    #[inline]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let status = self.host.send(bytes.as_ref(), b"");
        self.note("a send", status);
    }

    /// Sends a line to the peer: the bytes and LF.
    #[inline]
    pub fn send_line(&mut self, line: impl AsRef<[u8]>) {
        let status = self.host.send(line.as_ref(), b"\n");
        self.note("a send", status);
    }

    /// Closes the session once what was sent is flushed. Its last turn, [`crate::Action::Closed`], follows.
    pub fn close(&mut self) {
        let status = self.host.close();
        self.note("a close", status);
    }

    /// Adds the session to a topic, whose name is one line.
    pub fn subscribe(&mut self, topic: &str) {
        let status = self.host.subscribe(topic);
        self.note("a subscription", status);
    }

    /// Takes the session off a topic. A closed session is off all of them.
    pub fn unsubscribe(&mut self, topic: &str) {
        let status = self.host.unsubscribe(topic);
        self.note("a subscription", status);
    }

    /// Sends bytes to every session on a topic.
    pub fn broadcast(&mut self, topic: &str, bytes: impl AsRef<[u8]>) {
        let status = self.host.broadcast(topic, bytes.as_ref(), 0);
        self.note("a broadcast", status);
    }

    /// Sends bytes to every session on a topic but this one.
    pub fn broadcast_others(&mut self, topic: &str, bytes: impl AsRef<[u8]>) {
        let status = self.host.broadcast(topic, bytes.as_ref(), BROADCAST_OTHERS);
        self.note("a broadcast", status);
    }

    #[inline]
    pub(crate) fn note(&mut self, what: &'static str, status: u32) {
        if status != status::OK {
            self.refused.get_or_insert(what);
        }
    }

    pub(crate) fn outcome(&mut self, result: Result<(), Fault>) -> Result<(), Fault> {
        result?;
        match self.refused {
            None => Ok(()),
            Some(what) => Err(Fault {
                kind: greenroom_state::abi::fault::ERROR,
                message: format!("the host refused {what}"),
                file: String::new(),
                line: 0,
            }),
        }
    }
}
