//! `greenroom upgrade`: replaces the worker by one from another binary, and keeps every session.

use crate::admin::client::call;
use crate::cli::output::{Failure, print_text};
use crate::protocol::admin::{AdminCommand, Reply};
use clap::Args;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(super) struct Upgrade {
    /// The binary to go on with [default: this one]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

impl Upgrade {
    pub(super) fn run(self, dir: &Path) -> Result<(), Failure> {
        let binary = match self.binary {
            Some(path) => path,
            None => std::env::current_exe().map_err(|e| Failure::Failed(format!("this binary: {e}")))?,
        };
        let binary =
            binary.canonicalize().map_err(|e| Failure::Failed(format!("{}: {e}", binary.display())))?;
        call(dir, &AdminCommand::Upgrade { binary }, |reply| {
            if let Reply::Text(text) = reply {
                print_text(&text);
            }
        })?;
        Ok(())
    }
}
