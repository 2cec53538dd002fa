//! Command `greenroom status`: the host and its services.
//!
//! The keeper answers from its own memory and the board, so this works while no worker lives or
//! a callback stalls. Exit code 3 means that no host runs.

use crate::admin::client::call;
use crate::cli::output::{CommandFailure, print_json, print_text, table};
use crate::printable::one_line;
use crate::protocol::admin::{AdminCommand, Reply};
use clap::Args;
use std::path::Path;
use std::time::Duration;

// Doc comments of the fields are the help text of the command line.
#[derive(Args)]
pub(super) struct StatusArgs {
    /// JSON, for programs
    #[arg(long)]
    json: bool,
}

impl StatusArgs {
    /// Runs the command. With `--json` prints all fields; the text leaves out what is zero or
    /// unknown.
    pub(super) fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        call(dir, &AdminCommand::Status, |reply| {
            let Reply::Status(status) = reply else { return };
            if self.json {
                return print_json(&status);
            }
            let host = &status.host;
            let reason = host.reason.as_deref().map(one_line);
            let up = humantime::format_duration(Duration::from_secs(host.uptime_s));
            let mut table = table(&[
                "SERVICE",
                "LIBRARY",
                "GENERATION",
                "BUILD",
                "STATE",
                "LISTEN",
                "SESSIONS",
                "TURNS",
                "FAULTS",
            ]);
            for s in &status.services {
                table.add_row([
                    s.name.clone(),
                    s.library.clone(),
                    s.generation.to_string(),
                    s.build.get(..12).unwrap_or_default().to_owned(),
                    format!("v{}", s.state_version),
                    s.listen.join(" "),
                    s.sessions.to_string(),
                    s.turns.to_string(),
                    s.faults.to_string(),
                ]);
            }
            // Without a process there is a reason why the last worker ended or why none starts.
            let worker = match (host.worker_pid, &reason) {
                (0, Some(reason)) => format!("worker {} ({reason})", host.worker),
                (0, None) => format!("worker {}", host.worker),
                (pid, _) => format!("worker {pid} {}", host.worker),
            };
            print_text(&format!(
                "greenroom {}, pid {}, {worker}, up {up}\n{table}\n",
                host.version, host.pid
            ));
            // Limits that were never reached say nothing.
            let reached: Vec<_> =
                host.limits.iter().filter(|(_, n)| **n > 0).map(|(name, n)| format!("{name} {n}")).collect();
            if !reached.is_empty() {
                print_text(&format!("limits reached so often: {}\n", reached.join(", ")));
            }
            for missing in &host.missing {
                print_text(&format!("missing: {missing}\n"));
            }
            let made: Vec<_> = host.made_anew.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
            if !made.is_empty() {
                print_text(&format!("deleted by others and made anew so often: {}\n", made.join(", ")));
            }
            if !host.confinement.missing.is_empty() {
                let missing = host.confinement.missing.join("; ");
                print_text(&format!("builds are tried without all confinement: {missing}\n"));
            }
            // Shown only if the keeper knows how the last worker ended.
            if let (n @ 1.., Some(reason)) = (host.workers_before, &reason) {
                let workers = if n == 1 { "worker" } else { "workers" };
                print_text(&format!("{n} {workers} before this one; the last ended: {reason}\n"));
            }
        })?;
        Ok(())
    }
}
