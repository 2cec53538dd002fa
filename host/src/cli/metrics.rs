//! Command `greenroom metrics`: all figures, as collectors read them.
//!
//! The keeper answers, so this works while no worker serves or a callback stalls. It needs no HTTP
//! server: a collector may run the command and take its output.

use crate::admin::client::call;
use crate::cli::output::{CommandFailure, print_json, print_text};
use crate::observe::metrics::{MetricsFormat, render_as};
use crate::protocol::admin::{AdminCommand, Reply};
use clap::Args;
use std::path::Path;

// Doc comments of the fields are the help text of the command line.
#[derive(Args)]
pub(super) struct MetricsArgs {
    /// Text in the format of Prometheus (0.0.4) instead of OpenMetrics
    #[arg(long, conflicts_with = "json")]
    prometheus: bool,
    /// JSON, for programs, with finer histograms
    #[arg(long)]
    json: bool,
}

impl MetricsArgs {
    /// Runs the command.
    pub(super) fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        let format = match self.prometheus {
            true => MetricsFormat::Prometheus,
            false => MetricsFormat::OpenMetrics,
        };
        call(dir, &AdminCommand::Metrics, |reply| match reply {
            Reply::Metrics(metrics) if self.json => print_json(&metrics),
            Reply::Metrics(metrics) => print_text(&render_as(&metrics, format)),
            _ => {}
        })?;
        Ok(())
    }
}
