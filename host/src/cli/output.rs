//! Output of commands: text, JSON, and failures with their exit codes.
//!
//! Data goes to standard output, messages to standard error. Scripts depend on the exit codes:
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | done |
//! | 1 | refused or failed |
//! | 2 | usage |
//! | 3 | no host answers |

use crate::admin::client::CallError;
use crate::printable;
use crate::sys::first_descriptors::stdout_was_closed;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// A failed command.
pub(super) enum CommandFailure {
    /// Refused or failed: exit code 1. An empty text: the command has printed why.
    Failed(String),
    /// Used wrongly: exit code 2, as for arguments that `clap` refuses.
    Usage(String),
    /// No host answers: exit code 3. Nothing was asked.
    NoHost(String),
}

impl CommandFailure {
    /// Reason of the failure.
    pub(super) fn text(self) -> String {
        match self {
            Self::Failed(text) | Self::Usage(text) | Self::NoHost(text) => text,
        }
    }
}

impl From<CallError> for CommandFailure {
    /// An answer that broke off is a failure: the command does not know whether the change was
    /// made.
    fn from(e: CallError) -> CommandFailure {
        match e {
            CallError::NoHost(text) => CommandFailure::NoHost(text),
            // The reason may hold a handler's words: a line end would begin a line of its own.
            CallError::Failed(text) | CallError::BrokenOff(text) => {
                CommandFailure::Failed(printable::one_line(&text).into_owned())
            }
        }
    }
}

/// Prints why a command failed, if it did, and returns the exit code.
pub(super) fn exit_code(result: Result<(), CommandFailure>) -> ExitCode {
    let (text, code) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(CommandFailure::Failed(text)) => (text, 1),
        Err(CommandFailure::Usage(text)) => (text, 2),
        Err(CommandFailure::NoHost(text)) => (text, 3),
    };
    if !text.is_empty() {
        complain(&format!("greenroom: {text}"));
    }
    ExitCode::from(code)
}

/// Prints a line to standard error, if somebody reads it. A reader that is gone, or takes nothing
/// for a second, is no reason to end otherwise, or not at all.
pub(super) fn complain(text: &str) {
    let (stderr, second) = (std::io::stderr(), Timespec { tv_sec: 1, tv_nsec: 0 });
    if let Ok(0) = poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&second)) {
        return;
    }
    let _ = writeln!(std::io::stderr(), "{}", printable::lines(text));
}

/// Prints a value as JSON, on one line. Keys have the order of the type's fields.
pub(super) fn print_json(value: &impl serde::Serialize) {
    print_text(&json_line(value));
}

/// A value as JSON, on one line, with its end, fit for a terminal.
pub(super) fn json_line(value: &impl serde::Serialize) -> String {
    printable::json(&(serde_json::to_string(value).unwrap_or_default() + "\n")).into_owned()
}

/// Prints JSON, or a piece of it, as [`print_text`] prints text.
pub(super) fn print_json_text(text: &str) {
    print_text(&printable::json(text));
}

/// Whether the command prints until its reader is gone.
static ENDS_WITH_ITS_READER: AtomicBool = AtomicBool::new(false);
/// Whether the reader of standard output is gone.
static READER_IS_GONE: AtomicBool = AtomicBool::new(false);

/// Has the end of the reader of standard output (`| head`) end the process, with exit code 0. For a
/// command that only shows, and shows much or goes on for ever.
pub(super) fn end_with_the_reader() {
    ENDS_WITH_ITS_READER.store(true, Ordering::Relaxed);
}

/// Prints to standard output, and flushes. Once the reader is gone, nothing is printed: the command
/// goes on, and its exit code is that of what it does. Any other failed write, such as to a full
/// disk, ends the process with 1: what was printed is not whole.
pub(super) fn print_text(text: &str) {
    if READER_IS_GONE.load(Ordering::Relaxed) {
        return;
    }
    if stdout_was_closed() {
        complain("greenroom: standard output is closed, so the answer is lost");
        std::process::exit(1);
    }
    if let Err(e) = try_print_text(text) {
        if e.kind() == std::io::ErrorKind::BrokenPipe {
            READER_IS_GONE.store(true, Ordering::Relaxed);
            match ENDS_WITH_ITS_READER.load(Ordering::Relaxed) {
                true => std::process::exit(0),
                false => return,
            }
        }
        complain(&format!("greenroom: standard output can't be written: {e}"));
        std::process::exit(1);
    }
}

/// Prints to standard output, and flushes, for a process that goes on if nobody reads it. Control
/// characters but line ends are escaped: names, reasons and addresses may be a peer's words.
pub(super) fn try_print_text(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(printable::lines(text).as_bytes())?;
    out.flush()
}
