//! Host of the command's own: a keeper as a child, which ends with this process.
//!
//! Its runtime directory is named by the folder that is served, so two commands for two folders
//! live side by side. If this process is killed, the kernel tells the keeper (`serve --end-with`),
//! which stops in order; the worker ends with its keeper.

use crate::cli::dev::event::DevEvent;
use crate::cli::output::complain;
use crate::exit_status::how;
use crate::runtime_dir::socket_path;
use crate::sys::proc::own_binary;
use rustix::fs::{FlockOperation, Mode, flock};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};
use std::cell::Cell;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

/// Time that a host gets to stop in order.
const STOP_MAX: Duration = Duration::from_secs(20);

/// Time after which the author is told that it does so.
const QUIET_STOP: Duration = Duration::from_secs(1);

/// Host that was started.
pub(super) struct DevHost {
    child: Child,
    /// Runtime directory of the host.
    runtime: PathBuf,
    /// Libraries that it was started with.
    libraries: Vec<PathBuf>,
    /// Host serves: it has the directory to itself.
    pub serves: bool,
}

/// Runtime directory for a folder. The folder's path is in the name as a hash: a socket's path is
/// short.
pub(super) fn runtime_for(dir: &Path) -> PathBuf {
    let digits: String =
        Sha256::digest(dir.as_os_str().as_bytes()).iter().take(4).map(|b| format!("{b:02x}")).collect();
    std::env::temp_dir().join(format!("greenroom-dev-{}-{digits}", rustix::process::geteuid().as_raw()))
}

/// Locks a folder, so that only one command serves it. The lock ends with the file that is
/// returned. A file system without locks has none.
pub(super) fn only_one(dir: &Path) -> Result<Option<File>, String> {
    let folder = File::open(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(folder)),
        Err(Errno::WOULDBLOCK) => Err(format!(
            "another `greenroom dev` serves {} already; end it (its key is q), or serve a copy of the folder",
            dir.display()
        )),
        Err(_) => Ok(None),
    }
}

/// Has cargo make files that no group may write: a host refuses others.
pub(super) fn no_file_is_for_others() {
    let mask = rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let _ = rustix::process::umask(mask | Mode::WGRP | Mode::WOTH);
}

impl DevHost {
    /// Starts a host of some libraries. Must run on the first thread: the kernel watches the thread
    /// that starts the keeper. News come to `tell`.
    pub(super) fn start(
        runtime: PathBuf,
        libraries: &[PathBuf],
        more: &[OsString],
        tell: Sender<DevEvent>,
    ) -> Result<DevHost, String> {
        let failed = |e: std::io::Error| format!("the host can't be started: {e}");
        // Left by a command that was killed. Its host may be about to stop, and its tables may be
        // of another schema.
        let give_up = Instant::now() + STOP_MAX;
        while UnixStream::connect(socket_path(&runtime)).is_ok() && Instant::now() < give_up {
            std::thread::sleep(Duration::from_millis(10));
        }
        clear(&runtime);
        let binary = own_binary().map_err(failed)?;
        let mut command = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()));
        command.arg0("greenroom").arg("--runtime").arg(&runtime);
        command.args(["serve", "--no-watch", "--end-with", &std::process::id().to_string()]);
        command.args(more).args(libraries);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // An interrupt from the terminal is this process's affair: it stops the host in order.
        let mut child = command.process_group(0).spawn().map_err(failed)?;
        let (out, log) = (child.stdout.take(), child.stderr.take());
        let told = tell.clone();
        let thread = |name: &str| std::thread::Builder::new().name(name.into());
        thread("host's log")
            .spawn(move || lines(log, |line| told.send(DevEvent::Log(line)).is_ok()))
            .map_err(failed)?;
        let hears = move || {
            let mut addresses = Vec::new();
            lines(out, |line| match line == "ready" {
                true => tell.send(DevEvent::Ready(std::mem::take(&mut addresses))).is_ok(),
                false => {
                    addresses.push(line);
                    true
                }
            });
            let _ = tell.send(DevEvent::HostEnded);
        };
        thread("host's output").spawn(hears).map_err(failed)?;
        Ok(DevHost { child, runtime, libraries: libraries.to_vec(), serves: false })
    }

    /// Tells of libraries that were built and that the host does not serve; `None`: it serves all.
    pub(super) fn lacks(&self, built: &[PathBuf]) -> Option<String> {
        let lacking = built.iter().filter(|library| !self.libraries.contains(library));
        let names: Vec<_> = lacking.filter_map(|l| Some(l.file_stem()?.to_string_lossy())).collect();
        (!names.is_empty()).then(|| {
            let names = names.join(", ");
            format!("{names}: built, and not served by this host; end this command and start it again")
        })
    }

    /// Runtime directory of the host.
    pub(super) fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// Waits for a host whose output has ended, and tells how it ended.
    pub(super) fn ended(mut self) -> String {
        let Some(how) = self.wait(STOP_MAX, || false) else { return "does not end".into() };
        clear(&self.runtime);
        how
    }

    /// Stops the host in order, and deletes its runtime directory. Kills it after some time, or if
    /// the author ends the command once more.
    pub(super) fn stop(mut self, events: &Receiver<DevEvent>) {
        let once_more = || events.try_iter().any(|e| matches!(e, DevEvent::Key(b'q') | DevEvent::Signal));
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            // A child that was not waited for keeps its number.
            let _ = kill_process(pid, Signal::TERM);
        }
        let ended = Cell::new(false);
        let again = || {
            ended.set(ended.get() || once_more());
            ended.get()
        };
        let mut stopped = self.wait(QUIET_STOP, again);
        if stopped.is_none() && !ended.get() {
            complain("the host is stopping; q or Ctrl-C again kills it");
            stopped = self.wait(STOP_MAX, again);
        }
        if stopped.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        clear(&self.runtime);
    }

    /// Waits for the end for some time, or until somebody is impatient. `None`: it goes on.
    fn wait(&mut self, at_most: Duration, impatient: impl Fn() -> bool) -> Option<String> {
        let give_up = Instant::now() + at_most;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(how(status).0),
                Err(e) => return Some(e.to_string()),
                Ok(None) if Instant::now() > give_up || impatient() => return None,
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

/// Deletes a runtime directory that no host serves from.
fn clear(runtime: &Path) {
    if UnixStream::connect(socket_path(runtime)).is_err() {
        let _ = std::fs::remove_dir_all(runtime);
    }
}

/// Hands on each line of a pipe, until it ends or nobody wants more.
fn lines(pipe: Option<impl Read>, mut each: impl FnMut(String) -> bool) {
    let Some(pipe) = pipe else { return };
    for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
        if !each(String::from_utf8_lossy(&line).into_owned()) {
            return;
        }
    }
}
