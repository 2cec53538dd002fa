//! Command `greenroom observer`: the process that serves HTTP. The keeper starts it, with its
//! socket as standard input. It has no log: the keeper logs what it is told.

use crate::cli::output::CommandFailure;
use crate::cli::signals;
use crate::observe;
use rustix::process::{DumpableBehavior, Signal, set_dumpable_behavior, set_parent_process_death_signal};
use std::os::fd::AsFd;

/// Prepares the process, then serves.
pub(super) fn run() -> Result<(), CommandFailure> {
    let failed = |e: std::io::Error| CommandFailure::Failed(format!("standard input: {e}"));
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    // No core file holds the token.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    signals::survive_in_worker().map_err(failed)?;
    let socket = std::io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
    let _ = rustix::thread::set_name(c"greenroom-http");
    observe::serve(socket).map_err(CommandFailure::Failed)
}
