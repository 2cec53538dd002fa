//! Command `greenroom status`: the host and its services.
//!
//! The keeper answers from its own memory and the board, so this works while no worker lives or
//! a callback stalls. Exit code 3 means that no host runs.

use crate::admin::client::call;
use crate::cli::output::{CommandFailure, Table, print_json, print_text, table};
use crate::printable::one_line;
use crate::protocol::admin::{AdminCommand, Reply};
use crate::protocol::status::{Failing, FileStatus, HostStatus, JobsStatus, ServiceStatus, Status, stacks};
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
            let table = services(&status);
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
            print_troubles(host);
            // Limits that were never reached say nothing.
            let reached: Vec<_> =
                host.limits.iter().filter(|(_, n)| **n > 0).map(|(name, n)| format!("{name} {n}")).collect();
            if !reached.is_empty() {
                print_text(&format!("limits reached so often: {}\n", reached.join(", ")));
            }
            print_work(&status);
            for missing in &host.missing {
                print_text(&format!("missing: {missing}\n"));
            }
            print_files(host);
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

/// Table of the services that are not withdrawn.
fn services(status: &Status) -> Table {
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
            listens(s),
            s.sessions.to_string(),
            s.turns.to_string(),
            s.faults.to_string(),
        ]);
    }
    table
}

/// Endpoints of a service, and which stacks those at `[::]` take.
fn listens(service: &ServiceStatus) -> String {
    let all = service.listen.iter();
    let all = all.map(|e| format!("{e}{}", stacks(e, service.dual_stack.contains(e))));
    all.collect::<Vec<_>>().join(" ")
}

/// Whether a part that fails is this file, which was refused.
fn is_of(part: &Failing, file: &FileStatus) -> bool {
    part.what.strip_prefix("library ").is_some_and(|path| Path::new(path) == file.path)
}

/// Prints the library files that are not the builds that run, and how late changes are noticed.
/// Files that were refused are among what fails, and are told there.
fn print_files(host: &HostStatus) {
    let told = |file: &&FileStatus| host.failing.iter().any(|part| is_of(part, file));
    for file in host.files.iter().filter(|file| !told(file)) {
        print_text(&format!("{}\n", one_line(&file_line(file))));
    }
    if let Some(why) = &host.slow_look {
        print_text(&format!("changed files are noticed late: {}\n", one_line(why)));
    }
}

/// Line about a library's file that is not the build that runs.
fn file_line(file: &FileStatus) -> String {
    let why = match (&file.reason, &file.build) {
        (Some(reason), Some(_)) => format!("refused: {reason}"),
        (Some(reason), None) => reason.clone(),
        (None, _) => "not loaded yet; `greenroom reload` loads it".to_owned(),
    };
    format!("file {} {}; {why}", file.path.display(), holds_and_runs(file))
}

/// Build that a file holds, and the one that runs.
fn holds_and_runs(file: &FileStatus) -> String {
    let short = |hash: &str| hash.get(..12).unwrap_or(hash).to_owned();
    let holds = match &file.build {
        Some(hash) => format!("build {}", short(hash)),
        None => "no build".to_owned(),
    };
    let runs = match (&file.library, &file.runs) {
        (Some(library), Some(hash)) => format!("library {library} runs build {}", short(hash)),
        _ => "nothing of it runs".to_owned(),
    };
    format!("holds {holds}, and {runs}")
}

/// Prints the jobs of each service that has any, and the longest pass of the loop.
fn print_work(status: &Status) {
    for s in &status.services {
        let JobsStatus { running, waiting, oldest_ms } = s.jobs;
        if running + waiting > 0 {
            let oldest = humantime::format_duration(Duration::from_millis(oldest_ms.unwrap_or(0)));
            print_text(&format!(
                "jobs of {}: {running} running, the oldest for {oldest}; {waiting} waiting\n",
                s.name
            ));
        }
    }
    if status.host.longest_pass_ms > 0 {
        print_text(&format!("longest pass of the loop: about {} ms\n", status.host.longest_pass_ms));
    }
}

/// Prints what stalls and what fails, a line each.
fn print_troubles(host: &HostStatus) {
    if let Some(stalled) = &host.stalled {
        print_text(&format!("stalled: {}\n", one_line(&stalled.text)));
    }
    for part in &host.failing {
        let Failing { what, why, since, times } = part;
        let times = if *times == 1 { "once".to_owned() } else { format!("{times} times") };
        let file = host.files.iter().find(|file| is_of(part, file)).map(holds_and_runs);
        let file = file.map(|text| format!("; it {text}")).unwrap_or_default();
        let line = format!("{what}, {times} since {since}: {why}{file}");
        print_text(&format!("failing: {}\n", one_line(&line)));
    }
    if host.peers_left > 0 {
        print_text(&format!("peers that have left meanwhile: {} of {}\n", host.peers_left, host.connections));
    }
}
