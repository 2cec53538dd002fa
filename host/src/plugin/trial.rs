//! The trial: a candidate is loaded, asked what it offers and built from its settings in a child process first; then it reads, and
//! migrates if it must, a copy of the state of every live session of its services: the **rehearsal**. One that crashes, hangs or
//! ends the process does that to the child alone.
//!
//! The child is this binary (`greenroom trial`). It gets a task over a socket that is its standard input, with the memory file of the
//! records, and reads a pinned epoch out of it. It answers with one line on standard output that begins with the task's nonce:
//! anything else, a clean exit included, is a failure. What it may do meanwhile, says `confine.rs`.

use super::confine::{CPU_MAX_S, confine};
use super::ffi::{Library, Offers};
use crate::board::Board;
use crate::control::{self, Link};
use crate::process::{own_binary, signal_name};
use crate::region::memory_file;
use crate::snapshot::core_at;
use greenroom_core::Core;
use greenroom_core::framing::Framing;
use greenroom_core::limits::Limits;
use greenroom_core::service::{Build, Offer, Serving};
use greenroom_core::session::Session;
use greenroom_state::schema::{Schema, StateShape};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// How long a library may take to load and to build its instances.
const WALL_MAX: Duration = Duration::from_secs(10);
/// How long its answer may take to be read once it has ended.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// What a child may print, in bytes.
const OUTPUT_MAX: u64 = 16 << 20;

#[derive(Serialize, Deserialize)]
struct Task {
    nonce: String,
    copy: PathBuf,
    entry: String,
    settings: BTreeMap<String, String>,
    /// What is rehearsed: the pinned epoch, and the host's limits.
    rehearsal: Option<(u64, Limits)>,
}

/// What a candidate is rehearsed with.
pub struct Snapshot {
    /// The memory file of the records.
    pub records: OwnedFd,
    /// The epoch, which is pinned.
    pub epoch: u64,
    /// The host's limits.
    pub limits: Limits,
}

/// What came of a rehearsal.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehearsed {
    /// Sessions whose states were read.
    pub sessions: usize,
    /// Of those, sessions whose states had to be migrated.
    pub migrated: usize,
    /// How long that took, in milliseconds.
    pub ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Found {
    library: String,
    services: Vec<FoundService>,
    rehearsed: Result<Rehearsed, String>,
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
pub fn run(
    copy: &Path,
    entry: &str,
    settings: &BTreeMap<String, String>,
    snapshot: Option<&Snapshot>,
) -> Result<(Offers, Result<Rehearsed, String>), String> {
    let nonce = nonce()?;
    let task = Task {
        nonce: nonce.clone(),
        copy: copy.into(),
        entry: entry.into(),
        settings: settings.clone(),
        rehearsal: snapshot.map(|s| (s.epoch, s.limits.clone())),
    };
    let failed = |e: std::io::Error| format!("the trial process can't be started: {e}");
    let binary = own_binary().map_err(failed)?;
    let (ours, theirs) = control::pair().map_err(failed)?;
    let mut link = Link::<(), ()>::new(ours);
    let file = std::fs::File::from(memory_file("greenroom-task").map_err(failed)?);
    serde_json::to_writer(&file, &task).map_err(|e| e.to_string())?;
    let files = [Some(file.as_fd()), snapshot.map(|s| s.records.as_fd())];
    let files: Vec<_> = files.into_iter().flatten().collect();
    link.send_with(&(), &files).map_err(failed)?;
    let mut child = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()))
        .arg("trial")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // Its own group, so that what it starts can be ended with it.
        .process_group(0)
        .spawn()
        .map_err(failed)?;
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
    let offers = found.services.into_iter().map(FoundService::into_offer).collect();
    Ok(((found.library, offers), found.rehearsed))
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
    let own = |e: &dyn std::fmt::Display| format!("this command is the host's own: {e}");
    let socket = std::io::stdin().as_fd().try_clone_to_owned().map_err(|e| own(&e))?;
    let Some(((), mut files)) = Link::<(), ()>::new(socket).wait().map_err(|e| own(&e))? else {
        return Err(own(&"nothing came"));
    };
    if files.is_empty() {
        return Err(own(&"no task came"));
    }
    let mut task = std::fs::File::from(files.remove(0));
    task.rewind().map_err(|e| own(&e))?;
    let task: Task = serde_json::from_reader(BufReader::new(task)).map_err(|e| own(&e))?;
    let copied = files.first().and_then(|f| rustix::fs::fstat(f).ok()).map_or(0, |s| s.st_size as u64);
    // Before any of its code runs.
    confine(copied)?;
    let found: Result<Found, String> = Library::load(&task.copy, &task.entry).and_then(|library| {
        let (name, offers) = library.offers()?;
        let board = Board::unread().map_err(|e| format!("no memory: {e}"))?;
        // Settings that it refuses are refused here.
        let serving = library.create(&task.settings, greenroom_state::abi::level::ERROR, board)?;
        let rehearsed = match (&task.rehearsal, files.first()) {
            (Some((epoch, limits)), Some(records)) => rehearse(&name, serving, records, *epoch, limits),
            _ => Ok(Rehearsed::default()),
        };
        let services = offers.into_iter().map(FoundService::from_offer).collect();
        Ok(Found { library: name, services, rehearsed })
    });
    let report = serde_json::to_string(&found).map_err(|e| e.to_string())?;
    let mut out = std::io::stdout().lock();
    // The library may have printed half a line.
    let written = writeln!(out, "\n{}{report}", task.nonce).and_then(|()| out.flush());
    written.map_err(|e| e.to_string())
}

/// How many sessions that can't be read are named.
const NAMED_MAX: usize = 3;

fn rehearse(
    library: &str,
    serving: Serving,
    records: &OwnedFd,
    epoch: u64,
    limits: &Limits,
) -> Result<Rehearsed, String> {
    let begun = Instant::now();
    let mut core = core_at(records, limits, epoch)?.core;
    let build = Build { library: library.to_owned(), generation: 0, hash: String::new() };
    core.go_on_with(&build, serving);
    let mut rehearsed = Rehearsed::default();
    let (mut failed, mut named) = (0, Vec::new());
    let mine = |core: &Core, s: &Session| core.services()[usize::from(s.service.0)].build.is_some();
    let slots: Vec<_> =
        core.sessions().after(0).filter(|(_, s)| mine(&core, s)).map(|(slot, s)| (slot, s.id)).collect();
    for (slot, id) in slots {
        rehearsed.sessions += 1;
        match core.rehearse(slot) {
            Ok(migrated) => rehearsed.migrated += usize::from(migrated),
            Err(why) => {
                failed += 1;
                if named.len() < NAMED_MAX {
                    named.push(format!("session {id}: {why}"));
                }
            }
        }
    }
    if failed > 0 {
        return Err(format!(
            "the rehearsal failed for {failed} of {} sessions: {}",
            rehearsed.sessions,
            named.join("; ")
        ));
    }
    rehearsed.ms = begun.elapsed().as_millis() as u64;
    Ok(rehearsed)
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
