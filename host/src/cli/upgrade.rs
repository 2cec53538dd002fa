//! Command `greenroom upgrade`: replaces the worker by one from another binary, and keeps every
//! session.
//!
//! The host lets the new binary read a snapshot of its records first, and refuses it if that
//! fails. The keeper itself stays: a new keeper needs a restart of the host. The answer comes
//! when the new worker serves, or with the reason why the previous binary goes on.

use crate::admin::client::{CallError, call};
use crate::cli::output::{CommandFailure, print_text};
use crate::config::is_text;
use crate::protocol::admin::{AdminCommand, NO_WORKER, Reply};
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest wait for a worker that starts, as for other commands.
const WORKER_WAIT: Duration = Duration::from_secs(5);
/// Pause before the host is asked again. Each time is a line of the audit log.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);

// Doc comments of the fields are the help text of the command line.
#[derive(Args)]
pub(super) struct Upgrade {
    /// The binary to go on with [default: this one]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

impl Upgrade {
    /// Runs the command. The path is resolved here: the keeper has another working directory,
    /// and a link may lead elsewhere later.
    pub(super) fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        // The operator's own binary, so that a newly installed `greenroom` upgrades the host to
        // itself.
        let binary = match self.binary {
            Some(path) => path,
            None => {
                std::env::current_exe().map_err(|e| CommandFailure::Failed(format!("this binary: {e}")))?
            }
        };
        let binary = binary
            .canonicalize()
            .map_err(|e| CommandFailure::Failed(format!("{}: {e}", binary.display())))?;
        is_text(&binary).map_err(CommandFailure::Failed)?;
        let begun = Instant::now();
        loop {
            let done = call(dir, &AdminCommand::Upgrade { binary: binary.clone() }, |reply| {
                if let Reply::Text(text) = reply {
                    print_text(&text);
                }
            });
            match done {
                Err(CallError::Failed(why)) if why.ends_with(NO_WORKER) && begun.elapsed() < WORKER_WAIT => {
                    std::thread::sleep(ASK_AGAIN_AFTER);
                }
                done => return Ok(done?),
            }
        }
    }
}
