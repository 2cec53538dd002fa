//! Output that handlers print: standard output and standard error of a worker.
//!
//! A worker's own two streams are a pipe to itself. A thread reads it and passes each line to the
//! log. So a handler's print never meets a reader that is gone or stopped: a failed print would be
//! a panic in every turn, and a full pipe would stop the loop.
//!
//! The log is lossy, so the thread never waits. Beyond 1,000 lines in a second, lines are
//! left out and counted.
//!
//! The keeper has the reading end, too. What a worker printed last, perhaps why it aborts, is still
//! in the pipe when it has died. The keeper then logs that with [`log_rest`].

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Lines of a second that are passed to the log. The rest is counted.
const LINES_MAX: u32 = 1000;
/// Most bytes of a line. A longer one is cut into several.
const LINE_BYTES_MAX: usize = 8 * 1024;
/// Most bytes that are read of a dead worker's pipe, which holds 64 KiB. A process that it has left
/// behind might go on printing.
const REST_BYTES_MAX: usize = 1 << 20;

/// Makes the pipe, puts its writing end in the place of standard output and standard error, and
/// starts the thread. Returns the reading end, for the keeper. What the two streams were before is
/// closed, so a log must have a descriptor of its own.
///
/// Fails without any change if no descriptor or no thread is left.
pub fn redirect() -> io::Result<OwnedFd> {
    let (read, write) = io::pipe()?;
    let read = OwnedFd::from(read);
    // Only this end: a print waits until the thread has made room, which it does at once.
    rustix::io::ioctl_fionbio(&read, true)?;
    let keepers = read.try_clone()?;
    std::thread::Builder::new().name("handler-output".into()).spawn(move || pass_on(&read))?;
    // Not closed on exec: programs that a handler starts print here, too.
    rustix::stdio::dup2_stdout(&write)?;
    rustix::stdio::dup2_stderr(&write)?;
    Ok(keepers)
}

/// Logs what a worker that has died left in its pipe. Never blocks.
pub fn log_rest(read: OwnedFd) {
    let mut lines = Lines::default();
    let (mut left, mut buffer) = (REST_BYTES_MAX, [0; 4096]);
    while left > 0 {
        match rustix::io::read(&read, &mut buffer) {
            Ok(n @ 1..) => {
                lines.push(&buffer[..n], |line| tracing::warn!("last output of the worker: {line}"));
                left = left.saturating_sub(n);
            }
            Err(Errno::INTR) => {}
            Ok(0) | Err(_) => break,
        }
    }
    lines.end(|line| tracing::warn!("last output of the worker: {line}"));
}

/// Passes on lines for as long as the process lives.
fn pass_on(read: &OwnedFd) {
    let (mut lines, mut share) = (Lines::default(), Share::new(Instant::now()));
    let mut buffer = [0; 16 * 1024];
    loop {
        // Lines that were left out are named within a second, although nothing more is printed.
        let timeout = share.is_over().then_some(Timespec { tv_sec: 1, tv_nsec: 0 });
        match poll(&mut [PollFd::new(read, PollFlags::IN)], timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return tracing::error!("handler output can't be read any more: {e}"),
        }
        let now = Instant::now();
        if let Some(count) = share.renew(now) {
            tracing::warn!(
                lines = count,
                "handler output: lines are left out, more than {LINES_MAX} in a second"
            );
        }
        match rustix::io::read(read, &mut buffer) {
            // The process holds the writing end itself, so this is a handler that closed both.
            Ok(0) => return,
            Ok(n) => lines.push(&buffer[..n], |line| {
                if share.take() {
                    tracing::info!(target: "handler_output", "handler output: {line}");
                }
            }),
            Err(_) => {}
        }
    }
}

/// Lines of a stream. Bytes that are no text are replaced.
#[derive(Default)]
struct Lines {
    /// The line that has no end yet.
    begun: Vec<u8>,
}

impl Lines {
    /// Takes bytes, and passes on each line that has ended or is too long. Empty lines are left
    /// out.
    fn push(&mut self, bytes: &[u8], mut pass: impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            self.begun.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.begun.len() >= LINE_BYTES_MAX {
                self.end(&mut pass);
            }
        }
    }

    /// Passes on the line that was begun.
    fn end(&mut self, mut pass: impl FnMut(&str)) {
        let text = String::from_utf8_lossy(&self.begun);
        let text = text.trim_end_matches(['\r', '\n']);
        if !text.is_empty() {
            pass(text);
        }
        self.begun.clear();
    }
}

/// Share of the log that handler output has in each second.
struct Share {
    since: Instant,
    taken: u32,
    /// Lines beyond the share.
    left_out: u64,
}

impl Share {
    /// Begins with a whole share.
    fn new(now: Instant) -> Share {
        Share { since: now, taken: 0, left_out: 0 }
    }

    /// Whether lines were left out in this second.
    fn is_over(&self) -> bool {
        self.left_out > 0
    }

    /// Takes room for a line. False: the line is left out, and counted.
    fn take(&mut self) -> bool {
        let fits = self.taken < LINES_MAX;
        self.taken += u32::from(fits);
        self.left_out += u64::from(!fits);
        fits
    }

    /// Begins a new second, if the last one is over. Returns the lines that it left out, if any.
    fn renew(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.since) < Duration::from_secs(1) {
            return None;
        }
        let before = std::mem::replace(self, Share::new(now));
        Some(before.left_out).filter(|n| *n > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut all) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.push(piece, |line| all.push(line.to_owned()));
        }
        lines.end(|line| all.push(line.to_owned()));
        all
    }

    #[test]
    fn lines_are_put_together_from_pieces_and_long_ones_are_cut() {
        assert_eq!(collected(&[b"on", b"e\ntwo\r\n\n", b"\xffhree"]), ["one", "two", "\u{fffd}hree"]);
        let long = collected(&[&[b'x'; LINE_BYTES_MAX], b"y\n"]);
        assert_eq!((long.len(), long[0].len(), long[1].as_str()), (2, LINE_BYTES_MAX, "y"));
    }

    #[test]
    fn lines_beyond_the_share_of_a_second_are_counted() {
        let now = Instant::now();
        let mut share = Share::new(now);
        assert_eq!((0..LINES_MAX + 7).filter(|_| share.take()).count(), LINES_MAX as usize);
        assert_eq!(share.renew(now + Duration::from_millis(999)), None);
        assert_eq!(share.renew(now + Duration::from_secs(1)), Some(7));
        assert!(share.take() && !share.is_over());
    }

    #[test]
    fn the_rest_of_a_pipe_is_read_to_its_end_without_waiting() {
        let (read, write) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&read, true).unwrap();
        rustix::io::write(&write, b"last words").unwrap();
        // The writing end is still open, as that of a process left behind.
        log_rest(read.into());
    }
}
