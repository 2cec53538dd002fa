//! Patience of a client: a command never waits without end.
//!
//! | the host is silent, and | the command |
//! | --- | --- |
//! | its worker goes on | waits, for as long as [`AdminCommand::reply_max`] says |
//! | its worker stalls, or is stopped | fails after 5 s, and says what the worker does |
//! | its keeper answers no status either | fails after 10 s |
//!
//! The status is asked on a connection of its own, every 5 s. A command that fails here may be
//! carried out later, and the error says so.
//!
//! An operator may give a time limit instead ([`limit_time`], `--timeout`): the command waits until
//! then, whatever the host does. After 10 s of silence, and every 10 s from then on, the operator
//! is told what the host does meanwhile.

use crate::protocol::admin::{AdminCommand, Reply};
use crate::protocol::status::Status;
use greenroom_state::parse::parse_written;
use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Time of silence after which the client asks for the status.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Time for the question why the operator's time was not enough.
const LAST_QUESTION: Duration = Duration::from_millis(500);
/// Time of silence after which the operator is told what the host does, and again after each such
/// time.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Time of a stall from which the keeper refuses commands for the worker.
pub const REFUSED_FROM: Duration = Duration::from_secs(5);
/// Time between two looks at a worker that stalls, while a command waits that was refused for it.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Shortest time that a read or write is limited to.
const TICK: Duration = Duration::from_millis(10);
/// Time of a stall that explains such a silence. The watchdog sees it up to a second late.
const STALL_MIN_MS: u64 = 4_000;

/// Time limit of the commands of this process, and who hears meanwhile what a host does.
struct Waiting {
    limit: Option<Duration>,
    tell: fn(&str),
}

/// Set once, by a command line. Without it commands wait as the head of this file says.
static WAITING: OnceLock<Waiting> = OnceLock::new();

/// Limits the time of each command of this process, and has `tell` called with what a silent host
/// does. To be called once, before the first command.
pub fn limit_time(limit: Option<Duration>, tell: fn(&str)) {
    let _ = WAITING.set(Waiting { limit, tell });
}

/// A command that is asked again while the worker stalls, as long as the operator's time lasts.
pub(super) struct Again {
    begun: Instant,
    tell_after: Duration,
}

impl Again {
    /// Begins with the command.
    pub(super) fn new() -> Again {
        Again { begun: Instant::now(), tell_after: TELL_EVERY }
    }

    /// Time at which the command began.
    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    /// Waits until the command may be asked again, after this refusal: the worker goes on, or the
    /// keeper does not say. False: the operator's time is over, or none was given.
    ///
    /// The status is asked meanwhile, and not the command: each command leaves a trail in the audit
    /// log.
    pub(super) fn wait(&mut self, path: &Path, why: &str) -> bool {
        let Some(Waiting { limit: Some(limit), tell }) = WAITING.get() else { return false };
        loop {
            let waited = self.begun.elapsed();
            if waited >= *limit {
                return false;
            }
            if waited >= self.tell_after {
                self.tell_after = waited + TELL_EVERY;
                tell(&format!("still waiting after {} s: {why}", waited.as_secs()));
            }
            std::thread::sleep(ASK_AGAIN_AFTER.min(limit.saturating_sub(waited)));
            let stalls = |status: &Status| {
                let stalled = status.host.stalled.as_ref();
                stalled.is_some_and(|s| u128::from(s.for_ms) >= REFUSED_FROM.as_millis())
            };
            if !status(path, LAST_QUESTION).is_ok_and(|status| stalls(&status)) {
                return self.begun.elapsed() < *limit;
            }
        }
    }
}

/// A connection of a client to a host, whose reads and writes end if the host answers no more.
pub(super) struct Patient<'a> {
    stream: &'a UnixStream,
    /// Path of the admin socket.
    path: &'a Path,
    command: &'a AdminCommand,
    begun: Instant,
    /// Time of the last byte in either direction.
    heard_at: Cell<Instant>,
    /// Silence after which the operator is told next.
    tell_after: Cell<Duration>,
    /// Reason to wait no longer, once there is one.
    why: RefCell<Option<String>>,
}

impl<'a> Patient<'a> {
    /// Takes a connection to the socket at this path, for this command, which began at `begun`.
    /// Fails if the kernel takes no time limit.
    pub(super) fn new(
        stream: &'a UnixStream,
        path: &'a Path,
        command: &'a AdminCommand,
        begun: Instant,
    ) -> io::Result<Patient<'a>> {
        let patient = Patient {
            stream,
            path,
            command,
            begun,
            heard_at: Cell::new(Instant::now()),
            tell_after: Cell::new(TELL_EVERY),
            why: RefCell::new(None),
        };
        patient.limit_step()?;
        Ok(patient)
    }

    /// Reason why the client waits no longer. `None`: it has not given up.
    pub(super) fn gave_up(&self) -> Option<String> {
        self.why.borrow().clone()
    }

    /// Time that an operator has set and that is left; `None`: the operator has set none.
    fn left(&self) -> Option<Duration> {
        let limit = WAITING.get().and_then(|w| w.limit)?;
        Some(limit.saturating_sub(self.begun.elapsed()))
    }

    /// Limits the time of the next read or write, so that it ends when the time is over.
    fn limit_step(&self) -> io::Result<()> {
        // The kernel takes no limit of zero, and knows no shorter time than its clock's tick.
        let time = self.left().map_or(SILENCE_MAX, |left| left.clamp(TICK, SILENCE_MAX));
        limit(self.stream, time)
    }

    /// Repeats a read or a write that has timed out, until there is a reason to give up.
    fn wait<T>(&self, mut step: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        // What came between two steps is the caller's time, such as that of a pager.
        self.heard_at.set(Instant::now());
        self.tell_after.set(TELL_EVERY);
        loop {
            if self.left().is_some() {
                self.limit_step()?;
            }
            let over = || self.left().is_some_and(|left| left.is_zero());
            match step() {
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                result if !over() => return result,
                _ => {}
            }
            let silence = self.heard_at.get().elapsed();
            let why = match self.left() {
                Some(left) if left.is_zero() => Some(self.time_is_over()),
                Some(_) => None,
                None => self.reason(),
            };
            if let Some(why) = why {
                *self.why.borrow_mut() = Some(why.clone());
                return Err(io::Error::new(ErrorKind::TimedOut, why));
            }
            self.tell(silence);
        }
    }

    /// Addition to a reason to give up, if the command may have an effect all the same.
    fn later(&self) -> &'static str {
        if self.command.is_repeatable() { "" } else { "; the command may be carried out later" }
    }

    /// Reason to give up when the operator's time is over.
    fn time_is_over(&self) -> String {
        let later = self.later();
        let limit = WAITING.get().and_then(|w| w.limit).unwrap_or_default();
        let limit = humantime::format_duration(limit);
        format!("no end of the answer within {limit} (--timeout): {}{later}", self.meanwhile(LAST_QUESTION))
    }

    /// Tells the operator what the host does, if it has been silent long enough.
    fn tell(&self, silence: Duration) {
        // The end of a probation, and turns that are watched, may be long in coming.
        let is_expected = self.command.reply_max().is_none();
        if !is_expected
            && silence >= self.tell_after.get()
            && let Some(waiting) = WAITING.get()
        {
            self.tell_after.set(silence + TELL_EVERY);
            (waiting.tell)(&format!(
                "still waiting after {} s: {}",
                silence.as_secs(),
                self.meanwhile(SILENCE_MAX)
            ));
        }
    }

    /// Work of the host at the moment, in words. Takes up to `wait`.
    fn meanwhile(&self, wait: Duration) -> String {
        match status(self.path, wait) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                "its keeper doesn't answer either: it is stopped, or the machine has no time for it".into()
            }
            Err(e) => format!("its keeper doesn't answer either ({e})"),
            Ok(status) => match (status.host.stalled, status.host.worker.as_str()) {
                (Some(stalled), "serving") => stalled.with_way_out(),
                (_, "serving") => "its worker goes on with other work, and answers when it can".to_owned(),
                (_, phase) => format!("its worker is {phase}"),
            },
        }
    }

    /// Reason to give up now, after a silence.
    fn reason(&self) -> Option<String> {
        let keeper = |e: &dyn std::fmt::Display| {
            format!("the host doesn't answer ({e}): its keeper is stopped, or the machine has no time for it")
        };
        if matches!(self.command, AdminCommand::Status | AdminCommand::Metrics) {
            return Some(keeper(&"silent for 5 s"));
        }
        let host = match status(self.path, SILENCE_MAX) {
            Ok(status) => status.host,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Some(keeper(&"silent for 10 s")),
            Err(e) => return Some(keeper(&e)),
        };
        let later = self.later();
        let serves = host.worker == "serving";
        if let Some(stalled) = host.stalled.filter(|s| serves && s.for_ms >= STALL_MIN_MS) {
            return Some(format!("the worker doesn't answer, {}{later}", stalled.with_way_out()));
        }
        let silence = self.heard_at.get().elapsed();
        self.command
            .reply_max()
            .filter(|max| silence >= *max)
            .map(|_| format!("no reply for {} s, although the worker goes on{later}", silence.as_secs()))
    }
}

impl Read for &Patient<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.wait(|| (&mut &*self.stream).read(into))
    }
}

impl Write for &Patient<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wait(|| (&mut &*self.stream).write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Limits the time of each read and write.
fn limit(stream: &UnixStream, time: Duration) -> io::Result<()> {
    stream.set_read_timeout(Some(time))?;
    stream.set_write_timeout(Some(time))
}

/// Asks the host at this path for its status. Takes up to `wait`.
fn status(path: &Path, wait: Duration) -> io::Result<Box<Status>> {
    let stream = UnixStream::connect(path)?;
    limit(&stream, wait)?;
    let line = serde_json::to_string(&AdminCommand::Status)? + "\n";
    (&stream).write_all(line.as_bytes())?;
    let mut answer = Vec::new();
    BufReader::new(&stream).read_until(b'\n', &mut answer)?;
    match parse_written(&answer) {
        Ok(Reply::Status(status)) => Ok(status),
        Ok(_) => Err(io::Error::other("it answered something else")),
        Err(e) => Err(io::Error::other(e.to_string())),
    }
}
