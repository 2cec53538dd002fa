//! Command `greenroom status`: the host and its services.
//!
//! The keeper answers from its own memory and the board, so this works while no worker lives or
//! a callback stalls. Exit code 3 means that no host runs.

use crate::admin::client::call;
use crate::cli::log::level_in_words;
use crate::cli::output::{CommandFailure, json_line};
use crate::cli::table::{Form, Table, table};
use crate::cli::watch::Watch;
use crate::printable::one_line;
use crate::protocol::admin::{AdminCommand, Reply};
use crate::protocol::status::{
    ConfigFileStatus, Failing, FileStatus, HostStatus, JobsStatus, ServiceStatus, Status, stacks,
};
use clap::Args;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

// Doc comments of the fields are the help text of the command line.
#[derive(Args)]
pub(super) struct StatusArgs {
    /// All columns, on lines of any length
    #[arg(long, conflicts_with = "json")]
    wide: bool,
    /// JSON, for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    watch: Watch,
}

impl StatusArgs {
    /// Runs the command. With `--json` prints all fields; the text leaves out what is zero or
    /// unknown.
    pub(super) fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        self.watch.run(!self.json, || {
            let mut text = String::new();
            call(dir, &AdminCommand::Status, |reply| {
                let Reply::Status(status) = reply else { return };
                text = match self.json {
                    true => json_line(&status),
                    false => in_words(&status, Form::of_output(self.wide)),
                };
            })?;
            Ok(text)
        })
    }
}

/// Tells a status to people.
fn in_words(status: &Status, form: Form) -> String {
    let host = &status.host;
    let reason = host.reason.as_deref().map(one_line);
    let up = humantime::format_duration(Duration::from_secs(host.uptime_s));
    let table = services(status).in_form(form);
    // Without a process there is a reason why the last worker ended or why none starts.
    let worker = match (host.worker_pid, &reason) {
        (0, Some(reason)) => format!("worker {} ({reason})", host.worker),
        (0, None) => format!("worker {}", host.worker),
        (pid, _) => format!("worker {pid} {}", host.worker),
    };
    let mut text = format!("greenroom {}, pid {}, {worker}, up {up}\n{table}\n", host.version, host.pid);
    let out = &mut text;
    tell_troubles(host, out);
    // Limits that were never reached say nothing.
    let reached: Vec<_> =
        host.limits.iter().filter(|(_, n)| **n > 0).map(|(name, n)| format!("{name} {n}")).collect();
    if !reached.is_empty() {
        let _ = writeln!(out, "limits reached so often: {}", reached.join(", "));
    }
    tell_work(status, out);
    if !host.log.is_empty() {
        let levels: Vec<_> = host.log.iter().map(level_in_words).collect();
        let _ = writeln!(out, "log: {}", levels.join("; "));
    }
    for missing in &host.missing {
        let _ = writeln!(out, "missing: {}", one_line(missing));
    }
    tell_files(host, out);
    let made: Vec<_> = host.made_anew.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
    if !made.is_empty() {
        let _ = writeln!(out, "deleted by others and made anew so often: {}", made.join(", "));
    }
    if !host.confinement.missing.is_empty() {
        let missing = host.confinement.missing.join("; ");
        let _ = writeln!(out, "builds are tried without all confinement: {missing}");
    }
    // Shown only if the keeper knows how the last worker ended.
    if let (n @ 1.., Some(reason)) = (host.workers_before, &reason) {
        let workers = if n == 1 { "worker" } else { "workers" };
        let _ = writeln!(out, "{n} {workers} before this one; the last ended: {reason}");
    }
    text
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

/// Tells the library files that are not the builds that run, and how late changes are noticed.
/// Files that were refused are among what fails, and are told there.
fn tell_files(host: &HostStatus, out: &mut String) {
    let told = |file: &&FileStatus| host.failing.iter().any(|part| is_of(part, file));
    for file in host.files.iter().filter(|file| !told(file)) {
        let _ = writeln!(out, "{}", one_line(&file_line(file)));
    }
    for file in &host.configuration {
        let is_told = |why: &String| host.failing.iter().any(|part| part.why == *why);
        let _ =
            writeln!(out, "{}", one_line(&config_file_line(file, file.reason.as_ref().is_some_and(is_told))));
    }
    if let Some(why) = &host.slow_look {
        let _ = writeln!(out, "changed files are noticed late: {}", one_line(why));
    }
}

/// Line about a library's file that is not the build that runs.
fn file_line(file: &FileStatus) -> String {
    let why = match (&file.reason, &file.build) {
        (Some(reason), Some(_)) => format!("refused: {reason}"),
        (Some(reason), None) => reason.clone(),
        (None, _) if file.is_canary => "it runs as a canary; `greenroom canary` has more".to_owned(),
        (None, _) => "not loaded yet; `greenroom reload` loads it".to_owned(),
    };
    format!("file {} {}; {why}", file.path.display(), holds_and_runs(file))
}

/// Line about a file of the configuration that is not in force. `is_told`: the reason stands above.
fn config_file_line(file: &ConfigFileStatus, is_told: bool) -> String {
    let which = if file.is_of_settings { "of settings" } else { "of the configuration" };
    let holds = match (&file.reason, file.values.is_empty()) {
        (Some(_), true) if !file.is_of_settings => "can't be used".to_owned(),
        (_, true) => "is not what is in force".to_owned(),
        (_, false) => format!("is not what is in force: {}", file.values.join(", ")),
    };
    let why = match &file.reason {
        Some(_) if is_told => "it was refused".to_owned(),
        Some(reason) => reason.clone(),
        None => "`greenroom reload --config` puts it in force".to_owned(),
    };
    format!("file {} {which} {holds}; {why}", file.path.display())
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

/// Tells the canary and the jobs of each service that has any, and the longest pass of the loop.
fn tell_work(status: &Status, out: &mut String) {
    for s in &status.services {
        let JobsStatus { running, waiting, oldest_ms } = s.jobs;
        if let Some(c) = &s.canary {
            let build = c.build.get(..12).unwrap_or(&c.build);
            let _ = writeln!(
                out,
                "canary of {}: generation {}, build {build}, {} % of new sessions, {} chosen; `greenroom canary` has more",
                s.name, c.generation, c.share, c.chosen
            );
        }
        if running + waiting > 0 {
            let oldest = humantime::format_duration(Duration::from_millis(oldest_ms.unwrap_or(0)));
            let _ = writeln!(
                out,
                "jobs of {}: {running} running, the oldest for {oldest}; {waiting} waiting",
                s.name
            );
        }
    }
    if status.host.longest_pass_ms > 0 {
        let _ = writeln!(out, "longest pass of the loop: about {} ms", status.host.longest_pass_ms);
    }
}

/// Tells what stalls and what fails, a line each.
fn tell_troubles(host: &HostStatus, out: &mut String) {
    if let Some(stalled) = &host.stalled {
        let _ = writeln!(out, "stalled: {}", one_line(&stalled.text));
    }
    for part in &host.failing {
        let Failing { what, why, since, times } = part;
        let times = if *times == 1 { "once".to_owned() } else { format!("{times} times") };
        let file = host.files.iter().find(|file| is_of(part, file)).map(holds_and_runs);
        let file = file.map(|text| format!("; it {text}")).unwrap_or_default();
        let line = format!("{what}, {times} since {since}: {why}{file}");
        let _ = writeln!(out, "failing: {}", one_line(&line));
    }
    if host.peers_left > 0 {
        let _ = writeln!(out, "peers that have left meanwhile: {} of {}", host.peers_left, host.connections);
    }
}
