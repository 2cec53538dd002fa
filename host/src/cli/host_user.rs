//! Change of the user at the start of `greenroom serve`: `--user`, or `process.user` in the
//! configuration.
//!
//! The configuration is read twice then: as root, to learn the user, and as the user. So a file
//! that the user cannot read is refused at the start, and not at the first reload.

use crate::cli::output::CommandFailure;
use crate::config::Config;
use crate::config::source::ConfigSource;
use crate::sys::user::HostUser;
use std::path::Path;

/// Reads the configuration, and goes on as the user that it or the command line names. Returns the
/// user, if the process has changed it. To be called while the process has one thread.
///
/// `dirs` are directories of the host, which root makes for the user if they are not there.
pub(super) fn read_as_user<'a>(
    source: &ConfigSource,
    asked: Option<&str>,
    dirs: impl Iterator<Item = &'a Path>,
) -> Result<(Config, Option<HostUser>), CommandFailure> {
    let config = source.read().map_err(CommandFailure::Failed)?;
    let Some(name) = asked.or(config.process.user.as_deref()) else { return Ok((config, None)) };
    let user = HostUser::find(name).map_err(CommandFailure::Failed)?;
    if user.is_this() {
        return Ok((config, None));
    }
    for dir in dirs {
        user.give_dir(dir).map_err(|e| CommandFailure::Failed(format!("{}: {e}", dir.display())))?;
    }
    user.enter().map_err(CommandFailure::Failed)?;
    let as_user = |e: String| CommandFailure::Failed(format!("as user {user}: {e}"));
    let config = source.read().map_err(as_user)?;
    Ok((config, Some(user)))
}
