//! The trial: a candidate is loaded, asked what it offers and built from its settings in a child process first, and rehearsed there. One
//! that crashes, hangs or ends the process does that to the child alone.
//!
//! The child is this binary (`greenroom trial`). It gets a task over a socket that is its standard input, with the memory file of the
//! records, and reads a pinned epoch out of it. It answers on standard output with lines that begin with the task's nonce, how far
//! it is and at last what it found: anything else, a clean exit included, is a failure. What it may do meanwhile, says `confine.rs`;
//! what it was doing when it died, a board of its own.

use super::confine::confine;
use super::rehearse::{Live, rehearse};
use crate::exit_status::signal_name;
use crate::memory::board::{Board, Reading};
use crate::memory::records::memory_file;
use crate::plugin::ffi::library::Library;
use crate::protocol::link::Link;
use greenroom_core::service::offer::Offer;
use greenroom_state::abi::level;
use greenroom_state::rehearsal_report::Rehearsal;
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

/// How long its answer may take to be read once it has ended.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// What a child may print, in bytes.
const OUTPUT_MAX: u64 = 64 << 20;
/// What is kept of its last words, in bytes.
const WORDS_MAX: usize = 200;
/// CPU time that it may use beyond the time that it may take, in seconds.
const CPU_MORE_S: u64 = 10;

#[derive(Serialize, Deserialize)]
struct Task {
    nonce: String,
    copy: PathBuf,
    entry: String,
    settings: BTreeMap<String, String>,
    live: Option<Live>,
    cpu_s: u64,
    memory: u64,
}

/// What a candidate is rehearsed with.
pub struct Snapshot {
    /// The memory file of the records.
    pub records: OwnedFd,
    /// What is in it.
    pub live: Live,
}

/// A candidate, and what it is to be tried with.
pub struct Trial<'a> {
    /// The private copy.
    pub copy: &'a Path,
    /// Its entry.
    pub entry: &'a str,
    /// Settings by service.
    pub settings: &'a BTreeMap<String, String>,
    /// What is live; `None`: nothing.
    pub snapshot: Option<&'a Snapshot>,
    /// The limits, of which those of rehearsals count.
    pub limits: &'a greenroom_core::limits::host::Limits,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Tried {
    /// The library's name.
    pub library: String,
    /// What it offers.
    pub offers: Vec<Offer>,
    /// How it went with copies of what is live.
    pub rehearsal: Option<Rehearsal>,
}

/// Tries a private copy, in a process of `binary`. `tell` is told how far it is, and of how much. The error says what went wrong in the
/// child.
pub fn run(binary: &File, trial: &Trial<'_>, mut tell: impl FnMut(u64, u64)) -> Result<Tried, String> {
    let Trial { copy, entry, settings, snapshot, limits } = *trial;
    let nonce = nonce()?;
    let failed = |e: std::io::Error| format!("the trial process can't be started: {e}");
    let items = snapshot.map_or(0, |s| s.live.items());
    let wall = Duration::from_millis(limits.rehearsal_ms)
        + Duration::from_micros(limits.rehearsal_item_us.saturating_mul(items));
    let copied = snapshot.and_then(|s| rustix::fs::fstat(&s.records).ok()).map_or(0, |s| s.st_size as u64);
    let task = serde_json::json!({
        "nonce": nonce, "copy": copy, "entry": entry, "settings": settings, "live": snapshot.map(|s| &s.live),
        "cpu_s": wall.as_secs() + CPU_MORE_S,
        // A copy of the records, and what is built of it.
        "memory": limits.rehearsal_bytes_max as u64 + 3 * copied,
    });
    let (ours, theirs) = crate::protocol::link::pair().map_err(failed)?;
    let mut link = Link::<(), ()>::new(ours);
    let file = File::from(memory_file("greenroom-task").map_err(failed)?);
    serde_json::to_writer(&file, &task).map_err(|e| e.to_string())?;
    let board = memory_file("greenroom-board").map_err(failed)?;
    let files = [Some(file.as_fd()), Some(board.as_fd()), snapshot.map(|s| s.records.as_fd())];
    let files: Vec<_> = files.into_iter().flatten().collect();
    link.send_with(&(), &files).map_err(failed)?;
    let mut child = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()))
        .arg("trial")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A panic that has no memory left would try to print one for ever.
        .env("RUST_BACKTRACE", "0")
        // Its own group, so that what it starts can be ended with it.
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let (sender, said) = channel();
    if let Some(out) = child.stdout.take() {
        let sender = sender.clone();
        std::thread::spawn(move || {
            // It may print what is no text, too.
            let lines = BufReader::new(out.take(OUTPUT_MAX)).split(b'\n').map_while(Result::ok);
            let lines = lines.map(|line| String::from_utf8_lossy(&line).into_owned());
            for line in lines.filter_map(|line| Some(line.strip_prefix(&nonce)?.to_owned())) {
                let said = match line.strip_prefix(':').and_then(|l| l.split_once('/')) {
                    Some((done, total)) => Said::Far(done.parse().unwrap_or(0), total.parse().unwrap_or(0)),
                    None => Said::Found(line),
                };
                let _ = sender.send(said);
            }
            let _ = sender.send(Said::All);
        });
    }
    if let Some(err) = child.stderr.take() {
        std::thread::spawn(move || {
            let words = last_words(err);
            let _ = sender.send(Said::Words(words));
        });
    }
    let group = Pid::from_child(&child);
    let give_up = Instant::now() + wall;
    let mut answer = Answer::default();
    let status = loop {
        answer.hear(&said, Instant::now() + Duration::from_millis(2), &mut tell);
        match child.try_wait() {
            Ok(Some(status)) => break Ok(status),
            Ok(None) if Instant::now() < give_up => {}
            Ok(None) => {
                break Err(format!(
                    "it was not loaded and rehearsed after {} s (limit rehearsal_ms)",
                    wall.as_secs()
                ));
            }
            Err(e) => break Err(format!("the trial process can't be waited for: {e}")),
        }
    };
    if status.is_err() {
        end(&mut child);
    }
    // Whatever it left behind may still hold its output open.
    let _ = rustix::process::kill_process_group(group, Signal::KILL);
    answer.hear(&said, Instant::now() + ANSWER_MAX, &mut tell);
    let when = match Reading::of(&board).running() {
        Some(r) => format!("in its rehearsal, with session {}", r.session),
        None if answer.rehearsing => "in its rehearsal".to_owned(),
        None => "when it was loaded".to_owned(),
    };
    let words = match answer.words.is_empty() {
        true => String::new(),
        false => format!(": {}", answer.words),
    };
    let status = status.map_err(|why| if answer.rehearsing { format!("{why}, {when}") } else { why })?;
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

/// What a child said.
enum Said {
    /// How far it is, and of how much.
    Far(u64, u64),
    /// What it found.
    Found(String),
    /// Its output has ended.
    All,
    /// What it said last on standard error, which has ended.
    Words(String),
}

#[derive(Default)]
struct Answer {
    found: Option<String>,
    rehearsing: bool,
    words: String,
    ended: u32,
}

impl Answer {
    /// Listens until both outputs have ended, or for so long.
    fn hear(
        &mut self,
        said: &std::sync::mpsc::Receiver<Said>,
        until: Instant,
        tell: &mut impl FnMut(u64, u64),
    ) {
        while self.ended < 2 {
            match said.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Said::Far(done, total)) => {
                    self.rehearsing = true;
                    if done > 0 {
                        tell(done, total);
                    }
                }
                Ok(Said::Found(found)) => self.found = Some(found),
                Ok(Said::All) => self.ended += 1,
                Ok(Said::Words(words)) => {
                    self.words = words;
                    self.ended += 1;
                }
                Err(_) => return,
            }
        }
        // There is nothing more to wait for than its end.
        if self.found.is_none() {
            std::thread::sleep(until.saturating_duration_since(Instant::now()).min(Duration::from_millis(2)));
        }
    }
}

/// The last line that says something, as far as it is fit for a message.
fn last_words(mut from: impl Read) -> String {
    let (mut kept, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = from.read(&mut piece) {
        kept.extend_from_slice(&piece[..n]);
        let too_many = kept.len().saturating_sub(piece.len());
        kept.drain(..too_many);
    }
    let text = String::from_utf8_lossy(&kept);
    let says = |l: &&str| !l.is_empty() && !l.starts_with("note: ");
    let line = text.lines().rev().map(str::trim).find(says).unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect()
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
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
    let Some(((), files)) = Link::<(), ()>::new(socket).wait().map_err(|e| own(&e))? else {
        return Err(own(&"nothing came"));
    };
    let mut files = files.into_iter();
    let (Some(task), Some(board), records) = (files.next(), files.next(), files.next()) else {
        return Err(own(&"no task came"));
    };
    let mut task = File::from(task);
    task.rewind().map_err(|e| own(&e))?;
    let task: Task = serde_json::from_reader(BufReader::new(task)).map_err(|e| own(&e))?;
    let board = Board::open(&board).map_err(|e| own(&e))?;
    // Before any of its code runs.
    confine(task.cpu_s, task.memory)?;
    let found = tried(&task, board, records.as_ref());
    let report = serde_json::to_string(&found).map_err(|e| e.to_string())?;
    say(&task.nonce, &report).map_err(|e| e.to_string())
}

fn tried(task: &Task, board: Board, records: Option<&OwnedFd>) -> Result<Tried, String> {
    let threads = threads();
    let candidate = Library::load(&task.copy, &task.entry)?;
    let (library, offers) = candidate.offers()?;
    // Settings that it refuses are refused here.
    let serving = candidate.create(&task.settings, level::ERROR, board)?;
    let mut rehearsal = None;
    if let (Some(live), Some(records)) = (&task.live, records) {
        let newer = match &live.newer {
            Some((copy, entry)) => {
                Some(Library::load(copy, entry)?.create(&task.settings, level::ERROR, board)?)
            }
            None => None,
        };
        let tell = |done: u64, total: u64| {
            let _ = say(&task.nonce, &format!(":{done}/{total}"));
        };
        tell(0, 0);
        rehearsal = Some(rehearse(&library, serving, newer, live, records, tell)?);
    }
    let more = self::threads().saturating_sub(threads);
    if more > 0 {
        return Err(format!(
            "it has {more} threads running after it was loaded; a handler keeps none, as they would outlive it"
        ));
    }
    Ok(Tried { library, offers, rehearsal })
}

fn say(nonce: &str, text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    // The library may have printed half a line.
    writeln!(out, "\n{nonce}{text}")?;
    out.flush()
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}
