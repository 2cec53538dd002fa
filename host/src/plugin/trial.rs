//! Trial: a candidate is loaded, built from its settings and rehearsed in a child process
//! first.
//!
//! A candidate that crashes, hangs or ends its process does that to the child alone.
//!
//! | end of the child | outcome |
//! | --- | --- |
//! | time is up (`rehearsal_ms`, `rehearsal_item_us`) | killed; refused |
//! | a signal | refused, with the signal and what ran |
//! | an exit without a report | refused, a clean exit included |
//! | an exit after its report | as the report says |
//!
//! The child is this binary (`greenroom trial`, in `trial_child.rs`). Its standard input is a
//! socket. Over it come the task, a board of its own, and the memory file of the records, with
//! the epoch that was pinned in it. It answers on standard output, with lines that begin with
//! the task's nonce (`trial_output.rs`). `confine.rs` bounds what the child may do. Its board says
//! what ran when it died. A task without a candidate finds out what bounds there are ([`probe`]).
//!
//! A trial blocks the prepare thread and changes nothing in the worker. If the worker dies, the
//! child dies too.

use crate::config::Confinement;
use crate::exit_status::signal_name;
use crate::memory::reading::Reading;
use crate::memory::records::memory_file;
use crate::plugin::live::LiveState;
use crate::plugin::recording::Unpacked;
use crate::plugin::replay::{ReplayOrder, ReplayReport};
use crate::plugin::trial_output::{OUTPUT_MAX, Said, TrialAnswer, listen};
use crate::protocol::link::Link;
use crate::protocol::status::Confined;
use greenroom_core::limits::host::Limits;
use greenroom_core::service::offer::Offer;
use greenroom_state::rehearsal_report::Rehearsal;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Time that the rest of an answer may take once the child has ended or was killed.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// CPU time beyond the time limit, in seconds. A candidate of one thread meets the time limit
/// first, whose refusal names the limit.
const CPU_MORE_S: u64 = 10;

/// Task of a child, as JSON in a memory file. Parent and child are the same binary.
#[derive(Serialize, Deserialize)]
pub(super) struct Task {
    /// Text that each line of an answer begins with.
    pub(super) nonce: String,
    /// The candidate; `None`: only the confinement is asked for.
    pub(super) candidate: Option<TaskOfCandidate>,
    /// Whether a candidate is tried without all of the confinement.
    pub(super) confinement: Confinement,
    /// Limit of CPU time, in seconds.
    pub(super) cpu_s: u64,
    /// Limit of address space, in bytes.
    pub(super) memory: u64,
}

/// The part of a task that tells of the candidate.
#[derive(Serialize, Deserialize)]
pub(super) struct TaskOfCandidate {
    /// Private copy to load.
    pub(super) copy: PathBuf,
    /// Entry that its note names.
    pub(super) entry: String,
    /// Settings by service, as JSON.
    pub(super) settings: BTreeMap<String, String>,
    /// Description of live data; `None`: no rehearsal.
    pub(super) live: Option<LiveState>,
    /// Order to replay a recording; `None`: there is none.
    #[serde(default)]
    pub(super) replay: Option<ReplayOrder>,
}

/// Data that a candidate is rehearsed with.
pub struct Snapshot {
    /// Memory file of the records, open for reading. The epoch must stay pinned until the trial
    /// is over.
    pub records: OwnedFd,
    /// Description of the live data in it.
    pub live: LiveState,
}

/// A candidate, and the settings and data of its trial.
pub struct Trial<'a> {
    /// The private copy.
    pub copy: &'a Path,
    /// Name of its entry.
    pub entry: &'a str,
    /// Settings by service.
    pub settings: &'a BTreeMap<String, String>,
    /// Live data; `None`: no build runs, so the candidate is loaded and not rehearsed.
    pub snapshot: Option<&'a Snapshot>,
    /// Recording to replay; `None`: there is none.
    pub recording: Option<(&'a Unpacked, &'a [String])>,
    /// Limits, of which those of rehearsals count here.
    pub limits: &'a Limits,
}

/// Report of a trial in which the candidate was loaded. Its rehearsal may have failed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Tried {
    /// The library's name.
    pub library: String,
    /// Offers of its services.
    pub offers: Vec<Offer>,
    /// Report of the rehearsal; `None`: there was none.
    pub rehearsal: Option<Rehearsal>,
    /// Report of the replay; `None`: there was none.
    #[serde(default)]
    pub replay: Option<ReplayReport>,
}

/// Tries a private copy, in a process of `binary`, whatever confines it. Calls `tell` with the
/// progress: items done, and of how many.
///
/// Blocks for at most the time that the limits give, and 2 s more. All processes of the trial's
/// group are killed when it returns. An error says what went wrong in the child.
pub fn run(binary: &File, trial: &Trial<'_>, tell: impl FnMut(u64, u64)) -> Result<Tried, String> {
    run_confined(binary, trial, Confinement::BestEffort, tell)
}

/// Tries a private copy as [`run`] does, and refuses it if `confinement` asks for more than there
/// is.
pub fn run_confined(
    binary: &File,
    trial: &Trial<'_>,
    confinement: Confinement,
    tell: impl FnMut(u64, u64),
) -> Result<Tried, String> {
    let Trial { copy, entry, settings, snapshot, recording, limits } = *trial;
    let turns = recording.map_or(0, |(r, _)| r.turns);
    let items = snapshot.map_or(0, |s| s.live.items()) + turns;
    let wall = Duration::from_millis(limits.rehearsal_ms)
        + Duration::from_micros(limits.rehearsal_item_us.saturating_mul(items));
    let copied = snapshot.and_then(|s| rustix::fs::fstat(&s.records).ok()).map_or(0, |s| s.st_size as u64);
    let live = snapshot.map(|s| &s.live);
    let replay = recording.map(|(r, allow)| ReplayOrder {
        limits: r.head.limits.clone(),
        service_limits: r.head.service_limits.clone(),
        allow: allow.to_vec(),
    });
    let candidate = serde_json::json!({
        "copy": copy, "entry": entry, "settings": settings, "live": live, "replay": replay,
    });
    // A copy of the records, and the parts of a core that are built of it.
    let memory = limits.rehearsal_bytes_max as u64 + 3 * copied;
    let records = snapshot.map(|s| s.records.as_fd());
    let recording = recording.map(|(r, _)| r.lines.as_fd());
    conduct(binary, Order { candidate, confinement, memory, wall, records, recording }, tell)
}

/// Finds out how candidates are confined on this machine: in a child that confines itself, loads
/// nothing and ends. Fails if no such child can be started. Blocks for some milliseconds.
pub fn probe(binary: &File) -> Result<Confined, String> {
    let limits = Limits::default();
    let order = Order {
        candidate: serde_json::Value::Null,
        confinement: Confinement::BestEffort,
        memory: limits.rehearsal_bytes_max as u64,
        wall: Duration::from_millis(limits.rehearsal_ms),
        records: None,
        recording: None,
    };
    conduct(binary, order, |_, _| {})
}

/// Order for a child.
struct Order<'a> {
    /// A [`TaskOfCandidate`], as JSON; null: none.
    candidate: serde_json::Value,
    confinement: Confinement,
    /// Address space that the child may use, in bytes.
    memory: u64,
    /// Time limit.
    wall: Duration,
    /// Memory file of the records.
    records: Option<BorrowedFd<'a>>,
    /// Memory file of a recording.
    recording: Option<BorrowedFd<'a>>,
}

/// Starts a child, waits for its end or its time limit, and reads its report.
fn conduct<T: DeserializeOwned>(
    binary: &File,
    order: Order<'_>,
    mut tell: impl FnMut(u64, u64),
) -> Result<T, String> {
    let nonce = nonce()?;
    let wall = order.wall;
    let board = memory_file("greenroom-board").map_err(cannot_start)?;
    let mut child = order.start(binary, &nonce, &board)?;
    let (sender, said) = channel();
    let heard = listen(&mut child, nonce, sender);
    let mut answer = TrialAnswer::default();
    let ended = match heard {
        Ok(()) => await_end(&child, &mut answer, &said, wall, &mut tell),
        Err(e) => Err(format!("{CANNOT_START}, as no thread can be started: {e}")),
    };
    // Processes that are left may still hold its output open, and would hold up the threads that
    // read it. The child is not reaped yet, so no other group can have its number.
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    let _ = child.kill();
    let status = child.wait().map_err(|e| format!("the trial process can't be waited for: {e}"));
    answer.hear(&said, Instant::now() + ANSWER_MAX, &mut tell);
    verdict(ended.and(status), answer, &board)
}

impl Order<'_> {
    /// Starts the child, with its task on the way. The child ends by itself if the task cannot
    /// be read.
    fn start(self, binary: &File, nonce: &str, board: &OwnedFd) -> Result<Child, String> {
        let Order { candidate, confinement, memory, wall, records, recording } = self;
        let cpu_s = wall.as_secs() + CPU_MORE_S;
        let task = serde_json::json!({
            "nonce": nonce, "candidate": candidate, "confinement": confinement, "cpu_s": cpu_s, "memory": memory,
        });
        let (ours, theirs) = crate::protocol::link::pair().map_err(cannot_start)?;
        let mut link = Link::<(), ()>::new(ours);
        // The task travels in a file: settings and schemas may be larger than a message of a
        // socket.
        let file = File::from(memory_file("greenroom-task").map_err(cannot_start)?);
        serde_json::to_writer(&file, &task).map_err(|e| e.to_string())?;
        // In the order in which the child takes them.
        let files = [Some(file.as_fd()), Some(board.as_fd()), records, recording];
        let files: Vec<_> = files.into_iter().flatten().collect();
        link.send_with(&(), &files).map_err(cannot_start)?;
        Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()))
            .arg("trial")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A panic that has no memory left would try to print a backtrace for ever.
            .env("RUST_BACKTRACE", "0")
            // A group of its own, so that processes that it starts can be ended with it.
            .process_group(0)
            .spawn()
            .map_err(cannot_start)
    }
}

/// Beginning of the reason for a child that can't be started, or can't be heard.
pub const CANNOT_START: &str = "the trial process can't be started";

/// Reason for a child that can't be started.
pub(super) fn cannot_start(e: io::Error) -> String {
    format!("{CANNOT_START}: {e}")
}

/// Waits until the child has ended, for at most `wall`, and does not reap it. Passes on progress
/// meanwhile. An error leaves the child running.
fn await_end(
    child: &Child,
    answer: &mut TrialAnswer,
    said: &Receiver<Said>,
    wall: Duration,
    tell: &mut impl FnMut(u64, u64),
) -> Result<(), String> {
    let give_up = Instant::now() + wall;
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    loop {
        answer.hear(said, Instant::now() + Duration::from_millis(2), tell);
        match waitid(WaitId::Pid(Pid::from_child(child)), options) {
            Ok(Some(_)) => return Ok(()),
            Ok(None) if Instant::now() < give_up => {}
            Ok(None) => {
                let seconds = wall.as_secs();
                return Err(format!(
                    "it was not loaded and rehearsed after {seconds} s (limit rehearsal_ms)"
                ));
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(format!("the trial process can't be waited for: {e}")),
        }
    }
}

/// Makes a result of the way in which the child ended.
fn verdict<T: DeserializeOwned>(
    status: Result<ExitStatus, String>,
    answer: TrialAnswer,
    board: &OwnedFd,
) -> Result<T, String> {
    let when = match Reading::of(board).running() {
        Some(r) => format!("in its rehearsal, with session {}", r.session),
        None if answer.rehearsing => "in its rehearsal".to_owned(),
        None => "when it was loaded".to_owned(),
    };
    let words = match answer.words.is_empty() {
        true => String::new(),
        false => format!(": {}", answer.words),
    };
    // While it was only loaded, the phase says nothing beyond the reason.
    let status = status.map_err(|why| if answer.rehearsing { format!("{why}, {when}") } else { why })?;
    // A crash counts even after a report: destructors and exit handlers are the candidate's
    // code, too.
    if let Some(signal) = status.signal() {
        let how = match Signal::from_named_raw(signal) {
            Some(Signal::XCPU | Signal::KILL) => {
                format!("killed (signal {signal}), perhaps for the CPU time or the memory it used")
            }
            _ => signal_name(signal),
        };
        return Err(format!("it crashed {when}: {how}{words}"));
    }
    let Some(found) = answer.found else {
        if answer.flooded {
            return Err(format!("it printed more than {} MiB {when}", OUTPUT_MAX >> 20));
        }
        return Err(format!("it ended the process {when} ({status}){words}"));
    };
    let found: Result<T, String> =
        serde_json::from_str(&found).map_err(|e| format!("the trial's report can't be read: {e}"))?;
    found
}

/// Random text of 128 bits, so that output of a candidate is not taken for the child's report.
fn nonce() -> Result<String, String> {
    let mut bytes = [0; 16];
    let random = File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes));
    random.map_err(|e| format!("/dev/urandom: {e}"))?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}
