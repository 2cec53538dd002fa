//! Compiler that runs now, so that the end of the command ends it, too.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};

/// Handle of the program that one thread runs and another one may end.
#[derive(Clone, Default)]
pub(super) struct CompilerProcess(Arc<Mutex<Option<OwnedFd>>>);

impl CompilerProcess {
    /// Starts a program.
    pub(super) fn start(&self, command: &mut Command) -> io::Result<Child> {
        let child = command.spawn()?;
        // Without a handle, the program is left to end by itself.
        let pidfd =
            Pid::from_raw(child.id() as i32).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = pidfd;
        Ok(child)
    }

    /// Waits for its end.
    pub(super) fn wait(&self, child: &mut Child) -> io::Result<ExitStatus> {
        let status = child.wait();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
        status
    }

    /// Ends it, if it runs.
    pub(super) fn end(&self) {
        if let Some(pidfd) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = pidfd_send_signal(pidfd, Signal::TERM);
        }
    }
}
