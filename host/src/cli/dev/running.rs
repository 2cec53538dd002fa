//! Compiler that runs now, so that the end of the command ends it, too.

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};

/// Number of the program that one thread runs and another one may end.
#[derive(Clone, Default)]
pub(super) struct CompilerProcess(Arc<Mutex<Option<Pid>>>);

impl CompilerProcess {
    /// Starts a program, in a process group of its own: what it starts itself ends with it.
    pub(super) fn start(&self, command: &mut Command) -> io::Result<Child> {
        let child = command.process_group(0).spawn()?;
        self.set(Some(Pid::from_child(&child)));
        Ok(child)
    }

    /// Waits for its end.
    pub(super) fn wait(&self, child: &mut Child) -> io::Result<ExitStatus> {
        let ends = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while matches!(waitid(WaitId::Pid(Pid::from_child(child)), ends), Err(rustix::io::Errno::INTR)) {}
        // Its number may be another group's once it is reaped.
        self.set(None);
        child.wait()
    }

    /// Ends it, if it runs, and all of its group.
    pub(super) fn end(&self) {
        if let Some(group) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = kill_process_group(group, Signal::TERM);
        }
    }

    fn set(&self, runs: Option<Pid>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = runs;
    }
}
