//! `greenroom status`: the host and its services.

use crate::admin::client::call;
use crate::cli::output::{Failure, print_json, print_text, table};
use crate::protocol::admin::{AdminCommand, Reply};
use clap::Args;
use std::path::Path;
use std::time::Duration;

#[derive(Args)]
pub(super) struct Status {
    /// JSON, for programs
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) fn run(self, dir: &Path) -> Result<(), Failure> {
        call(dir, &AdminCommand::Status, |reply| {
            let Reply::Status(status) = reply else { return };
            if self.json {
                return print_json(&status);
            }
            let host = &status.host;
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
            let worker = match (host.worker_pid, &host.reason) {
                (0, Some(reason)) => format!("worker {} ({reason})", host.worker),
                (0, None) => format!("worker {}", host.worker),
                (pid, _) => format!("worker {pid} {}", host.worker),
            };
            print_text(&format!(
                "greenroom {}, pid {}, {worker}, up {up}\n{table}\n",
                host.version, host.pid
            ));
            let reached: Vec<_> =
                host.limits.iter().filter(|(_, n)| **n > 0).map(|(name, n)| format!("{name} {n}")).collect();
            if !reached.is_empty() {
                print_text(&format!("limits reached so often: {}\n", reached.join(", ")));
            }
            if let (n @ 1.., Some(reason)) = (host.workers_before, &host.reason) {
                let workers = if n == 1 { "worker" } else { "workers" };
                print_text(&format!("{n} {workers} before this one; the last ended: {reason}\n"));
            }
        })?;
        Ok(())
    }
}
