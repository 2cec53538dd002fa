//! Confinement of candidates on this machine, as `serve` and `--check-config` find it.

use crate::cli::output::CommandFailure;
use crate::config::Config;
use crate::plugin::trial;
use crate::protocol::status::Confined;
use crate::sys::proc::own_binary;

/// Finds out how candidates are confined on this machine. Fails if the configuration requires more.
/// `warn` is told of what is missing.
pub(super) fn confined(config: &Config, warn: impl FnOnce(&str)) -> Result<Confined, CommandFailure> {
    let found = own_binary().map_err(|e| e.to_string()).and_then(|binary| trial::probe(&binary));
    let confined = found.unwrap_or_else(|why| Confined {
        missing: vec![format!("landlock and seccomp: {why}")],
        ..Confined::default()
    });
    config.reload.confinement.allows(&confined.missing).map_err(CommandFailure::Failed)?;
    if !confined.missing.is_empty() {
        warn(&format!(
            "builds are tried without all confinement, and one that is refused may leave traces: {}; with \
             reload.confinement = \"required\" none is tried",
            confined.missing.join("; ")
        ));
    }
    Ok(confined)
}
