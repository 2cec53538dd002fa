//! The trial: a candidate is loaded, asked what it offers and built from its settings in a child process first. One that
//! crashes, hangs or ends the process does that to the child alone.
//!
//! The child is this binary (`greenroom trial`). It gets a task on standard input and answers with one line on
//! standard output that begins with the task's nonce: anything else, a clean exit included, is a failure.

use super::ffi::{Library, Offers};
use crate::board::Board;
use crate::process::{own_binary, signal_name};
use greenroom_core::framing::Framing;
use greenroom_core::service::Offer;
use greenroom_state::schema::{Schema, StateShape};
use rustix::process::{Pid, Resource, Rlimit, Signal, setrlimit};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// How long a library may take to load and to build its instances.
const WALL_MAX: Duration = Duration::from_secs(10);
/// How long its answer may take to be read once it has ended.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// CPU time for the same, in seconds.
const CPU_MAX_S: u64 = 20;
/// Address space of the child, in bytes.
const MEMORY_MAX: u64 = 4 << 30;
/// What a child may print, in bytes.
const OUTPUT_MAX: u64 = 16 << 20;

#[derive(Serialize, Deserialize)]
struct Task {
    nonce: String,
    copy: PathBuf,
    entry: String,
    settings: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct Found {
    library: String,
    services: Vec<FoundService>,
}

#[derive(Serialize, Deserialize)]
struct FoundService {
    name: String,
    port: u16,
    frame_bytes_max: u32,
    state_version: u32,
    schema: Option<Schema>,
    migrations: Vec<u32>,
}

/// Tries a private copy. The error says what went wrong in the child.
pub fn run(copy: &Path, entry: &str, settings: &BTreeMap<String, String>) -> Result<Offers, String> {
    let nonce = nonce()?;
    let task =
        Task { nonce: nonce.clone(), copy: copy.into(), entry: entry.into(), settings: settings.clone() };
    let task = serde_json::to_string(&task).map_err(|e| e.to_string())?;
    let failed = |e: std::io::Error| format!("the trial process can't be started: {e}");
    let binary = own_binary().map_err(failed)?;
    let mut child = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()))
        .arg("trial")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // Its own group, so that what it starts can be ended with it.
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A child that died already says so by its exit.
        let _ = stdin.write_all(task.as_bytes());
    }
    let (sender, answer) = channel();
    if let Some(out) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut lines = BufReader::new(out.take(OUTPUT_MAX)).lines().map_while(Result::ok);
            let _ = sender.send(lines.find_map(|line| Some(line.strip_prefix(&nonce)?.to_owned())));
        });
    }
    let group = Pid::from_child(&child);
    let status = wait(&mut child);
    // Whatever it left behind may still hold its output open.
    let _ = rustix::process::kill_process_group(group, Signal::KILL);
    let status = status?;
    let answer = answer.recv_timeout(ANSWER_MAX).ok().flatten();
    if let Some(signal) = status.signal() {
        let how = match Signal::from_named_raw(signal) {
            Some(Signal::XCPU | Signal::KILL) => {
                format!("killed (signal {signal}; it may use {CPU_MAX_S} s of CPU)")
            }
            _ => signal_name(signal),
        };
        return Err(format!("it crashed when it was loaded: {how}"));
    }
    let Some(answer) = answer else {
        return Err(format!("it ended the process when it was loaded ({status})"));
    };
    let found: Result<Found, String> =
        serde_json::from_str(&answer).map_err(|e| format!("trial report: {e}"))?;
    let found = found?;
    Ok((found.library, found.services.into_iter().map(FoundService::into_offer).collect()))
}

fn wait(child: &mut Child) -> Result<std::process::ExitStatus, String> {
    let give_up = Instant::now() + WALL_MAX;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if Instant::now() < give_up => std::thread::sleep(Duration::from_millis(2)),
            other => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(match other {
                    Err(e) => format!("the trial process can't be waited for: {e}"),
                    _ => format!("it was not loaded after {} s", WALL_MAX.as_secs()),
                });
            }
        }
    }
}

fn nonce() -> Result<String, String> {
    let mut bytes = [0; 16];
    let random = File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes));
    random.map_err(|e| format!("/dev/urandom: {e}"))?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// The child's side.
pub fn child() -> Result<(), String> {
    confine();
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|e| e.to_string())?;
    let task: Task =
        serde_json::from_str(&text).map_err(|e| format!("this command is the host's own: {e}"))?;
    let found: Result<Found, String> = Library::load(&task.copy, &task.entry).and_then(|library| {
        let (name, offers) = library.offers()?;
        // Built and dropped: settings that it refuses are refused here.
        let board = Board::unread().map_err(|e| format!("no memory: {e}"))?;
        drop(library.create(&task.settings, greenroom_state::abi::level::ERROR, board)?);
        Ok(Found { library: name, services: offers.into_iter().map(FoundService::from_offer).collect() })
    });
    let report = serde_json::to_string(&found).map_err(|e| e.to_string())?;
    let mut out = std::io::stdout().lock();
    // The library may have printed half a line.
    let written = writeln!(out, "\n{}{report}", task.nonce).and_then(|()| out.flush());
    written.map_err(|e| e.to_string())
}

fn confine() {
    let limit = |n| Rlimit { current: Some(n), maximum: Some(n) };
    let _ = setrlimit(Resource::Core, limit(0));
    let _ = setrlimit(Resource::Cpu, limit(CPU_MAX_S));
    let _ = setrlimit(Resource::As, limit(MEMORY_MAX));
    // A host that dies meanwhile leaves nothing behind.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
}

impl FoundService {
    fn from_offer(o: Offer) -> FoundService {
        let Framing::Lines { bytes_max } = o.framing;
        FoundService {
            name: o.name,
            port: o.port,
            frame_bytes_max: bytes_max,
            state_version: o.shape.version,
            schema: o.shape.schema,
            migrations: o.shape.migrations,
        }
    }

    fn into_offer(self) -> Offer {
        Offer {
            name: self.name,
            port: self.port,
            framing: Framing::Lines { bytes_max: self.frame_bytes_max },
            shape: StateShape {
                version: self.state_version,
                schema: self.schema,
                migrations: self.migrations,
            },
        }
    }
}
