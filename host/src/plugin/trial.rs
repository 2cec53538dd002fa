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
//! the task's nonce: its progress, and at last its report. Other lines are the candidate's, and
//! are skipped. `confine.rs` bounds what the child may do. Its board says what ran when it
//! died.
//!
//! A trial blocks the prepare thread and changes nothing in the worker. If the worker dies, the
//! child dies too.

use crate::exit_status::signal_name;
use crate::memory::board::Reading;
use crate::memory::records::memory_file;
use crate::plugin::live::LiveState;
use crate::protocol::link::Link;
use greenroom_core::limits::host::Limits;
use greenroom_core::service::offer::Offer;
use greenroom_state::rehearsal_report::Rehearsal;
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Time that the rest of an answer may take once the child has ended or was killed.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Most bytes of its output that are read. Beyond that its output is closed.
const OUTPUT_MAX: u64 = 64 << 20;
/// Most characters of its last words that a refusal repeats.
const WORDS_MAX: usize = 200;
/// CPU time beyond the time limit, in seconds. A candidate of one thread meets the time limit
/// first, whose refusal names the limit.
const CPU_MORE_S: u64 = 10;

/// Task of a child, as JSON in a memory file. Parent and child are the same binary.
#[derive(Serialize, Deserialize)]
pub(super) struct Task {
    /// Text that each line of an answer begins with.
    pub(super) nonce: String,
    /// Private copy to load.
    pub(super) copy: PathBuf,
    /// Entry that its note names.
    pub(super) entry: String,
    /// Settings by service, as JSON.
    pub(super) settings: BTreeMap<String, String>,
    /// Description of live data; `None`: no rehearsal.
    pub(super) live: Option<LiveState>,
    /// Limit of CPU time, in seconds.
    pub(super) cpu_s: u64,
    /// Limit of address space, in bytes.
    pub(super) memory: u64,
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
}

/// Tries a private copy, in a process of `binary`. Calls `tell` with the progress: items done,
/// and of how many.
///
/// Blocks for at most the time that the limits give, and 2 s more. All processes of the trial's
/// group are killed when it returns. An error says what went wrong in the child.
pub fn run(binary: &File, trial: &Trial<'_>, mut tell: impl FnMut(u64, u64)) -> Result<Tried, String> {
    let nonce = nonce()?;
    let wall = trial.wall();
    let board = memory_file("greenroom-board").map_err(cannot_start)?;
    let mut child = trial.start(binary, &nonce, wall, &board)?;
    let (sender, said) = channel();
    let heard = listen(&mut child, nonce, sender);
    let group = Pid::from_child(&child);
    let mut answer = Answer::default();
    let status = match heard {
        Ok(()) => await_end(&mut child, &mut answer, &said, wall, &mut tell),
        Err(e) => Err(format!("the trial process can't be heard, as no thread can be started: {e}")),
    };
    if status.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    // Processes that the candidate left behind may still hold its output open, and would hold
    // up the threads that read it.
    let _ = rustix::process::kill_process_group(group, Signal::KILL);
    answer.hear(&said, Instant::now() + ANSWER_MAX, &mut tell);
    verdict(status, answer, &board)
}

impl Trial<'_> {
    /// Time limit of the trial: a fixed part, and a part for each session and entry that may be
    /// read.
    fn wall(&self) -> Duration {
        let items = self.snapshot.map_or(0, |s| s.live.items());
        Duration::from_millis(self.limits.rehearsal_ms)
            + Duration::from_micros(self.limits.rehearsal_item_us.saturating_mul(items))
    }

    /// Starts the child, with its task on the way. The child ends by itself if the task cannot
    /// be read.
    fn start(&self, binary: &File, nonce: &str, wall: Duration, board: &OwnedFd) -> Result<Child, String> {
        let Trial { copy, entry, settings, snapshot, limits } = *self;
        let copied =
            snapshot.and_then(|s| rustix::fs::fstat(&s.records).ok()).map_or(0, |s| s.st_size as u64);
        let task = serde_json::json!({
            "nonce": nonce, "copy": copy, "entry": entry, "settings": settings, "live": snapshot.map(|s| &s.live),
            "cpu_s": wall.as_secs() + CPU_MORE_S,
            // A copy of the records, and the parts of a core that are built of it.
            "memory": limits.rehearsal_bytes_max as u64 + 3 * copied,
        });
        let (ours, theirs) = crate::protocol::link::pair().map_err(cannot_start)?;
        let mut link = Link::<(), ()>::new(ours);
        // The task travels in a file: settings and schemas may be larger than a message of a
        // socket.
        let file = File::from(memory_file("greenroom-task").map_err(cannot_start)?);
        serde_json::to_writer(&file, &task).map_err(|e| e.to_string())?;
        // In the order in which the child takes them.
        let files = [Some(file.as_fd()), Some(board.as_fd()), snapshot.map(|s| s.records.as_fd())];
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

/// Reason for a child that can't be started.
fn cannot_start(e: io::Error) -> String {
    format!("the trial process can't be started: {e}")
}

/// Reads both outputs of a child, each on a thread of its own, which ends with the output. Both
/// must be read all the time: a candidate that prints into a full pipe would hang. Fails if there
/// is no thread; the child runs on, and the caller kills it.
fn listen(child: &mut Child, nonce: String, sender: Sender<Said>) -> io::Result<()> {
    let thread = |name: &str| std::thread::Builder::new().name(name.into());
    if let Some(out) = child.stdout.take() {
        let sender = sender.clone();
        thread("trial output").spawn(move || {
            // A candidate may print bytes that are no text.
            let lines = BufReader::new(out.take(OUTPUT_MAX)).split(b'\n').map_while(Result::ok);
            let lines = lines.map(|line| String::from_utf8_lossy(&line).into_owned());
            for line in lines.filter_map(|line| Some(line.strip_prefix(&nonce)?.to_owned())) {
                let said = match line.strip_prefix(':').and_then(|l| l.split_once('/')) {
                    Some((done, total)) => {
                        Said::Progress(done.parse().unwrap_or(0), total.parse().unwrap_or(0))
                    }
                    None => Said::Found(line),
                };
                let _ = sender.send(said);
            }
            let _ = sender.send(Said::Ended);
        })?;
    }
    if let Some(err) = child.stderr.take() {
        thread("trial errors").spawn(move || {
            let _ = sender.send(Said::LastWords(last_words(err)));
        })?;
    }
    Ok(())
}

/// Waits until the child ends, for at most `wall`. Passes on progress meanwhile. An error
/// leaves the child running, and the caller kills it.
fn await_end(
    child: &mut Child,
    answer: &mut Answer,
    said: &Receiver<Said>,
    wall: Duration,
    tell: &mut impl FnMut(u64, u64),
) -> Result<ExitStatus, String> {
    let give_up = Instant::now() + wall;
    loop {
        answer.hear(said, Instant::now() + Duration::from_millis(2), tell);
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if Instant::now() < give_up => {}
            Ok(None) => {
                let seconds = wall.as_secs();
                return Err(format!(
                    "it was not loaded and rehearsed after {seconds} s (limit rehearsal_ms)"
                ));
            }
            Err(e) => return Err(format!("the trial process can't be waited for: {e}")),
        }
    }
}

/// Makes a result of the way in which the child ended.
fn verdict(status: Result<ExitStatus, String>, answer: Answer, board: &OwnedFd) -> Result<Tried, String> {
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
                format!("killed (signal {signal}), perhaps for the CPU time it used")
            }
            _ => signal_name(signal),
        };
        return Err(format!("it crashed {when}: {how}{words}"));
    }
    let Some(found) = answer.found else {
        return Err(format!("it ended the process {when} ({status}){words}"));
    };
    let found: Result<Tried, String> =
        serde_json::from_str(&found).map_err(|e| format!("the trial's report can't be read: {e}"))?;
    found
}

/// Messages of the threads that read a child's outputs.
enum Said {
    /// Progress: items done, and of how many.
    Progress(u64, u64),
    /// Report, as JSON.
    Found(String),
    /// End of standard output.
    Ended,
    /// Last line on standard error, which has ended.
    LastWords(String),
}

/// Answer of a child, as far as it has come.
#[derive(Default)]
struct Answer {
    /// Last report, as JSON. There is one at most, unless the candidate knows the nonce.
    found: Option<String>,
    /// Whether the rehearsal has begun.
    rehearsing: bool,
    /// Last line on standard error.
    words: String,
    /// Outputs that have ended, of two.
    ended: u32,
}

impl Answer {
    /// Takes messages until both outputs have ended, or until a time. Calls `tell` for
    /// progress.
    fn hear(&mut self, said: &Receiver<Said>, until: Instant, tell: &mut impl FnMut(u64, u64)) {
        while self.ended < 2 {
            match said.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Said::Progress(done, total)) => {
                    self.rehearsing = true;
                    if done > 0 {
                        tell(done, total);
                    }
                }
                Ok(Said::Found(found)) => self.found = Some(found),
                Ok(Said::Ended) => self.ended += 1,
                Ok(Said::LastWords(words)) => {
                    self.words = words;
                    self.ended += 1;
                }
                Err(_) => return,
            }
        }
        // Both outputs have ended and the process has not: a short sleep keeps the caller from
        // spinning.
        if self.found.is_none() {
            std::thread::sleep(until.saturating_duration_since(Instant::now()).min(Duration::from_millis(2)));
        }
    }
}

/// Returns the last line that says something, without control characters and at most
/// [`WORDS_MAX`] long. Keeps no more than two pieces in memory, however much is printed.
fn last_words(mut from: impl Read) -> String {
    let (mut kept, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = from.read(&mut piece) {
        kept.extend_from_slice(&piece[..n]);
        let too_many = kept.len().saturating_sub(piece.len());
        kept.drain(..too_many);
    }
    let text = String::from_utf8_lossy(&kept);
    // Lines that begin with `note: ` are hints of Rust's panic handler, such as the one on
    // backtraces.
    let says = |l: &&str| !l.is_empty() && !l.starts_with("note: ");
    let line = text.lines().rev().map(str::trim).find(says).unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect()
}

/// Random text of 128 bits, so that output of a candidate is not taken for the child's report.
fn nonce() -> Result<String, String> {
    let mut bytes = [0; 16];
    let random = File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes));
    random.map_err(|e| format!("/dev/urandom: {e}"))?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}
