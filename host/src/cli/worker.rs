//! Command `greenroom worker`: the process that serves. The keeper starts it, with its socket
//! as standard input.
//!
//! Configuration, memory files and connections come over that socket. The process ends when the
//! keeper says so or dies. Its records stay in memory files that the keeper holds.

use crate::cli::output::CommandFailure;
use crate::cli::signals;
use crate::worker::takeover;
use rustix::process::{Signal, set_parent_process_death_signal};
use std::fs::File;
use std::os::fd::AsFd;

/// Prepares the process, then serves. An error text goes to standard error, which is the
/// keeper's.
pub(super) fn run() -> Result<(), CommandFailure> {
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
