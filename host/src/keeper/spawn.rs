//! The start of a worker process, and its first message.
//!
//! The child is `greenroom worker` of a given binary, with its end of the socket as standard input.
//! Memory files and connections come as messages. The keeper's own descriptors are closed on exec.
//!
//! A trial of an upgrade is started the same way. Its first message tells it to try.

use crate::protocol::keeper::{ToKeeper, ToWorker};
use crate::protocol::link::{Link, pair};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// A worker process and the keeper's end of the socket to it. Dropping it does not end the process,
/// but closes the socket, and a worker without a keeper ends.
pub(super) struct Spawned {
    /// The process. `None`: the worker runs in this process.
    pub(super) process: Option<Process>,
    /// The socket.
    pub(super) link: OwnedFd,
}

/// A child process.
pub(super) struct Process {
    /// The child.
    pub(super) child: Child,
    /// Readable once the child has ended.
    pub(super) ended: OwnedFd,
}

impl Process {
    /// Watches a child. Costs one descriptor. A pidfd names this very process, so its event cannot
    /// be about a later process with the same id.
    pub(super) fn watch(child: Child) -> io::Result<Process> {
        let ended = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        Ok(Process { child, ended })
    }
}

/// Starts `greenroom worker` from a binary. Must run on the keeper's first thread: the worker dies
/// with the thread that started it (PR_SET_PDEATHSIG). Fails if the limit of processes or files is
/// reached, or if the kernel cannot run the binary.
pub(super) fn start(binary: &File) -> io::Result<Spawned> {
    let (ours, theirs) = pair()?;
    // The descriptor is executed, not a path: the binary that was checked, or that runs here, may
    // be replaced on disk.
    let child = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()))
        .arg0("greenroom")
        .arg("worker")
        .stdin(Stdio::from(theirs))
        // A handler's prints go to the log: the reader of standard output may be gone after
        // `ready`.
        .stdout(io::stderr().as_fd().try_clone_to_owned()?)
        // A group of its own: an interrupt from the terminal goes to the keeper only.
        .process_group(0)
        .spawn()?;
    Ok(Spawned { process: Some(Process::watch(child)?), link: ours })
}

/// Sends the first message, with these files in the order of [`ToWorker::Hello`]. A process that
/// has ended already is not an error here: its end is noticed like any later one, with its cause.
pub(super) fn greet(link: &mut Link<ToKeeper, ToWorker>, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    match link.send_with(&ToWorker::Hello, files) {
        Ok(true) => Ok(()),
        Ok(false) => Err(io::Error::other("it takes no message")),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::link::{Received, to_file};

    /// The end of the process tells how it ended; the greeting must not hide that.
    #[test]
    fn a_process_that_ended_at_once_is_greeted_without_an_error() {
        let (ours, theirs) = pair().unwrap();
        drop(theirs);
        let file = to_file(&()).unwrap();
        let mut link = Link::new(ours);
        greet(&mut link, &[file.as_fd()]).unwrap();
        assert!(matches!(link.receive().unwrap(), Received::Closed));
    }
}
