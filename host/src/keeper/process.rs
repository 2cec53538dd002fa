//! Starting worker processes, and putting into words how one ended.

use crate::control;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};

/// A process that was started, and our end of the socket to it.
pub struct Started {
    /// The process.
    pub child: Child,
    /// Readable once it has ended.
    pub ended: OwnedFd,
    /// The socket.
    pub link: OwnedFd,
}

/// The running binary, even if its file is replaced meanwhile.
pub fn own_binary() -> io::Result<File> {
    // Opened, because under valgrind the link leads to valgrind when it is executed and to this binary when it is opened.
    File::open("/proc/self/exe")
}

/// Starts `greenroom worker` from a binary. Must be called from the process's first thread: the worker dies with the thread
/// that started it.
pub fn start(binary: &File) -> io::Result<Started> {
    let (ours, theirs) = control::pair()?;
    let child = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()))
        .arg0("greenroom")
        .arg("worker")
        .stdin(Stdio::from(theirs))
        // What a handler prints belongs to the log. Whoever reads our standard output may be gone once it has read `ready`.
        .stdout(io::stderr().as_fd().try_clone_to_owned()?)
        // Its own group: an interrupt from the terminal is the keeper's to handle.
        .process_group(0)
        .spawn()?;
    let ended = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    Ok(Started { child, ended, link: ours })
}

/// How a process ended, in words; whether by its own doing.
pub fn how(status: ExitStatus) -> (String, bool) {
    match status.signal() {
        Some(n) => (signal_name(n), !matches!(Signal::from_named_raw(n), Some(Signal::KILL | Signal::TERM))),
        None => (format!("ended the process (exit code {})", status.code().unwrap_or_default()), true),
    }
}

/// A signal's name and number, in words.
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
