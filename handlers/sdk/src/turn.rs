//! What a turn can do. All of it takes effect together when the callback returns `Ok`, and none of it otherwise.

use crate::fault::Fault;
use crate::host::Host;
use greenroom_state::abi::{BROADCAST_OTHERS, JOB_ONCE, TIMER_OF_SERVICE, status};
use std::net::SocketAddr;
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
        self.note_refusal("a send", status);
    }

    /// Sends a line to the peer: the bytes and LF.
    #[inline]
    pub fn send_line(&mut self, line: impl AsRef<[u8]>) {
        let status = self.host.send(line.as_ref(), b"\n");
        self.note_refusal("a send", status);
    }

    /// Closes the session once what was sent is flushed. Its last turn, [`crate::Action::Closed`], follows.
    pub fn close(&mut self) {
        let status = self.host.close();
        self.note_refusal("a close", status);
    }

    /// Adds the session to a topic, whose name is one line.
    pub fn subscribe(&mut self, topic: &str) {
        let status = self.host.subscribe(topic);
        self.note_refusal("a subscription", status);
    }

    /// Takes the session off a topic. A closed session is off all of them.
    pub fn unsubscribe(&mut self, topic: &str) {
        let status = self.host.unsubscribe(topic);
        self.note_refusal("a subscription", status);
    }

    /// Has another session run a turn over these bytes, [`crate::Action::Note`]. A note to this session itself comes before its next
    /// message. Nothing happens if it is gone; its number may be had from [`Turn::session`] in a turn of its own.
    pub fn note(&mut self, session: u64, bytes: impl AsRef<[u8]>) {
        let status = self.host.note(session, bytes.as_ref());
        self.note_refusal("a note", status);
    }

    /// Has every session on a topic run a turn over these bytes, [`crate::Action::Published`].
    pub fn publish(&mut self, topic: &str, bytes: impl AsRef<[u8]>) {
        let status = self.host.publish(topic, bytes.as_ref(), 0);
        self.note_refusal("a message", status);
    }

    /// As [`Turn::publish`], but for this session.
    pub fn publish_others(&mut self, topic: &str, bytes: impl AsRef<[u8]>) {
        let status = self.host.publish(topic, bytes.as_ref(), BROADCAST_OTHERS);
        self.note_refusal("a message", status);
    }

    /// Sets a timer of this session: after that time it fires once, [`crate::Action::Timer`]. One of the same name is set again. A
    /// session's timers end with it.
    pub fn set_timer(&mut self, name: &str, after: Duration) {
        let status = self.host.set_timer(name, nanoseconds(after), 0);
        self.note_refusal("a timer", status);
    }

    /// Takes a timer off: from here on it doesn't fire, even if its time is over.
    pub fn cancel_timer(&mut self, name: &str) {
        let status = self.host.cancel_timer(name, 0);
        self.note_refusal("a timer", status);
    }

    /// Sets a timer of the service, which fires in [`crate::Handler::handle_service`] and outlives any session. Set it again there for
    /// a tick.
    pub fn set_service_timer(&mut self, name: &str, after: Duration) {
        let status = self.host.set_timer(name, nanoseconds(after), TIMER_OF_SERVICE);
        self.note_refusal("a timer", status);
    }

    /// Takes a timer of the service off.
    pub fn cancel_service_timer(&mut self, name: &str) {
        let status = self.host.cancel_timer(name, TIMER_OF_SERVICE);
        self.note_refusal("a timer", status);
    }

    /// Has [`crate::Handler::job`] run on another thread, where it may block. Its result comes back to this session as
    /// [`crate::Action::Job`], exactly once, in whatever build serves then. If the process dies meanwhile, the job runs again from
    /// its beginning. Returns its number.
    pub fn start_job(&mut self, name: &str, input: impl AsRef<[u8]>) -> u64 {
        let started = self.host.start_job(name, input.as_ref(), 0);
        self.started(started)
    }

    /// As [`Turn::start_job`], for what must not happen twice: if the process dies meanwhile, the job is lost
    /// ([`crate::JobEnd::Lost`]).
    pub fn start_job_once(&mut self, name: &str, input: impl AsRef<[u8]>) -> u64 {
        let started = self.host.start_job(name, input.as_ref(), JOB_ONCE);
        self.started(started)
    }

    fn started(&mut self, started: Result<u64, u32>) -> u64 {
        started.unwrap_or_else(|status| {
            self.note_refusal("a job", status);
            0
        })
    }

    /// Cancels a job that this session started: it isn't begun, or is told to stop, and its result won't come.
    pub fn cancel_job(&mut self, number: u64) {
        let status = self.host.cancel_job(number);
        self.note_refusal("to cancel a job", status);
    }

    /// Connects to an address; the connection becomes a session of `service`, of this library or another one. That session is told
    /// ([`crate::Action::Dialed`]) who asked for it, and is given `context`; this one is told what came of it
    /// ([`crate::Action::Connect`]), once. Returns a number that the latter names.
    ///
    /// A name isn't resolved here: that may take long, so it is a job.
    pub fn connect(&mut self, service: &str, addr: SocketAddr, context: impl AsRef<[u8]>) -> u64 {
        let begun = self.host.connect(service, &addr.to_string(), context.as_ref());
        begun.unwrap_or_else(|status| {
            self.note_refusal("a connection", status);
            0
        })
    }

    /// If another session's peer leaves too much output untaken, this session's input waits until it has taken it: to be called by
    /// who relays what it is sent, each time, lest the other one's output grows to its limit.
    pub fn wait_for(&mut self, session: u64) {
        let status = self.host.wait_for(session);
        self.note_refusal("to wait", status);
    }

    /// From here on this session's input waits: no message comes, and nothing is read from the peer, until a turn calls
    /// [`Turn::go_on`]. Timers, notes and results come as ever.
    pub fn hold(&mut self) {
        let status = self.host.hold(true);
        self.note_refusal("to hold the input", status);
    }

    /// This session's input goes on.
    pub fn go_on(&mut self) {
        let status = self.host.hold(false);
        self.note_refusal("to go on", status);
    }

    /// Sends bytes to every session on a topic.
    pub fn broadcast(&mut self, topic: &str, bytes: impl AsRef<[u8]>) {
        let status = self.host.broadcast(topic, bytes.as_ref(), 0);
        self.note_refusal("a broadcast", status);
    }

    /// Sends bytes to every session on a topic but this one.
    pub fn broadcast_others(&mut self, topic: &str, bytes: impl AsRef<[u8]>) {
        let status = self.host.broadcast(topic, bytes.as_ref(), BROADCAST_OTHERS);
        self.note_refusal("a broadcast", status);
    }

    #[inline]
    pub(crate) fn note_refusal(&mut self, what: &'static str, status: u32) {
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

/// As the host counts it; centuries are cut.
fn nanoseconds(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}
