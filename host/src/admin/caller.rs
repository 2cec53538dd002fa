//! Callers under way: a thread and a place for each, and patience with those who read slowly.
//!
//! A thread for each caller keeps the loops free. A caller that sends nothing blocks its own
//! thread, for at most 30 s at a time. One that reads nothing, such as a pager, is waited for up
//! to 10 minutes. Each process serves at most 32 callers at once that may change something, and 24
//! that may not; further ones are told so, without a thread. So those who look keep nobody from a
//! change. A caller that has read nothing for 30 s is not counted, up to as many again.
//!
//! If the process ends, [`finish`] gives the callers 500 ms to hear so.

use crate::config::admin::Role;
use crate::protocol::admin::Reply;
use crate::sys::descriptors::limit;
use crate::sys::process_state::give_way;
use greenroom_core::ledger::Outcome;
use serde_json::{Map, Value, json};
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest command, in bytes. A longer one is cut off there, can't be parsed, and is refused.
/// Data of a restore follows the command and does not count.
pub(super) const COMMAND_BYTES_MAX: u64 = 64 * 1024;
/// Most callers at once that may change something, in this process, and at most one for eight open
/// files that it may have. Those that may not are at most three quarters of this. Bounds threads,
/// descriptors, and the queries that the loop finds.
const CALLERS_MAX: usize = 32;
/// Numbers of callers under way: those that may not change anything, and those that may. One that
/// is refused is not among them.
static CALLERS: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
/// Time for which a caller waits for the spare thread: the one before has its answer, but for its
/// last bytes.
const SPARE_WAIT: Duration = Duration::from_millis(100);
/// Time for which a host that ends waits until callers have heard so.
const GOODBYE_MAX: Duration = Duration::from_millis(500);
/// Time after which a caller that sends nothing is dropped, and one that does not read its answer
/// stands still.
const CALLER_TIMEOUT: Duration = Duration::from_secs(30);
/// Numbers of callers under way that stand still, and give their places to others of their role.
static STANDING: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
/// Time after which a caller that does not read its answer is dropped.
pub(super) const READER_MAX: Duration = Duration::from_secs(600);

/// Most callers of a role at once.
pub fn callers_max(role: Role) -> usize {
    let most = CALLERS_MAX.min(limit() / 8);
    if role == Role::Operate { most } else { most - most / 4 }
}

/// Number of callers of a role that are under way.
fn under_way(role: Role) -> &'static AtomicUsize {
    &CALLERS[usize::from(role == Role::Operate)]
}

/// Number of callers of a role that stand still.
fn standing(role: Role) -> &'static AtomicUsize {
    &STANDING[usize::from(role == Role::Operate)]
}

/// Work for a caller's thread.
type Serving = Box<dyn FnOnce() + Send>;

/// Thread that is kept back for a caller, for when the system gives none: at the limit of processes
/// an operator must see what is wrong. Dropping it ends the thread.
pub(super) struct SpareThread(SyncSender<Serving>);

impl SpareThread {
    /// Starts the thread. Fails if the system has none to give.
    pub(super) fn start() -> io::Result<SpareThread> {
        let (work, all) = sync_channel::<Serving>(0);
        std::thread::Builder::new().name("spare caller".into()).spawn(move || {
            give_way();
            all.into_iter().for_each(|serve| serve());
        })?;
        Ok(SpareThread(work))
    }

    /// Gives the thread work, if it is free within [`SPARE_WAIT`]. False: it is not.
    fn take(&self, mut serving: Serving) -> bool {
        let give_up = Instant::now() + SPARE_WAIT;
        loop {
            // Taken only by a thread that waits for it.
            match self.0.try_send(serving) {
                Err(TrySendError::Full(back)) if Instant::now() < give_up => serving = back,
                sent => return sent.is_ok(),
            }
            std::thread::sleep(SPARE_WAIT / 20);
        }
    }
}

/// Serves a caller on a thread of its own, or on the spare one. `role`: what it may do at most.
/// False: there are too many, or no thread can be started, and the caller is told so. A refusal
/// takes no thread, so a flood of callers costs none.
pub(super) fn on_thread(
    stream: UnixStream,
    role: Role,
    spare: Option<&SpareThread>,
    serve: impl FnOnce(UnixStream) -> io::Result<()> + Send + 'static,
) -> bool {
    // Counted before the test, so that two callers cannot both take the last place.
    let most = callers_max(role);
    if under_way(role).fetch_add(1, Relaxed) >= most {
        under_way(role).fetch_sub(1, Relaxed);
        refuse(&stream, &format!("{most} commands are under way already"));
        return false;
    }
    let to_refuse = stream.try_clone();
    // Given back however the thread ends.
    let place = Place(role);
    let serving: Serving = Box::new(move || {
        let _place = place;
        if let Err(e) = serve(stream) {
            tracing::debug!("admin: {e}");
        }
    });
    // A thread that can't be started would drop the socket with the closure.
    let waits = Arc::new(Mutex::new(Some(serving)));
    let take = |waits: &Mutex<Option<Serving>>| waits.lock().unwrap_or_else(PoisonError::into_inner).take();
    let of_thread = waits.clone();
    let started = std::thread::Builder::new().name("caller".into()).spawn(move || {
        // A thread of the keeper or the worker, beside its loop.
        give_way();
        take(&of_thread).into_iter().for_each(|serve| serve());
    });
    let Err(e) = started else { return true };
    let Some(serving) = take(&waits) else { return false };
    let is_taken = spare.is_some_and(|spare| spare.take(serving));
    if !is_taken && let Ok(stream) = to_refuse {
        refuse(&stream, &format!("no thread can be started for the command: {e}"));
    }
    is_taken
}

/// Place of a caller under way.
struct Place(Role);

impl Drop for Place {
    fn drop(&mut self) {
        under_way(self.0).fetch_sub(1, Relaxed);
    }
}

/// Whether callers wait for their answers. A worker that hands over waits for them.
pub fn is_busy() -> bool {
    CALLERS.iter().any(|n| n.load(Relaxed) > 0)
}

/// Waits until every caller has its answer, if only that the host has stopped. At most 500 ms.
///
/// Called when the loop has ended and before the process does. Without this wait a caller would
/// hear a broken connection instead of the reason.
pub fn finish() {
    let give_up = Instant::now() + GOODBYE_MAX;
    while is_busy() && Instant::now() < give_up {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Tells a caller why it gets no answer. Never blocks: the answer fits the buffer of a socket to
/// which nothing was written, and a caller whose buffer is full gets none.
pub fn refuse(stream: &UnixStream, why: &str) {
    let said = stream.set_nonblocking(true).and_then(|()| {
        // What the caller has sent: a socket that is closed over it would reset the answer.
        let _ = (&mut &*stream).take(COMMAND_BYTES_MAX).read_to_end(&mut Vec::new());
        Caller::new(stream, Role::Read)?.say(&Reply::Error(why.to_owned()))
    });
    if let Err(e) = said {
        tracing::debug!("admin: {e}");
    }
}

/// Socket of a caller, as an answer is written to it.
pub(super) struct Caller<'a> {
    out: BufWriter<Unhurried<'a>>,
    told: HeardEnd,
}

/// End of a change, as its replies tell it.
#[derive(Debug, Default)]
pub(super) struct HeardEnd {
    /// Lines of the ledger.
    pub(super) lines: Vec<u64>,
    /// Builds that serve from then on, by service.
    pub(super) builds: Map<String, Value>,
    /// Reasons of what was refused.
    pub(super) refused: Vec<String>,
    /// Answer to a change of several sessions.
    pub(super) reached: Value,
}

impl HeardEnd {
    /// Notes a reply.
    fn note(&mut self, reply: &Reply) {
        match reply {
            Reply::Report(report) => {
                self.lines.push(report.line);
                let build = match report.outcome {
                    Outcome::Committed | Outcome::Configured => {
                        Some(json!({"generation": report.generation, "build": report.build}))
                    }
                    Outcome::RolledBack | Outcome::Replaced | Outcome::TakenBack => {
                        Some(json!({"generation": report.generation}))
                    }
                    Outcome::Canary => {
                        Some(json!({"generation": report.generation, "canary": {"build": report.build}}))
                    }
                    _ => None,
                };
                if let Some(build) = build {
                    self.builds.extend(report.services.iter().map(|name| (name.clone(), build.clone())));
                }
                if report.outcome == Outcome::Refused {
                    self.refused.push(report.reason.clone());
                }
            }
            Reply::Reached(reached) => {
                let reasons = reached.refused.iter().map(|(id, why)| format!("session {id}: {why}"));
                self.refused.extend(reasons);
                self.reached = serde_json::to_value(reached).unwrap_or_default();
            }
            _ => {}
        }
    }
}

/// Writer that waits for a slow reader, and counts it as one that stands still meanwhile.
struct Unhurried<'a> {
    stream: &'a UnixStream,
    /// Role that the caller's place is one of.
    role: Role,
    /// The caller has given its place to others.
    stands: bool,
    /// Time after which it stands still.
    stands_after: Duration,
    /// Time after which it is dropped.
    ends_after: Duration,
}

impl Unhurried<'_> {
    /// Gives the caller's place to others, if it is a counted one and few have done so.
    fn stand(&mut self) {
        let most = callers_max(self.role);
        let one_more = |n| (n < most).then_some(n + 1);
        if !self.stands && standing(self.role).fetch_update(Relaxed, Relaxed, one_more).is_ok() {
            under_way(self.role).fetch_sub(1, Relaxed);
            self.stands = true;
        }
    }

    /// Takes a place again. There may be more callers than places for a while.
    fn go_on(&mut self) {
        if std::mem::take(&mut self.stands) {
            under_way(self.role).fetch_add(1, Relaxed);
            standing(self.role).fetch_sub(1, Relaxed);
        }
    }
}

impl Write for Unhurried<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let begun = Instant::now();
        loop {
            let written = (&mut &*self.stream).write(bytes);
            match &written {
                // A socket of a refusal does not block at all.
                Err(e)
                    if e.kind() == ErrorKind::WouldBlock
                        && begun.elapsed() >= self.stands_after
                        && begun.elapsed() < self.ends_after =>
                {
                    self.stand();
                }
                _ => {
                    self.go_on();
                    return written;
                }
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> Caller<'a> {
    /// Takes the socket of a caller of a role, with time limits for reading and writing. Sets
    /// options of the socket only, so it can be repeated in another process.
    pub(super) fn new(stream: &'a UnixStream, role: Role) -> io::Result<Caller<'a>> {
        stream.set_read_timeout(Some(CALLER_TIMEOUT))?;
        stream.set_write_timeout(Some(CALLER_TIMEOUT))?;
        // A write that has timed out took about that long.
        let (stands_after, ends_after) = (CALLER_TIMEOUT / 2, READER_MAX);
        let out = BufWriter::new(Unhurried { stream, role, stands: false, stands_after, ends_after });
        Ok(Caller { out, told: HeardEnd::default() })
    }

    /// End of a change, as the caller was told it.
    pub(super) fn told(&self) -> &HeardEnd {
        &self.told
    }

    /// Socket of the caller.
    pub(super) fn socket(&self) -> &'a UnixStream {
        self.out.get_ref().stream
    }

    /// Input of the caller, behind its command.
    pub(super) fn reader(&self) -> BufReader<&'a UnixStream> {
        BufReader::new(self.socket())
    }

    /// Sends one reply as a line of JSON, and flushes it: a caller sees progress when it
    /// happens.
    pub(super) fn say(&mut self, reply: &Reply) -> io::Result<()> {
        self.told.note(reply);
        serde_json::to_writer(&mut self.out, reply)?;
        self.out.write_all(b"\n")?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that stands still gives its place to others, and gets all in the end. One that does
    /// so for too long is dropped.
    #[test]
    fn a_reader_that_stands_still_is_waited_for() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_write_timeout(Some(Duration::from_millis(5))).unwrap();
        let role = Role::Operate;
        let slow = |ends_after| Unhurried {
            stream: &ours,
            role,
            stands: false,
            stands_after: Duration::ZERO,
            ends_after,
        };
        let standing = || standing(role).load(Relaxed);
        let before = standing();
        under_way(role).fetch_add(1, Relaxed);
        let all = vec![7; 2_000_000];
        std::thread::scope(|scope| {
            let writes = scope.spawn(|| slow(Duration::from_secs(3600)).write_all(&all));
            while standing() == before {
                std::thread::yield_now();
            }
            let mut read = vec![0; all.len()];
            theirs.read_exact(&mut read).unwrap();
            assert!(writes.join().unwrap().is_ok() && read == all);
        });
        assert_eq!(standing(), before);
        let error = slow(Duration::from_millis(20)).write_all(&all).unwrap_err();
        assert_eq!((error.kind(), standing()), (ErrorKind::WouldBlock, before));
        under_way(role).fetch_sub(1, Relaxed);
    }
}
