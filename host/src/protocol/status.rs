//! The answer to `greenroom status`: the host, its services, and what fails or takes long.
//!
//! The keeper answers, also while no worker serves. Each field that came later has a default, so
//! commands and hosts of different versions understand each other.

use super::log::LevelLine;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// `greenroom status --json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// The host.
    pub host: HostStatus,
    /// Services that are not withdrawn.
    pub services: Vec<ServiceStatus>,
}

/// The host in a status.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HostStatus {
    /// The keeper's process.
    pub pid: u32,
    /// The worker's process; 0: none at the moment.
    pub worker_pid: u32,
    /// The binary's version.
    pub version: String,
    /// Seconds since the keeper started.
    pub uptime_s: u64,
    /// The worker's phase: `serving`, `starting`, `handing over`, or `parked`: none lives, and the
    /// connections wait for the next one.
    pub worker: String,
    /// Workers before this one.
    pub workers_before: u64,
    /// Reason why the previous worker ended, or why none can start.
    pub reason: Option<String>,
    /// Connections that are held.
    pub connections: usize,
    /// Of those, connections whose peers have left while no worker serves. A worker ends them.
    #[serde(default)]
    pub peers_left: usize,
    /// Times that each limit was reached since the host started.
    #[serde(default)]
    pub limits: BTreeMap<String, u64>,
    /// Work of the worker that has taken longer than a second. `null`: it goes on, or there is
    /// none.
    #[serde(default)]
    pub stalled: Option<Stalled>,
    /// Parts that fail at the moment, each until it succeeds.
    #[serde(default)]
    pub failing: Vec<Failing>,
    /// Files of the host that are missing at the moment, each with the reason.
    #[serde(default)]
    pub missing: Vec<String>,
    /// Times that files were gone and were made anew since the host started: `copies`, `locks`,
    /// `socket`.
    #[serde(default)]
    pub made_anew: BTreeMap<String, u64>,
    /// Milliseconds of the longest pass of the loop since the host started, as the watchdog saw it.
    #[serde(default)]
    pub longest_pass_ms: u64,
    /// Library files that are not the build that runs. One that was refused stands in `failing`,
    /// too, as `library PATH`.
    #[serde(default)]
    pub files: Vec<FileStatus>,
    /// Files of the configuration that are not in force: its own, and those that its settings name.
    #[serde(default)]
    pub configuration: Vec<ConfigFileStatus>,
    /// Reason why the system gives no notice of changed files, so that they are only looked at from
    /// time to time; null: it does.
    #[serde(default)]
    pub slow_look: Option<String>,
    /// Confinement of candidates in their trials, as it was when the host started.
    #[serde(default)]
    pub confinement: Confined,
    /// Reason why new connections are not served at the moment; null: they are.
    #[serde(default)]
    pub not_accepting: Option<String>,
    /// Observer, which serves metrics and the console; null: none is configured.
    #[serde(default)]
    pub observer: Option<ObserverStatus>,
    /// Levels of the log that operators have set; `greenroom log` changes them.
    #[serde(default)]
    pub log: Vec<LevelLine>,
}

/// The observer in a status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObserverStatus {
    /// Address that it listens on.
    pub listen: String,
    /// Process id; 0: none runs at the moment.
    pub pid: u32,
    /// Whether the console is served.
    pub console: bool,
    /// File of the token that the console wants.
    pub token_file: PathBuf,
}

/// A library's file that is not the build that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileStatus {
    /// Path of the file, as it is watched.
    pub path: PathBuf,
    /// Name of the library; null: no build of the file ran.
    pub library: Option<String>,
    /// SHA-256 of the file; null: it cannot be read.
    pub build: Option<String>,
    /// SHA-256 of the build that runs; null: none.
    pub runs: Option<String>,
    /// Reason why the file was refused, or cannot be read; null: it was not tried.
    pub reason: Option<String>,
    /// The file's build runs as a canary.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_canary: bool,
}

/// A file of the configuration that holds something else than is in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigFileStatus {
    /// Path of the file.
    pub path: PathBuf,
    /// Settings name the file. False: it is the configuration itself.
    pub is_of_settings: bool,
    /// Names of the values that differ; none of a file that settings name, or that cannot be read.
    pub values: Vec<String>,
    /// Reason why the file was refused, or cannot be used; null: it was not tried.
    pub reason: Option<String>,
}

/// Work of a worker that takes long, in a status.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stalled {
    /// All of it, in words.
    pub text: String,
    /// Time so far, in milliseconds.
    pub for_ms: u64,
    /// The process is stopped by a signal, or by a debugger.
    pub stopped: bool,
    /// The action that runs. `null`: no handler runs.
    pub running: Option<StalledAction>,
}

impl Stalled {
    /// The stall in words, and what an operator can do.
    pub fn with_way_out(&self) -> String {
        let of = self.running.as_ref().map(|action| match action.session {
            0 => action.service.clone(),
            number => number.to_string(),
        });
        let way = of.map(|of| format!("; `greenroom session withhold {of}` ends that"));
        format!("it is stalled: {}{}", self.text, way.unwrap_or_default())
    }
}

/// An action that takes long.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StalledAction {
    /// Name of the service.
    pub service: String,
    /// The library that serves it.
    pub library: String,
    /// Generation of the library.
    pub generation: u64,
    /// Number of the session; 0: the service itself.
    pub session: u64,
    /// Kind of the action.
    pub action: String,
    /// Number of the turn, from 1; 0: the service itself.
    pub turn: u64,
    /// Function, file and line, if known.
    pub place: Option<String>,
}

/// A part of the host that fails, in a status.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failing {
    /// Name of the part: `save`, `configuration`, `connections`, or `library PATH`.
    pub what: String,
    /// Reason of the last failure.
    pub why: String,
    /// Time of the first failure in a row, in RFC 3339.
    pub since: String,
    /// Failures in a row.
    pub times: u64,
}

/// Parts of the confinement of a candidate that can be put in force.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Confined {
    /// Changes of files are refused.
    pub landlock: bool,
    /// System calls beyond those of a computation are refused.
    pub seccomp: bool,
    /// The candidate can't name other processes. Not required by any configuration.
    pub namespaces: bool,
    /// Parts that are missing, of landlock and seccomp, each with the reason.
    pub missing: Vec<String>,
}

/// A service in a status.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Name of the service.
    pub name: String,
    /// The library that serves it.
    pub library: String,
    /// Generation of the library.
    pub generation: u64,
    /// SHA-256 of the library's file.
    pub build: String,
    /// Version of the service's state.
    pub state_version: u32,
    /// Addresses that the service listens on.
    pub listen: Vec<String>,
    /// Those of them at `[::]` that take IPv4, too: by their socket, or by a twin at 0.0.0.0.
    #[serde(default)]
    pub dual_stack: Vec<String>,
    /// Sessions alive.
    pub sessions: usize,
    /// Turns run since the host started.
    pub turns: u64,
    /// Of those, turns that failed.
    pub faults: u64,
    /// Jobs of the service.
    #[serde(default)]
    pub jobs: JobsStatus,
    /// Canary of its library; null: none runs.
    #[serde(default)]
    pub canary: Option<CanaryStatus>,
}

/// A canary in a status: a build that runs some sessions. `greenroom canary` has the counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CanaryStatus {
    /// Generation of the candidate.
    pub generation: u64,
    /// SHA-256 of its file.
    pub build: String,
    /// Version of the state that it writes.
    pub state_version: u32,
    /// Share of new sessions that run it, in percent.
    pub share: f64,
    /// Sessions that were chosen to run it.
    pub chosen: usize,
}

/// Words behind an endpoint in text for people: the stacks that one at `[::]` takes. Empty for all
/// others.
pub fn stacks(endpoint: &str, is_dual: bool) -> &'static str {
    match (endpoint.contains("//[::]:"), is_dual) {
        (false, _) => "",
        (true, true) => " (IPv6 and IPv4)",
        (true, false) => " (IPv6 only)",
    }
}

/// The jobs of a service in a status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobsStatus {
    /// Threads taken, those of jobs that nobody waits for included.
    pub running: u64,
    /// Jobs that wait for a thread.
    pub waiting: u64,
    /// Milliseconds that the oldest running job has been running; null: none runs.
    pub oldest_ms: Option<u64>,
}
