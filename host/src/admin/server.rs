//! Callers of the admin socket: accepted by the keeper, served on a thread each.
//!
//! | step | process |
//! | --- | --- |
//! | accept, check the user, read the command | keeper |
//! | answer `status` and `upgrade` | keeper |
//! | answer anything else | worker, on the same socket |
//!
//! A thread for each caller keeps the loops free. A caller that sends or reads nothing blocks
//! its own thread, for at most 30 s at a time. Each process serves at most 32 callers at once;
//! further ones are told so, without a thread. The user is checked by the kernel's credentials
//! of the peer, so no password is needed.
//!
//! If the process ends, [`finish`] gives the callers 500 ms to hear so.

use crate::protocol::admin::{AdminCommand, Reply, ServedBy};
use greenroom_core::reload::request::Requester;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

/// Longest command, in bytes. A longer one is cut off there, can't be parsed, and is refused.
/// Data of a restore follows the command and does not count.
const COMMAND_BYTES_MAX: u64 = 64 * 1024;
/// Most callers at once, in this process. Bounds threads and the queries that the loop finds.
const CALLERS_MAX: usize = 32;
/// Number of callers under way. One that is refused is not among them.
static CALLERS: AtomicUsize = AtomicUsize::new(0);
/// Time for which a host that ends waits until callers have heard so.
const GOODBYE_MAX: Duration = Duration::from_millis(500);
/// Time after which a caller that sends nothing, or does not read its answer, is dropped.
const CALLER_TIMEOUT: Duration = Duration::from_secs(30);

/// Request to the keeper.
pub enum Asked {
    /// A command that the keeper answers ([`ServedBy::Keeper`]).
    OfKeeper(AdminCommand, Answers),
    /// A command that the worker answers, on this socket.
    OfWorker(AdminCommand, Requester, UnixStream),
}

/// Sender of a keeper's answers. The answer ends when the sender is dropped.
pub type Answers = Sender<Reply>;

/// Listens, and accepts callers until the process ends. Called once, by the keeper, which holds
/// the lock of the runtime directory.
///
/// `post` gives a request to the keeper's loop; false: the loop has ended. Fails if the path
/// exists or cannot be written.
pub fn listen(path: &Path, post: impl Fn(Asked) -> bool + Clone + Send + 'static) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    // The directory's mode 0700 protects the socket until this line.
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
    std::thread::Builder::new().name("admin".into()).spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                // No descriptors are left: the next caller may get one.
                std::thread::sleep(Duration::from_millis(100));
                continue;
            };
            let post = post.clone();
            on_thread(stream, move |stream| take_in(stream, &post));
        }
    })?;
    Ok(())
}

/// Serves a caller on a thread of its own. False: there are too many, or no thread can be started,
/// and the caller is told so. A refusal takes no thread, so a flood of callers costs none.
pub(super) fn on_thread(
    stream: UnixStream,
    serve: impl FnOnce(UnixStream) -> io::Result<()> + Send + 'static,
) -> bool {
    // Counted before the test, so that two callers cannot both take the last place.
    if CALLERS.fetch_add(1, Ordering::Relaxed) >= CALLERS_MAX {
        CALLERS.fetch_sub(1, Ordering::Relaxed);
        refuse(&stream, &format!("{CALLERS_MAX} commands are under way already"));
        return false;
    }
    // A thread that can't be started drops its socket with its closure.
    let to_refuse = stream.try_clone();
    let served = std::thread::Builder::new().name("caller".into()).spawn(move || {
        if let Err(e) = serve(stream) {
            tracing::debug!("admin: {e}");
        }
        CALLERS.fetch_sub(1, Ordering::Relaxed);
    });
    if let Err(e) = &served {
        CALLERS.fetch_sub(1, Ordering::Relaxed);
        if let Ok(stream) = to_refuse {
            refuse(&stream, &format!("no thread can be started for the command: {e}"));
        }
    }
    served.is_ok()
}

/// Whether callers wait for their answers. A worker that hands over waits for them.
pub fn is_busy() -> bool {
    CALLERS.load(Ordering::Relaxed) > 0
}

/// Waits until every caller has its answer, if only that the host has stopped. At most 500 ms.
///
/// Called when the loop has ended and before the process does. Without this wait a caller would
/// hear a broken connection instead of the reason.
pub fn finish() {
    let give_up = Instant::now() + GOODBYE_MAX;
    while CALLERS.load(Ordering::Relaxed) > 0 && Instant::now() < give_up {
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
fn take_in(stream: UnixStream, post: &impl Fn(Asked) -> bool) -> io::Result<()> {
    let mut caller = Caller::new(&stream)?;
    // The directory's mode keeps others out; this check is for a directory that was opened by
    // mistake.
    let who = rustix::net::sockopt::socket_peercred(&stream)?;
    let me = rustix::process::geteuid();
    if who.uid != me && !who.uid.is_root() {
        return caller.say(&Reply::Error(format!("this host belongs to user {}", me.as_raw())));
    }
    let by = Requester::Operator { uid: who.uid.as_raw(), pid: who.pid.as_raw_nonzero().get() };
    let mut line = String::new();
    // Bytes behind the line would be lost with this reader. A caller sends none: data of a
    // restore waits for `Go`.
    BufReader::new((&stream).take(COMMAND_BYTES_MAX)).read_line(&mut line)?;
    let command: AdminCommand = match serde_json::from_str(&line) {
        Ok(command) => command,
        Err(e) => return caller.say(&Reply::Error(format!("the command is not known to this host: {e}"))),
    };
    if command.served_by() != ServedBy::Keeper {
        // The socket goes to the worker whole; nothing is buffered here.
        drop(caller);
        if !post(Asked::OfWorker(command, by, stream)) {
            tracing::debug!("admin: the host is stopping");
        }
        return Ok(());
    }
    let status = matches!(command, AdminCommand::Status);
    let (answers, answered) = channel();
    post(Asked::OfKeeper(command, answers));
    let mut last = None;
    for reply in answered {
        caller.say(&reply)?;
        last = Some(reply);
    }
    // An answer without an end means that the loop stopped. `Status` is one reply and needs the
    // end added.
    match last {
        Some(Reply::End | Reply::Error(_)) => Ok(()),
        Some(_) if status => caller.say(&Reply::End),
        _ => caller.say(&Reply::Error("the host is stopping".into())),
    }
}

/// Socket of a caller, as an answer is written to it.
pub(super) struct Caller<'a> {
    out: BufWriter<&'a UnixStream>,
}

impl<'a> Caller<'a> {
    /// Takes a caller's socket, with time limits for reading and writing. Sets options of the
    /// socket only, so it can be repeated in another process.
    pub(super) fn new(stream: &'a UnixStream) -> io::Result<Caller<'a>> {
        stream.set_read_timeout(Some(CALLER_TIMEOUT))?;
        stream.set_write_timeout(Some(CALLER_TIMEOUT))?;
        Ok(Caller { out: BufWriter::new(stream) })
    }

    /// Input of the caller, behind its command.
    pub(super) fn reader(&self) -> BufReader<&'a UnixStream> {
        BufReader::new(self.out.get_ref())
    }

    /// Sends one reply as a line of JSON, and flushes it: a caller sees progress when it
    /// happens.
    pub(super) fn say(&mut self, reply: &Reply) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, reply)?;
        self.out.write_all(b"\n")?;
        self.out.flush()
    }
}
