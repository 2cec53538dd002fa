//! Output that handlers print: standard output and standard error of a worker.
//!
//! A worker's own two streams are a pipe to itself. A thread reads it and passes each line to the
//! log. So a handler's print never meets a reader that is gone or stopped: a failed print would be
//! a panic in every turn, and a full pipe would stop the loop.
//!
//! The log is lossy, so the thread never waits. Lines that are too many are left out and counted
//! there, as all lines are.
//!
//! The last output of a worker, perhaps why it aborts, outlives it. The thread holds each line in
//! a second pipe until the log has written it. The keeper has the reading ends of both pipes.
//! When the worker has died, it logs what is in them with [`log_rest`]. A line that the log wrote
//! just before that is there twice.

use crate::logs;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice, tee};
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

/// Most bytes of a line. A longer one is cut into several.
const LINE_BYTES_MAX: usize = 8 * 1024;
/// Most bytes that are read of a dead worker's pipes, which hold 64 KiB each. A process that it has
/// left behind might go on printing.
const REST_BYTES_MAX: usize = 1 << 20;
/// Longest time until a line that the log has written is no longer held.
const HOLD: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// Makes the pipes, puts the writing end of one in the place of standard output and standard error,
/// and starts the thread. Returns the reading ends for the keeper, as [`log_rest`] takes them. What
/// the two streams were before is closed, so a log must have a descriptor of its own.
///
/// Fails without any change if no descriptor or no thread is left.
pub fn redirect() -> io::Result<[OwnedFd; 2]> {
    // Only the reading end never waits: a print waits until the thread has made room, which it does
    // at once.
    let (read, write) = pipe()?;
    let held = Held::new()?;
    let keepers = [held.pipe.0.try_clone()?, read.try_clone()?];
    let copy = pipe()?;
    let thread = std::thread::Builder::new().name("handler-output".into());
    thread.spawn(move || pass_on(&read, &copy, held))?;
    // Not closed on exec: programs that a handler starts print here, too.
    rustix::stdio::dup2_stdout(&write)?;
    rustix::stdio::dup2_stderr(&write)?;
    Ok(keepers)
}

/// Logs what a worker that has died left in its pipes, in their order. Never blocks.
pub fn log_rest(pipes: Vec<OwnedFd>) {
    rest(&pipes, |line| tracing::warn!(target: logs::HANDLER_OUTPUT, "last output of the worker: {line}"));
}

/// Passes on the lines that are in the pipes now.
fn rest(pipes: &[OwnedFd], mut pass: impl FnMut(&str)) {
    let mut lines = Lines::default();
    let (mut left, mut buffer) = (REST_BYTES_MAX, [0; 4096]);
    for read in pipes {
        while left > 0 {
            match rustix::io::read(read, &mut buffer) {
                Ok(n @ 1..) => {
                    lines.push(&buffer[..n], &mut pass);
                    left = left.saturating_sub(n);
                }
                Err(Errno::INTR) => {}
                Ok(0) | Err(_) => break,
            }
        }
    }
    lines.end(pass);
}

/// Makes a pipe whose reading end never waits.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = io::pipe()?;
    rustix::io::ioctl_fionbio(&read, true)?;
    Ok((read.into(), write.into()))
}

/// Passes on lines for as long as the process lives. `copy` is a pipe that is empty between two
/// steps.
fn pass_on(read: &OwnedFd, copy: &(OwnedFd, OwnedFd), mut held: Held) {
    let mut lines = Lines::default();
    let mut buffer = [0; 16 * 1024];
    loop {
        let timeout = held.waits().then_some(HOLD);
        match poll(&mut [PollFd::new(read, PollFlags::IN)], timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return tracing::error!("handler output can't be read any more: {e}"),
        }
        held.release(logs::lines_done());
        // The output stays where it is until its lines are on their way to the log.
        match tee(read, &copy.1, buffer.len(), SpliceFlags::NONBLOCK) {
            // The process holds the writing end itself, so this is a handler that closed both.
            Ok(0) => return,
            Ok(_) => {}
            Err(_) => continue,
        }
        // Nothing else writes there, so all of it comes at once.
        let Ok(n) = rustix::io::read(&copy.0, &mut buffer) else { continue };
        lines.push(
            &buffer[..n],
            |line| tracing::info!(target: logs::HANDLER_OUTPUT, "handler output: {line}"),
        );
        held.take(read, n, lines.begun.len(), logs::lines_offered());
    }
}

/// Output that the log has not written yet, in a pipe that outlives the process.
///
/// Bytes move there from pipe to pipe within the kernel, so they are in one of both at all times.
struct Held {
    pipe: (OwnedFd, OwnedFd),
    /// Bytes that came, and bytes that were let go, since the beginning.
    came: u64,
    gone: u64,
    /// Marks, oldest first: bytes that may go, and when.
    marks: VecDeque<Mark>,
}

/// Output up to `end` belongs to the first `lines` lines that were offered to the log.
struct Mark {
    lines: u64,
    end: u64,
}

impl Held {
    fn new() -> io::Result<Held> {
        Ok(Held { pipe: pipe()?, came: 0, gone: 0, marks: VecDeque::new() })
    }

    /// Whether lines wait for the log.
    fn waits(&self) -> bool {
        !self.marks.is_empty()
    }

    /// Moves the first `n` bytes of `from` here. The last `begun` of them and of those before
    /// belong to a line that has no end yet. The other lines are among the first `lines` that
    /// were offered to the log.
    fn take(&mut self, from: &OwnedFd, n: usize, begun: usize, lines: u64) {
        let mut left = n;
        while left > 0 {
            match splice(from, None, &self.pipe.1, None, left, SpliceFlags::NONBLOCK) {
                Ok(moved @ 1..) => {
                    self.came += moved as u64;
                    left -= moved;
                }
                // The pipe is full: a log that nobody takes, or a line of many pieces.
                _ if self.came > self.gone => self.let_go(self.gone + 4096),
                // A pipe that takes nothing although it is empty does not exist.
                _ => left = left.saturating_sub(discard(from, left)),
            }
        }
        let end = self.came - (begun as u64).min(self.came);
        if end > self.marks.back().map_or(self.gone, |mark| mark.end) {
            self.marks.push_back(Mark { lines, end });
        }
    }

    /// Lets go the output of lines that the log is done with.
    fn release(&mut self, lines_done: u64) {
        while let Some(mark) = self.marks.pop_front_if(|mark| mark.lines <= lines_done) {
            self.let_go(mark.end);
        }
    }

    /// Lets go the output up to `end`.
    fn let_go(&mut self, end: u64) {
        while self.gone < end.min(self.came) {
            let n = (end.min(self.came) - self.gone) as usize;
            match discard(&self.pipe.0, n) {
                // It is empty, so the count was wrong.
                0 => self.gone = self.came,
                n => self.gone += n as u64,
            }
        }
        while self.marks.pop_front_if(|mark| mark.end <= self.gone).is_some() {}
    }
}

/// Reads at most `n` bytes, and forgets them. 0: there are none.
fn discard(from: &OwnedFd, n: usize) -> usize {
    let mut buffer = [0; 4096];
    let n = n.min(buffer.len());
    rustix::io::retry_on_intr(|| rustix::io::read(from, &mut buffer[..n])).unwrap_or(0)
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

    fn rest_of(pipes: &[&OwnedFd]) -> Vec<String> {
        let pipes: Vec<OwnedFd> = pipes.iter().map(|p| p.try_clone().unwrap()).collect();
        let mut all = Vec::new();
        rest(&pipes, |line| all.push(line.to_owned()));
        all
    }

    #[test]
    fn output_is_held_until_the_log_is_done_with_its_lines_and_read_without_waiting() {
        // The writing ends are still open, as those of a process left behind.
        let (read, write) = pipe().unwrap();
        let mut held = Held::new().unwrap();
        for (text, begun, lines) in [("one\n", 0, 1), ("two\nla", 2, 2), ("st ", 5, 2)] {
            rustix::io::write(&write, text.as_bytes()).unwrap();
            held.take(&read, text.len(), begun, lines);
        }
        rustix::io::write(&write, b"words").unwrap();
        held.release(1);
        assert!(held.waits());
        assert_eq!(rest_of(&[&held.pipe.0, &read]), ["two", "last words"]);
    }

    #[test]
    fn a_log_that_takes_nothing_and_a_line_of_many_pieces_hold_up_no_output() {
        let (read, write) = pipe().unwrap();
        let mut held = Held::new().unwrap();
        for n in 0..1000 {
            rustix::io::write(&write, b"x").unwrap();
            held.take(&read, 1, n % 50, n as u64);
        }
        rustix::io::write(&write, &[b'y'; 60_000]).unwrap();
        held.take(&read, 60_000, 0, 1000);
        held.release(999);
        assert!(held.waits());
        held.release(1000);
        assert!(!held.waits() && rest_of(&[&held.pipe.0, &read]).is_empty());
    }
}
