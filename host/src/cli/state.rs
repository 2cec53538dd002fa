//! `greenroom state dump`: what sessions and tables hold, as JSON.

use super::{Failure, print_text};
use crate::admin::call::call;
use crate::admin::wire::{Command, Reply};
use clap::{Args, Subcommand};
use std::path::Path;

#[derive(Subcommand)]
pub(super) enum State {
    /// Print sessions with their states, and tables, as JSON
    Dump(Dump),
}

#[derive(Args)]
pub(super) struct Dump {
    /// Only the sessions of this service
    #[arg(long)]
    service: Option<String>,
    /// Only this session
    #[arg(long, value_name = "ID")]
    session: Option<u64>,
    /// Accepted for the sake of scripts: a dump is JSON anyway
    #[arg(long, hide = true)]
    json: bool,
}

impl State {
    pub(super) fn run(self, dir: &Path) -> Result<(), Failure> {
        let State::Dump(Dump { service, session, .. }) = self;
        call(dir, &Command::Dump { service, session }, |reply| {
            if let Reply::Text(text) = reply {
                print_text(&text);
            }
        })?;
        Ok(())
    }
}
