//! Command `greenroom worker`: the process that serves. The keeper starts it, with its socket
//! as standard input.
//!
//! Configuration, memory files and connections come over that socket. The process ends when the
//! keeper says so or dies. Its records stay in memory files that the keeper holds.

use crate::cli::output::{CommandFailure, exit_code};
use crate::cli::signals;
use crate::sys::fork::{exit_now, flush_c_streams};
use crate::worker::takeover;
use rustix::process::{Signal, set_parent_process_death_signal};
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::mpsc::channel;
use std::time::Duration;

/// Longest wait for what handlers in C have printed.
const FLUSH_MAX: Duration = Duration::from_millis(200);

/// Prepares the process, serves, and ends it. An error text goes to standard error, which is the
/// keeper's.
///
/// The process ends without a return from `main`: a handler's destructors would run then, and one
/// that crashes or hangs would count as the end of the host's own work.
pub(super) fn run() -> ! {
    let result = serve();
    let code = i32::from(result.is_err());
    let _ = exit_code(result);
    // A thread of a handler may hold a stream for ever.
    let (flushed, wait) = channel();
    let flush = move || {
        flush_c_streams();
        let _ = flushed.send(());
    };
    if std::thread::Builder::new().spawn(flush).is_ok() {
        let _ = wait.recv_timeout(FLUSH_MAX);
    }
    exit_now(code)
}

fn serve() -> Result<(), CommandFailure> {
    let failed = |e: std::io::Error| CommandFailure::Failed(format!("standard input: {e}"));
    // Without its keeper the worker can neither accept nor release a connection.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    signals::survive_in_worker().map_err(failed)?;
    let socket = std::io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
    // A handler that reads standard input must not read the socket.
    let nothing = File::open("/dev/null").map_err(failed)?;
    rustix::stdio::dup2_stdin(&nothing).map_err(|e| failed(e.into()))?;
    let _ = rustix::thread::set_name(c"greenroom-worker");
    takeover::start::serve(socket, true).map_err(CommandFailure::Failed)
}
