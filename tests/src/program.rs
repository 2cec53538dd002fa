//! Program that somebody types to: one text at a time, each read before the next.

use crate::wait_for;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Program with pipes for standard input and output. Dropping it kills it.
pub struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Program {
    /// Starts a command. Its standard error is the test's own.
    pub fn start(command: &mut Command) -> Program {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program");
        let (input, output) = (child.stdin.take(), child.stdout.take().expect("a pipe"));
        Program { child, input, output: BufReader::new(output) }
    }

    /// Types a text, and waits until the program has taken it: the next text is another read.
    pub fn say(&mut self, text: &str) {
        let input = self.input.as_mut().expect("its input is open");
        input.write_all(text.as_bytes()).expect("it reads");
        let input = &*input;
        wait_for("the program to read", || {
            let mut left = 0;
            // SAFETY: the call writes the number of bytes that a pipe holds.
            let asked = unsafe { libc::ioctl(input.as_raw_fd(), libc::FIONREAD, &mut left) };
            (asked == 0 && left == 0).then_some(())
        });
    }

    /// Reads lines up to one that is equal to `last`, and returns all of them.
    #[track_caller]
    pub fn lines_to(&mut self, last: &str) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        while lines.last().is_none_or(|line| line != last) {
            let mut line = String::new();
            let read = self.output.read_line(&mut line).expect("text");
            assert!(read > 0, "{last:?} was not said: {lines:#?}");
            lines.push(line.trim_end().to_owned());
        }
        lines
    }

    /// Closes its standard input, and waits for its end. Returns the exit code.
    pub fn end(mut self) -> Option<i32> {
        self.input = None;
        self.child.wait().expect("its end").code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
