//! Exit statuses in words, and this binary to start again.
//!
//! The words reach operators: in the log, in `greenroom status`, and in the report of a refused
//! candidate. The second result of [`how`] is evidence for the verdict on a build: a process
//! that was killed from outside blames nobody.

use rustix::process::Signal;
use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Opens the running binary, even if its file is replaced meanwhile. Fails if no descriptor is
/// left or /proc is not mounted.
pub fn own_binary() -> io::Result<File> {
    // Opened here: under valgrind the link leads to valgrind when it is executed, and to this
    // binary when it is opened.
    File::open("/proc/self/exe")
}

/// Tells how a process ended, in words, and whether it caused its end itself.
///
/// SIGKILL and SIGTERM come from outside. An exit with any code is the process's own doing: the
/// handler or the host called `exit`.
pub fn how(status: ExitStatus) -> (String, bool) {
    match status.signal() {
        Some(n) => (signal_name(n), !matches!(Signal::from_named_raw(n), Some(Signal::KILL | Signal::TERM))),
        None => (format!("ended the process (exit code {})", status.code().unwrap_or_default()), true),
    }
}

/// Name of a signal, with words for the signals that faults raise.
pub fn signal_name(n: i32) -> String {
    match Signal::from_named_raw(n) {
        Some(Signal::SEGV) => "segmentation fault (SIGSEGV)".into(),
        Some(Signal::BUS) => "bus error (SIGBUS)".into(),
        Some(Signal::ABORT) => "abort (SIGABRT)".into(),
        Some(Signal::ILL) => "illegal instruction (SIGILL)".into(),
        Some(Signal::FPE) => "arithmetic fault (SIGFPE)".into(),
        Some(Signal::KILL) => "killed (SIGKILL)".into(),
        _ => format!("signal {n}"),
    }
}
