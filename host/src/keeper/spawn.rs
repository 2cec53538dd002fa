//! Starting worker processes.

use crate::protocol::keeper::{ToKeeper, ToWorker};
use crate::protocol::link::Link;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// A process that was started, and our end of the socket to it.
pub(super) struct Started {
    /// The process.
    pub(super) child: Child,
    /// Readable once it has ended.
    pub(super) ended: OwnedFd,
    /// The socket.
    pub(super) link: OwnedFd,
}

/// Starts `greenroom worker` from a binary. Must be called from the process's first thread: the worker dies with the thread
/// that started it.
pub(super) fn start(binary: &File) -> io::Result<Started> {
    let (ours, theirs) = crate::protocol::link::pair()?;
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

/// Tells a process that was just started what it begins with. One that has ended already is noticed as one that ends later is, and
/// there it is said how.
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

    /// Whoever waits for its end is to say how it ended, not that nobody heard the greeting.
    #[test]
    fn one_that_ended_at_once_is_greeted_without_an_error() {
        let (ours, theirs) = crate::protocol::link::pair().unwrap();
        drop(theirs);
        let file = crate::protocol::link::to_file(&()).unwrap();
        let mut link = Link::new(ours);
        greet(&mut link, &[file.as_fd()]).unwrap();
        assert!(matches!(link.receive().unwrap(), crate::protocol::link::Received::Closed));
    }
}
