//! News that reach the loop of the command, each from a thread of its own.

use crate::cli::dev::project::BuildFailure;
use std::path::PathBuf;

/// News for the loop.
pub(super) enum DevEvent {
    /// Something happened in a watched folder.
    Hint,
    /// Key of the terminal.
    Key(u8),
    /// Signal that ends the command.
    Signal,
    /// Line of the host's log.
    Log(String),
    /// Host serves at these addresses.
    Ready(Vec<String>),
    /// Output of the host has ended, and so has the host.
    HostEnded,
    /// Build ended, with its libraries.
    Built(Result<Vec<PathBuf>, BuildFailure>),
    /// Reload ended, with what is to be told.
    Swapped(Result<(), String>),
}
