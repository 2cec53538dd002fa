//! `greenroom reload`: asks for a reload, waits for it, and tells the truth in its exit code.

use super::{Failure, print_json, print_text};
use crate::admin::call::call;
use crate::admin::wire::{Command, Reply, ledger_line};
use clap::Args;
use greenroom_core::reload::Outcome;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(super) struct Reload {
    /// A service or its library; none: every library that changed
    service: Option<String>,
    /// Load this file instead of the one that is watched
    #[arg(long, value_name = "PATH", requires = "service")]
    from: Option<PathBuf>,
    /// One line of JSON for each library
    #[arg(long)]
    json: bool,
}

impl Reload {
    pub(super) fn run(self, dir: &Path) -> Result<(), Failure> {
        let from = match self.from {
            None => None,
            Some(p) => {
                Some(std::path::absolute(&p).map_err(|e| Failure::Usage(format!("{}: {e}", p.display())))?)
            }
        };
        let mut refused = false;
        call(dir, &Command::Reload { service: self.service, from }, |reply| {
            let Reply::Report(report) = reply else { return };
            refused |= report.outcome == Outcome::Refused;
            match self.json {
                true => print_json(&report),
                false => print_text(&(ledger_line(&report) + "\n")),
            }
        })?;
        if refused { Err(Failure::Failed(String::new())) } else { Ok(()) }
    }
}
