//! The watchdog: a thread that sees when one callback runs too long, says which and where it is, and ends the process if it is
//! told to. Nothing can make a callback return, but a successor goes on without it.
//!
//! The addresses are turned into functions and lines by a child process: reading debug information takes tens of megabytes.

use crate::exit_status::own_binary;
use crate::memory::board::{Board, Reading, Running};
use crate::sys::stack::Thread;
use greenroom_core::ids::told;
use greenroom_core::limits::host::Limits;
use greenroom_core::limits::names::Limit;
use greenroom_core::recovery::crashes::action_name;
use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// How often it looks at most.
const TICK_MIN: Duration = Duration::from_millis(5);
/// And at least, as how long a callback may take can change.
const TICK_MAX: Duration = Duration::from_millis(500);
/// How long it may take to find a line.
const CHILD_MAX: Duration = Duration::from_secs(3);
/// How long the last words take to be written.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// Watches the calling thread, which is the loop's, for as long as the process lives.
pub fn start(board: Board, file: OwnedFd, limits: &Limits, copies: PathBuf) -> io::Result<StallLimits> {
    let thread = Thread::this()?;
    let stall_limits = StallLimits::default();
    stall_limits.set(limits);
    let mut dog = Watchdog { board, file, thread, copies, stall_limits: stall_limits.clone(), seen: None };
    std::thread::Builder::new().name("watchdog".into()).spawn(move || {
        loop {
            std::thread::sleep(dog.stall_limits.tick());
            dog.look();
        }
    })?;
    Ok(stall_limits)
}

/// Times that a callback may take, in milliseconds: until the log names it, and until the process is
/// ended. 0 means without limit.
#[derive(Clone, Default)]
pub struct StallLimits(Arc<(AtomicU64, AtomicU64)>);

impl StallLimits {
    /// Puts other limits in force, from the next look on.
    pub fn set(&self, limits: &Limits) {
        self.0.0.store(limits.stall_warn_ms, Ordering::Relaxed);
        self.0.1.store(limits.stall_kill_ms, Ordering::Relaxed);
    }

    fn get(&self) -> (u64, u64) {
        (self.0.0.load(Ordering::Relaxed), self.0.1.load(Ordering::Relaxed))
    }

    fn tick(&self) -> Duration {
        let (warn, kill) = self.get();
        let shortest = [warn, kill].into_iter().filter(|ms| *ms > 0).min();
        // With nothing to watch, whether that has changed.
        shortest.map_or(TICK_MAX, |ms| Duration::from_millis(ms / 4).clamp(TICK_MIN, TICK_MAX))
    }
}

struct Watchdog {
    board: Board,
    file: OwnedFd,
    thread: Thread,
    copies: PathBuf,
    stall_limits: StallLimits,
    seen: Option<Seen>,
}

/// A callback that was running when the watchdog last looked.
struct Seen {
    mark: u64,
    what: Running,
    since: Instant,
    warned: bool,
}

impl Watchdog {
    fn look(&mut self) {
        let Some((mark, what)) = self.board.running() else { return self.over() };
        match &mut self.seen {
            Some(seen) if seen.mark == mark => {}
            _ => {
                self.over();
                self.seen = Some(Seen { mark, what, since: Instant::now(), warned: false });
                return;
            }
        }
        let Some(seen) = &mut self.seen else { return };
        let ms = seen.since.elapsed().as_millis() as u64;
        let (warn, kill) = self.stall_limits.get();
        let killed = kill > 0 && ms >= kill;
        let warned = warn > 0 && ms >= warn && !std::mem::replace(&mut seen.warned, true);
        if !killed && !warned {
            return;
        }
        let frames = self.thread.frames();
        // It may have returned just now.
        if self.board.running().is_none_or(|(now, _)| now != mark) {
            return;
        }
        let place = self.place(&frames);
        let Running { generation, action, .. } = what;
        let session = told(what.session);
        let service = self.service(what.service);
        let action = action_name(action);
        let function = place.as_ref().map_or("?", |p| &p.function);
        let (file, line) = place.as_ref().map_or(("?", 0), |p| (&p.file, p.line));
        if killed {
            tracing::error!(
                %service, session, generation, action, %function, %file, line,
                "a callback has been running for {ms} ms (limit stall_kill_ms): the worker is ended, and a successor goes on"
            );
            std::thread::sleep(LAST_WORDS);
            if self.board.running().is_none_or(|(now, _)| now != mark) {
                return tracing::warn!(%service, session, "the callback has returned after all");
            }
            self.board.reached(Limit::StallKillMs);
            self.board.stalled(ms);
            let _ = kill_process(getpid(), Signal::KILL);
        } else {
            self.board.reached(Limit::StallWarnMs);
            tracing::warn!(
                %service, session, generation, action, %function, %file, line,
                "a callback has been running for {ms} ms, and everybody waits for it (limit stall_warn_ms)"
            );
        }
    }

    /// What was running has returned.
    fn over(&mut self) {
        if let Some(seen) = self.seen.take()
            && seen.warned
        {
            let (session, ms) = (told(seen.what.session), seen.since.elapsed().as_millis());
            tracing::warn!(service = %self.service(seen.what.service), session, "the callback returned after about {ms} ms");
        }
    }

    fn service(&self, number: u16) -> String {
        let services = Reading::of(&self.file).services().unwrap_or_default();
        services.into_iter().nth(usize::from(number)).flatten().map_or_else(|| "?".into(), |s| s.name)
    }

    /// The innermost line of the handler's own.
    fn place(&self, frames: &[usize]) -> Option<Place> {
        let addresses = frames.iter().enumerate().filter_map(|(i, &at)| {
            let (module, offset) = module_of(at)?;
            // A caller's address is that behind the call.
            module
                .starts_with(&self.copies)
                .then(|| Address { module, offset: offset - u64::from(i > 0) as usize })
        });
        let addresses: Vec<_> = addresses.collect();
        let places = in_child(&addresses).inspect_err(|e| tracing::debug!("symbolize: {e}")).ok()?;
        let own =
            |p: &&Place| !p.file.is_empty() && !p.file.contains("/rustc/") && !p.file.contains("/.cargo/");
        let named =
            |p: &&Place| !["std::", "core::", "alloc::", "<"].iter().any(|s| p.function.starts_with(s));
        places.iter().find(own).or_else(|| places.iter().find(named)).cloned()
    }
}

/// An address, and in which file.
#[derive(Debug, Serialize, Deserialize)]
struct Address {
    module: PathBuf,
    offset: usize,
}

/// A place in the source.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Place {
    function: String,
    /// Empty: built without debug information.
    file: String,
    line: u32,
}

/// The file that is mapped at an address, and the address as the file counts.
fn module_of(at: usize) -> Option<(PathBuf, usize)> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let mapped = maps.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (begin, end) = words.next()?.split_once('-')?;
        let path = words.nth(4)?;
        Some((usize::from_str_radix(begin, 16).ok()?, usize::from_str_radix(end, 16).ok()?, path))
    });
    let mapped: Vec<_> = mapped.collect();
    let (_, _, path) = mapped.iter().find(|(begin, end, _)| (*begin..*end).contains(&at))?;
    let (base, _, _) = mapped.iter().find(|(_, _, p)| p == path)?;
    Some((PathBuf::from(path), at - base))
}

fn in_child(addresses: &[Address]) -> io::Result<Vec<Place>> {
    if addresses.is_empty() {
        return Ok(Vec::new());
    }
    let binary = own_binary()?;
    let mut child = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()))
        .arg("symbolize")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&serde_json::to_vec(addresses)?)?;
    }
    let (sender, answer) = channel();
    if let Some(mut out) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = out.read_to_end(&mut bytes);
            let _ = sender.send(bytes);
        });
    }
    // It must not hold up the verdict.
    let answer = answer.recv_timeout(CHILD_MAX);
    let _ = child.kill();
    child.wait()?;
    Ok(serde_json::from_slice(&answer.map_err(io::Error::other)?)?)
}

/// The child's side: addresses on standard input, the places that they are, with what was inlined there, on standard output.
pub fn symbolize() -> Result<(), String> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).map_err(|e| e.to_string())?;
    let addresses: Vec<Address> =
        serde_json::from_str(&text).map_err(|e| format!("this command is the host's own: {e}"))?;
    let mut places = Vec::new();
    for Address { module, offset } in &addresses {
        let Ok(loader) = addr2line::Loader::new(module) else { continue };
        let before = places.len();
        if let Ok(mut frames) = loader.find_frames(*offset as u64) {
            while let Ok(Some(frame)) = frames.next() {
                let function = frame.function.as_ref().and_then(|f| Some(f.demangle().ok()?.into_owned()));
                let at = frame.location.as_ref();
                places.push(Place {
                    function: function.unwrap_or_default(),
                    file: at.and_then(|l| l.file).unwrap_or_default().to_owned(),
                    line: at.and_then(|l| l.line).unwrap_or_default(),
                });
            }
        }
        if places.len() == before
            && let Some(name) = loader.find_symbol(*offset as u64)
        {
            let function = addr2line::demangle_auto(name.into(), None).into_owned();
            places.push(Place { function, file: String::new(), line: 0 });
        }
    }
    let json = serde_json::to_string(&places).map_err(|e| e.to_string())?;
    println!("{json}");
    Ok(())
}
