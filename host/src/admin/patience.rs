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

use crate::protocol::admin::{AdminCommand, Reply};
use crate::protocol::status::Status;
use greenroom_state::nesting::parse;
use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Time of silence after which the client asks for the status.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Time of a stall that explains such a silence. The watchdog sees it up to a second late.
const STALL_MIN_MS: u64 = 4_000;

/// A connection of a client to a host, whose reads and writes end if the host answers no more.
pub(super) struct Patient<'a> {
    stream: &'a UnixStream,
    /// Path of the admin socket.
    path: &'a Path,
    command: &'a AdminCommand,
    /// Time of the last byte in either direction.
    heard_at: Cell<Instant>,
    /// Reason to wait no longer, once there is one.
    why: RefCell<Option<String>>,
}

impl<'a> Patient<'a> {
    /// Takes a connection to the socket at this path, for this command. Fails if the kernel takes
    /// no time limit.
    pub(super) fn new(
        stream: &'a UnixStream,
        path: &'a Path,
        command: &'a AdminCommand,
    ) -> io::Result<Patient<'a>> {
        limit(stream)?;
        Ok(Patient { stream, path, command, heard_at: Cell::new(Instant::now()), why: RefCell::new(None) })
    }

    /// Reason why the client waits no longer. `None`: it has not given up.
    pub(super) fn gave_up(&self) -> Option<String> {
        self.why.borrow().clone()
    }

    /// Repeats a read or a write that has timed out, until there is a reason to give up.
    fn wait<T>(&self, mut step: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        // What came between two steps is the caller's time, such as that of a pager.
        self.heard_at.set(Instant::now());
        loop {
            match step() {
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                result => return result,
            }
            if let Some(why) = self.reason() {
                *self.why.borrow_mut() = Some(why.clone());
                return Err(io::Error::new(ErrorKind::TimedOut, why));
            }
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
        let host = match status(self.path) {
            Ok(status) => status.host,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Some(keeper(&"silent for 10 s")),
            Err(e) => return Some(keeper(&e)),
        };
        let later = if self.command.is_repeatable() { "" } else { "; the command may be carried out later" };
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
fn limit(stream: &UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_write_timeout(Some(SILENCE_MAX))
}

/// Asks the host at this path for its status. Takes up to 5 s.
fn status(path: &Path) -> io::Result<Box<Status>> {
    let stream = UnixStream::connect(path)?;
    limit(&stream)?;
    let line = serde_json::to_string(&AdminCommand::Status)? + "\n";
    (&stream).write_all(line.as_bytes())?;
    let mut answer = Vec::new();
    BufReader::new(&stream).read_until(b'\n', &mut answer)?;
    match parse(&answer) {
        Ok(Reply::Status(status)) => Ok(status),
        Ok(_) => Err(io::Error::other("it answered something else")),
        Err(e) => Err(io::Error::other(e.to_string())),
    }
}
