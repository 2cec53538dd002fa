//! Callers of the admin socket: accepted by the keeper, served on a thread each.
//!
//! | step | process |
//! | --- | --- |
//! | accept, check the user, read the command | keeper |
//! | answer `status` and `upgrade` | keeper |
//! | answer anything else | worker, on the same socket |
//!
//! A thread for each caller keeps the loops free. A caller that sends nothing blocks its own
//! thread, for at most 30 s at a time. One that reads nothing, such as a pager, is waited for up
//! to 10 minutes. Each process serves at most 32 callers at once; further ones are told so,
//! without a thread. A caller that has read nothing for 30 s is not counted, up to as many again.
//! The user is checked by the kernel's credentials of the peer, so no password is needed.
//!
//! The socket's file may be deleted while the host lives. The keeper's upkeep notices, and has the
//! host listen at the path again.
//!
//! If the process ends, [`finish`] gives the callers 500 ms to hear so.

use crate::mailbox::Mailbox;
use crate::protocol::admin::{AdminCommand, Reply};
use crate::protocol::serving::ServedBy;
use crate::sys::descriptors::limit;
use crate::sys::peer;
use greenroom_core::reload::request::Requester;
use greenroom_state::nesting::parse;
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

/// Longest command, in bytes. A longer one is cut off there, can't be parsed, and is refused.
/// Data of a restore follows the command and does not count.
const COMMAND_BYTES_MAX: u64 = 64 * 1024;
/// Most callers at once, in this process, and at most one for eight open files that it may have.
/// Bounds threads, descriptors, and the queries that the loop finds.
const CALLERS_MAX: usize = 32;
/// Number of callers under way. One that is refused is not among them.
static CALLERS: AtomicUsize = AtomicUsize::new(0);
/// Time for which a host that ends waits until callers have heard so.
const GOODBYE_MAX: Duration = Duration::from_millis(500);
/// Time after which a caller that sends nothing is dropped, and one that does not read its answer
/// stands still.
const CALLER_TIMEOUT: Duration = Duration::from_secs(30);
/// Number of callers under way that stand still, and give their places to others.
static STANDING: AtomicUsize = AtomicUsize::new(0);
/// Time after which a caller that does not read its answer is dropped.
pub(super) const READER_MAX: Duration = Duration::from_secs(600);

/// Request to the keeper.
pub enum Asked {
    /// A command that the keeper answers ([`ServedBy::Keeper`]).
    OfKeeper(AdminCommand, Answers),
    /// A command that the worker answers, on this socket.
    OfWorker(AdminCommand, Requester, UnixStream),
}

/// Sender of a keeper's answers. The answer ends when the sender is dropped.
pub type Answers = Sender<Reply>;

/// The admin socket, while this process listens on it. A thread accepts callers until the process
/// ends. Dropping the socket removes it, and callers that are connected get their answers still.
///
/// The owner holds the lock of the runtime directory.
pub struct AdminSocket {
    path: PathBuf,
    /// Gives requests to the keeper's loop.
    post: Mailbox<Asked>,
    /// Shared with the thread that accepts.
    listener: Arc<UnixListener>,
    /// Device and inode of the socket at the path. `None`: it was gone at once.
    place: Option<(u64, u64)>,
}

impl AdminSocket {
    /// Listens at a path. Fails if the path exists or cannot be written.
    pub fn listen(path: PathBuf, post: Mailbox<Asked>) -> io::Result<AdminSocket> {
        let (listener, place) = open(&path, post.clone())?;
        Ok(AdminSocket { path, post, listener, place })
    }

    /// Path of the socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the path still names the socket. Costs one stat.
    pub fn is_in_place(&self) -> bool {
        self.place.is_some() && self.place == place_of(&self.path)
    }

    /// Listens again at the path, whatever is there by now. Callers that connected and were not
    /// accepted yet are cut off. After an error the earlier socket stays, and nobody finds it.
    pub fn listen_again(&mut self) -> io::Result<()> {
        let _ = std::fs::remove_file(&self.path);
        let (listener, place) = open(&self.path, self.post.clone())?;
        // Ends the thread of the earlier socket.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        (self.listener, self.place) = (listener, place);
        Ok(())
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        // Another socket at the path is another host's.
        if self.is_in_place() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Device and inode of a file; `None`: it cannot be looked at.
fn place_of(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|m| (m.dev(), m.ino()))
}

/// A socket that listens, and its place.
type Listening = (Arc<UnixListener>, Option<(u64, u64)>);

/// Listens at a path, and accepts callers on a thread until the socket is shut down.
fn open(path: &Path, post: Mailbox<Asked>) -> io::Result<Listening> {
    let listener = Arc::new(UnixListener::bind(path)?);
    // The directory's mode 0700 protects the socket until this line.
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
    let place = place_of(path);
    let accepting = listener.clone();
    std::thread::Builder::new().name("admin".into()).spawn(move || accept(&accepting, &post))?;
    Ok((listener, place))
}

/// Accepts callers until the socket is shut down.
fn accept(listener: &UnixListener, post: &Mailbox<Asked>) {
    for stream in listener.incoming() {
        match stream {
            Ok(stream) => {
                let post = post.clone();
                on_thread(stream, move |stream| take_in(stream, &post));
            }
            Err(e) if e.kind() == ErrorKind::InvalidInput => return,
            // No descriptors are left: the next caller may get one.
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Serves a caller on a thread of its own. False: there are too many, or no thread can be started,
/// and the caller is told so. A refusal takes no thread, so a flood of callers costs none.
pub(super) fn on_thread(
    stream: UnixStream,
    serve: impl FnOnce(UnixStream) -> io::Result<()> + Send + 'static,
) -> bool {
    // Counted before the test, so that two callers cannot both take the last place.
    let most = CALLERS_MAX.min(limit() / 8);
    if CALLERS.fetch_add(1, Relaxed) >= most {
        CALLERS.fetch_sub(1, Relaxed);
        refuse(&stream, &format!("{most} commands are under way already"));
        return false;
    }
    // A thread that can't be started drops its socket with its closure.
    let to_refuse = stream.try_clone();
    let served = std::thread::Builder::new().name("caller".into()).spawn(move || {
        // Given back however the thread ends.
        let _place = Place;
        if let Err(e) = serve(stream) {
            tracing::debug!("admin: {e}");
        }
    });
    if let Err(e) = &served {
        CALLERS.fetch_sub(1, Relaxed);
        if let Ok(stream) = to_refuse {
            refuse(&stream, &format!("no thread can be started for the command: {e}"));
        }
    }
    served.is_ok()
}

/// Place of a caller under way.
struct Place;

impl Drop for Place {
    fn drop(&mut self) {
        CALLERS.fetch_sub(1, Relaxed);
    }
}

/// Whether callers wait for their answers. A worker that hands over waits for them.
pub fn is_busy() -> bool {
    CALLERS.load(Relaxed) > 0
}

/// Waits until every caller has its answer, if only that the host has stopped. At most 500 ms.
///
/// Called when the loop has ended and before the process does. Without this wait a caller would
/// hear a broken connection instead of the reason.
pub fn finish() {
    let give_up = Instant::now() + GOODBYE_MAX;
    while CALLERS.load(Relaxed) > 0 && Instant::now() < give_up {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Tells a caller why it gets no answer. Never blocks: the answer fits the buffer of a socket to
/// which nothing was written, and a caller whose buffer is full gets none.
pub fn refuse(stream: &UnixStream, why: &str) {
    let said = stream.set_nonblocking(true).and_then(|()| {
        // What the caller has sent: a socket that is closed over it would reset the answer.
        let _ = (&mut &*stream).take(COMMAND_BYTES_MAX).read_to_end(&mut Vec::new());
        Caller::new(stream)?.say(&Reply::Error(why.to_owned()))
    });
    if let Err(e) = said {
        tracing::debug!("admin: {e}");
    }
}

/// Reads a caller's command in the keeper, and has it answered by keeper or worker.
///
/// Fails if the caller is gone or too slow; nothing was asked then, or the answer is lost.
fn take_in(stream: UnixStream, post: &Mailbox<Asked>) -> io::Result<()> {
    let mut caller = Caller::new(&stream)?;
    // The directory's mode keeps others out; this check is for a directory that was opened by
    // mistake.
    let who = peer::of(&stream)?;
    let me = rustix::process::geteuid();
    if who.uid != me && !who.uid.is_root() {
        return caller.say(&Reply::Error(format!("this host belongs to user {}", me.as_raw())));
    }
    let by = Requester::Operator {
        uid: who.uid.as_raw(),
        pid: who.pid.map_or(0, |pid| pid.as_raw_nonzero().get()),
    };
    let mut line = Vec::new();
    // Bytes behind the line would be lost with this reader. A caller sends none: data of a
    // restore waits for `Go`.
    BufReader::new((&stream).take(COMMAND_BYTES_MAX)).read_until(b'\n', &mut line)?;
    if line.len() as u64 == COMMAND_BYTES_MAX && !line.ends_with(b"\n") {
        drop(caller);
        refuse(&stream, &format!("a command has at most {COMMAND_BYTES_MAX} bytes; this one is longer"));
        return Ok(());
    }
    let command: AdminCommand = match parse(&line) {
        Ok(command) => command,
        Err(e) => return caller.say(&Reply::Error(format!("the command is not known to this host: {e}"))),
    };
    if command.served_by() != ServedBy::Keeper {
        // The socket goes to the worker whole; nothing is buffered here.
        drop(caller);
        if !post.post(Asked::OfWorker(command, by, stream)) {
            tracing::debug!("admin: the host is stopping");
        }
        return Ok(());
    }
    let one_reply = matches!(command, AdminCommand::Status | AdminCommand::Metrics);
    let (answers, answered) = channel();
    post.post(Asked::OfKeeper(command, answers));
    let mut last = None;
    for reply in answered {
        caller.say(&reply)?;
        last = Some(reply);
    }
    // An answer without an end means that the loop stopped. An answer of one reply needs the end
    // added.
    match last {
        Some(Reply::End | Reply::Error(_)) => Ok(()),
        Some(_) if one_reply => caller.say(&Reply::End),
        _ => caller.say(&Reply::Error("the host is stopping".into())),
    }
}

/// Socket of a caller, as an answer is written to it.
pub(super) struct Caller<'a> {
    out: BufWriter<Unhurried<'a>>,
}

/// Writer that waits for a slow reader, and counts it as one that stands still meanwhile.
struct Unhurried<'a> {
    stream: &'a UnixStream,
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
        let most = CALLERS_MAX.min(limit() / 8);
        if !self.stands && STANDING.fetch_update(Relaxed, Relaxed, |n| (n < most).then_some(n + 1)).is_ok() {
            CALLERS.fetch_sub(1, Relaxed);
            self.stands = true;
        }
    }

    /// Takes a place again. There may be more callers than places for a while.
    fn go_on(&mut self) {
        if std::mem::take(&mut self.stands) {
            CALLERS.fetch_add(1, Relaxed);
            STANDING.fetch_sub(1, Relaxed);
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
    /// Takes a caller's socket, with time limits for reading and writing. Sets options of the
    /// socket only, so it can be repeated in another process.
    pub(super) fn new(stream: &'a UnixStream) -> io::Result<Caller<'a>> {
        stream.set_read_timeout(Some(CALLER_TIMEOUT))?;
        stream.set_write_timeout(Some(CALLER_TIMEOUT))?;
        // A write that has timed out took about that long.
        let (stands_after, ends_after) = (CALLER_TIMEOUT / 2, READER_MAX);
        Ok(Caller { out: BufWriter::new(Unhurried { stream, stands: false, stands_after, ends_after }) })
    }

    /// Input of the caller, behind its command.
    pub(super) fn reader(&self) -> BufReader<&'a UnixStream> {
        BufReader::new(self.out.get_ref().stream)
    }

    /// Sends one reply as a line of JSON, and flushes it: a caller sees progress when it
    /// happens.
    pub(super) fn say(&mut self, reply: &Reply) -> io::Result<()> {
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
        let slow =
            |ends_after| Unhurried { stream: &ours, stands: false, stands_after: Duration::ZERO, ends_after };
        let standing = STANDING.load(Relaxed);
        CALLERS.fetch_add(1, Relaxed);
        let all = vec![7; 2_000_000];
        std::thread::scope(|scope| {
            let writes = scope.spawn(|| slow(Duration::from_secs(3600)).write_all(&all));
            while STANDING.load(Relaxed) == standing {
                std::thread::yield_now();
            }
            let mut read = vec![0; all.len()];
            theirs.read_exact(&mut read).unwrap();
            assert!(writes.join().unwrap().is_ok() && read == all);
        });
        assert_eq!(STANDING.load(Relaxed), standing);
        let error = slow(Duration::from_millis(20)).write_all(&all).unwrap_err();
        assert_eq!((error.kind(), STANDING.load(Relaxed)), (ErrorKind::WouldBlock, standing));
        CALLERS.fetch_sub(1, Relaxed);
    }
}
