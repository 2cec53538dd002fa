//! Watchdog: a thread that notices callbacks that stall, names their place, and ends the process if
//! the limits say so.
//!
//! Nothing can make a callback return safely, as its locks and half-made changes would stay. But a
//! worker may die at any instruction: a successor goes on without the callback, and the action
//! counts as one that killed.
//!
//! | limit | a callback that runs so long |
//! | --- | --- |
//! | `stall_warn_ms` | is named in the log, once, with its place in the source |
//! | `stall_kill_ms` | is named in the log, and the process ends with SIGKILL |
//!
//! The loop's thread itself may be gone: a callback may end it alone, or forbid it system calls.
//! The watchdog then ends the process.
//!
//! A pass may take long although no callback does: many turns, or work of the host. From
//! `stall_warn_ms` on it is named once, with its stage and the session whose turn ran last.
//!
//! The watchdog learns from the board what runs, so a call of a handler costs it nothing. A look is
//! a few loads, every 5 to 500 ms. Times are exact to one look.
//!
//! The board gets the time since when a callback runs, and its place once that is known: the keeper
//! shows both in `status`.
//!
//! *Invariant*: the watchdog never ends a callback that has returned. The mark of the board is
//! compared again before each report and before the kill.
//!
//! | file | holds |
//! | --- | --- |
//! | [`symbolize`] | turns addresses into function, file and line, in a child |

pub mod symbolize;

use crate::clock::now_ns;
use crate::memory::board::Board;
use crate::memory::board_layout::Running;
use crate::memory::reading::Reading;
use crate::protocol::board_text;
use crate::sys::stack::Thread;
use crate::watchdog::symbolize::place_of;
use greenroom_core::effects::action_name::action_name;
use greenroom_core::ids::public_number;
use greenroom_core::limits::host::Limits;
use greenroom_core::limits::names::Limit;
use rustix::process::{Signal, getpid, kill_process};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Shortest time between two looks.
const TICK_MIN: Duration = Duration::from_millis(5);
/// Longest time between two looks, as the limits may change.
const TICK_MAX: Duration = Duration::from_millis(500);
/// Time after which the place of a callback is looked up for `status`, if no limit warns before.
const PLACE_AFTER: Duration = Duration::from_secs(1);
/// Time that the last log line takes to be written: another thread writes the log, and SIGKILL
/// would lose what waits for it.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// Watches the calling thread, which is the loop's, for as long as the process lives. The board's
/// `file` tells the names of services, and `copies` is the directory of private copies. Fails if
/// there is no thread, or no signal to ask for a stack.
pub fn start(board: Board, file: OwnedFd, limits: &Limits, copies: PathBuf) -> io::Result<StallLimits> {
    let thread = Thread::this()?;
    // A crash of another thread says nothing about the callback that runs.
    board.note_crashes();
    let stall_limits = StallLimits::default();
    stall_limits.set(limits);
    let limits = stall_limits.clone();
    let thread_seen = Instant::now();
    let mut dog =
        Watchdog { board, file, thread, thread_seen, copies, stall_limits: limits, seen: None, pass: None };
    std::thread::Builder::new().name("watchdog".into()).spawn(move || {
        loop {
            std::thread::sleep(dog.stall_limits.tick());
            dog.look_at_the_thread();
            dog.look();
            dog.look_at_the_pass();
        }
    })?;
    Ok(stall_limits)
}

/// Times that a callback may take, in milliseconds: until the log names it, and until the process
/// is ended. 0 means without limit.
#[derive(Clone, Default)]
pub struct StallLimits(Arc<(AtomicU64, AtomicU64)>);

impl StallLimits {
    /// Puts other limits in force, from the next look on: within 500 ms.
    pub fn set(&self, limits: &Limits) {
        self.0.0.store(limits.stall_warn_ms, Ordering::Relaxed);
        self.0.1.store(limits.stall_kill_ms, Ordering::Relaxed);
    }

    /// Both limits: warn, kill.
    fn get(&self) -> (u64, u64) {
        (self.0.0.load(Ordering::Relaxed), self.0.1.load(Ordering::Relaxed))
    }

    /// Time until the next look: a quarter of the shorter limit, within bounds.
    fn tick(&self) -> Duration {
        let (warn, kill) = self.get();
        let shortest = [warn, kill].into_iter().filter(|ms| *ms > 0).min();
        // Without a limit, a look only finds out whether there is one now.
        shortest.map_or(TICK_MAX, |ms| Duration::from_millis(ms / 4).clamp(TICK_MIN, TICK_MAX))
    }
}

/// State of the thread.
struct Watchdog {
    board: Board,
    /// The board's file, to read the text about the services.
    file: OwnedFd,
    /// The loop's thread.
    thread: Thread,
    /// Time of the last look at it.
    thread_seen: Instant,
    /// Directory of private copies: code in it is a handler's.
    copies: PathBuf,
    stall_limits: StallLimits,
    /// The callback of the last look. `None`: none was running.
    seen: Option<Seen>,
    /// The pass of the last look. `None`: the loop waited.
    pass: Option<SeenPass>,
}

/// Pass that was under way at the last look.
struct SeenPass {
    /// The board's mark: another one means another pass.
    mark: u64,
    /// Time of the first look that saw the pass. Up to one look after its begin.
    since: Instant,
    /// The pass was named in the log.
    warned: bool,
    /// A callback of the pass was named in the log: that is enough.
    is_explained: bool,
}

/// Callback that was running at the last look.
struct Seen {
    /// The board's mark: another one means another action.
    mark: u64,
    what: Running,
    /// Time of the first look that saw the callback. Up to one look after its begin.
    since: Instant,
    /// The callback was named in the log.
    warned: bool,
    /// The place was looked up.
    placed: bool,
}

impl Watchdog {
    /// Ends the process if the loop's thread is gone. Looks every 500 ms, as that is a system call.
    fn look_at_the_thread(&mut self) {
        if self.thread_seen.elapsed() < TICK_MAX {
            return;
        }
        self.thread_seen = Instant::now();
        if self.thread.has_ended() {
            tracing::error!("the loop's thread has ended: the worker is ended, and a successor goes on");
            std::thread::sleep(LAST_WORDS);
            self.board.loop_ended();
            let _ = kill_process(getpid(), Signal::KILL);
        }
    }

    /// Looks at the running callback once, and notes it on the board. If it is over a limit,
    /// reports it or ends the process. A report takes up to 3.5 s, for the stack and the child
    /// that names the place.
    fn look(&mut self) {
        let Some((mark, what)) = self.board.running() else {
            self.board.looked(now_ns(), None);
            return self.over();
        };
        let is_new = self.seen.as_ref().is_none_or(|seen| seen.mark != mark);
        self.board.looked(now_ns(), is_new.then(|| (mark, now_ns())));
        match &mut self.seen {
            Some(seen) if seen.mark == mark => {}
            _ => {
                self.over();
                let since = Instant::now();
                self.seen = Some(Seen { mark, what, since, warned: false, placed: false });
                return;
            }
        }
        let Some(seen) = &mut self.seen else { return };
        let ms = seen.since.elapsed().as_millis() as u64;
        let (warn, kill) = self.stall_limits.get();
        let killed = kill > 0 && ms >= kill;
        let warned = warn > 0 && ms >= warn && !std::mem::replace(&mut seen.warned, true);
        let placed = ms >= PLACE_AFTER.as_millis() as u64 && !seen.placed;
        if !killed && !warned && !placed {
            return;
        }
        seen.placed = true;
        self.report(mark, what, ms, killed, warned);
    }

    /// Reports a callback that runs for `ms` milliseconds: its place on the board, and in the log
    /// if it is to be `warned` of. Ends the process if it is to be `killed`.
    fn report(&self, mark: u64, what: Running, ms: u64, killed: bool, warned: bool) {
        let frames = self.thread.frames();
        // The callback may have returned just now. The frames would be those of another one.
        if self.board.running().is_none_or(|(now, _)| now != mark) {
            return;
        }
        let place = place_of(&frames, &self.copies);
        let Running { generation, action, .. } = what;
        let session = public_number(what.session);
        let service = self.service(what.service);
        let action = action_name(action);
        let function = place.as_ref().map_or("?", |p| &p.function);
        let (file, line) = place.as_ref().map_or(("?", 0), |p| (&p.file, p.line));
        if let Some(place) = &place {
            self.board.place(mark, &place.to_string());
        }
        if killed {
            tracing::error!(
                %service, session, generation, action, %function, %file, line,
                "a callback has been running for {ms} ms (limit stall_kill_ms): the worker is ended, and a successor goes on"
            );
            std::thread::sleep(LAST_WORDS);
            // The kill comes seconds after the look, and must not hit the next action.
            if self.board.running().is_none_or(|(now, _)| now != mark) {
                return tracing::warn!(%service, session, "the callback has returned after all");
            }
            // On the board before the kill: the keeper reads there that the action is to blame.
            self.board.reached(Limit::StallKillMs);
            self.board.stalled(ms);
            let _ = kill_process(getpid(), Signal::KILL);
        } else if warned {
            self.board.reached(Limit::StallWarnMs);
            tracing::warn!(
                %service, session, generation, action, %function, %file, line,
                "a callback has been running for {ms} ms, and everybody waits for it (limit stall_warn_ms)"
            );
        }
    }

    /// Looks at the pass under way once, behind the look at the callback. A pass that is over the
    /// limit is named, unless a callback of it was.
    fn look_at_the_pass(&mut self) {
        let now = self.board.pass();
        if self.pass.as_ref().map(|p| p.mark) != now.map(|(mark, _)| mark) {
            if let Some(over) = self.pass.take()
                && over.warned
            {
                tracing::warn!("the pass ended after about {} ms", over.since.elapsed().as_millis());
            }
            let (since, warned, is_explained) = (Instant::now(), false, false);
            self.pass = now.map(|(mark, _)| SeenPass { mark, since, warned, is_explained });
            return;
        }
        let (Some(pass), Some((_, stage))) = (&mut self.pass, now) else { return };
        let ms = pass.since.elapsed().as_millis() as u64;
        self.board.pass_took(ms);
        pass.is_explained |= self.seen.as_ref().is_some_and(|s| s.warned);
        let (warn, _) = self.stall_limits.get();
        let is_late = warn > 0 && ms >= warn && !pass.is_explained;
        if !is_late || std::mem::replace(&mut pass.warned, true) {
            return;
        }
        self.board.reached(Limit::StallWarnMs);
        let (session, service) = self.board.last_turn();
        let (session, service, stage) = (public_number(session), self.service(service), stage.name());
        tracing::warn!(
            %service, session, stage,
            "a pass of the loop has been running for {ms} ms, and everybody waits for it (limit stall_warn_ms); service and session had the last turn"
        );
    }

    /// Forgets the callback that was seen, as it has returned. If it was named in the log, a line
    /// says that it is over.
    fn over(&mut self) {
        if let Some(seen) = self.seen.take()
            && seen.warned
        {
            let (session, ms) = (public_number(seen.what.session), seen.since.elapsed().as_millis());
            tracing::warn!(service = %self.service(seen.what.service), session, "the callback returned after about {ms} ms");
        }
    }

    /// Name of a service, by its number on the board. `?`: the text is being written. Reads the
    /// whole board, so only for a report.
    fn service(&self, number: u16) -> String {
        let services = board_text::read(&Reading::of(&self.file)).unwrap_or_default();
        services.into_iter().nth(usize::from(number)).flatten().map_or_else(|| "?".into(), |s| s.name)
    }
}
