//! The start of a worker process, and its first message.
//!
//! The child is `greenroom worker` of a given binary, with its end of the socket as standard input.
//! Memory files and connections come as messages. The keeper's own descriptors are closed on exec.
//!
//! A trial of an upgrade is started the same way. Its first message tells it to try.

use crate::handler_output;
use crate::keeper::service_manager::forget;
use crate::protocol::keeper::{ToKeeper, ToWorker};
use crate::protocol::link::{Link, pair};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid,
};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};

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
    /// Reading ends of the pipes that its handlers' output is in. Empty: it has sent none.
    pub(super) output: Vec<OwnedFd>,
}

impl Process {
    /// Watches a child. Costs one descriptor. A pidfd names this very process, so its event cannot
    /// be about a later process with the same id.
    pub(super) fn watch(child: Child) -> io::Result<Process> {
        let ended = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        Ok(Process { child, ended, output: Vec::new() })
    }

    /// The process id.
    pub(super) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Exit status, once the process has ended; `None`: it lives. Ends what is left of its group,
    /// and reaps it. Repeatable.
    ///
    /// A program that a job has started is in the group. It would go on beside the job's second
    /// run.
    pub(super) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // Fails if it was reaped before: the child remembers its status.
        match waitid(WaitId::Pid(self.pid()), options) {
            Ok(None) => return Ok(None),
            // Not reaped yet, so no other process can have its number, nor another group.
            Ok(Some(_)) => _ = kill_process_group(self.pid(), Signal::KILL),
            Err(_) => {}
        }
        self.child.try_wait()
    }

    /// Logs what the process printed last, once it has ended.
    pub(super) fn log_last_output(self) {
        handler_output::log_rest(self.output);
    }

    /// Kills the process and its group, and waits for its end. SIGKILL makes that wait short.
    pub(super) fn end(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }

    /// Kills the process and its group, unless it has ended. Does not wait.
    pub(super) fn kill(&mut self) {
        // Without an effect if the process is not the leader of a group.
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = kill_process_group(self.pid(), Signal::KILL);
            let _ = self.child.kill();
        }
    }
}

/// Starts `greenroom worker` from a binary. Must run on the keeper's first thread: the worker dies
/// with the thread that started it (PR_SET_PDEATHSIG). Fails if the limit of processes or files is
/// reached, or if the kernel cannot run the binary.
pub(super) fn start(binary: &File) -> io::Result<Spawned> {
    let (ours, theirs) = pair()?;
    // The descriptor is executed, not a path: the binary that was checked, or that runs here, may
    // be replaced on disk.
    let mut command = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()));
    let child = forget(&mut command)
        .arg0("greenroom")
        .arg("worker")
        .stdin(Stdio::from(theirs))
        // Until the worker has a pipe for it, a print goes to the log: the reader of standard
        // output may be gone after `ready`.
        .stdout(io::stderr().as_fd().try_clone_to_owned()?)
        // A group of its own: an interrupt from the terminal goes to the keeper only. What the
        // worker leaves behind is ended by its group.
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
