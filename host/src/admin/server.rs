//! Callers: accepted by the keeper, and served on a thread each, in keeper and worker.

use crate::protocol::admin::{AdminCommand, Reply, ServedBy};
use greenroom_core::reload::request::Requester;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

/// Longest command, in bytes.
const COMMAND_BYTES_MAX: u64 = 64 * 1024;
/// Most callers at once.
const CALLERS_MAX: usize = 32;
/// Number of callers under way.
static CALLERS: AtomicUsize = AtomicUsize::new(0);
/// Time for which a host that ends waits until callers have heard so.
const GOODBYE_MAX: Duration = Duration::from_millis(500);
/// Time after which a caller that does not read its answer is dropped.
const CALLER_TIMEOUT: Duration = Duration::from_secs(30);

/// Request to the keeper.
pub enum Asked {
    /// A command that the keeper answers ([`ServedBy::Keeper`]).
    OfKeeper(AdminCommand, Answers),
    /// A command that the worker answers, on this socket.
    OfWorker(AdminCommand, Requester, UnixStream),
}

/// Receiver of answers.
pub type Answers = Sender<Reply>;

/// Listens, and accepts callers until the process ends.
pub fn listen(path: &Path, post: impl Fn(Asked) -> bool + Clone + Send + 'static) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
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

/// Serves a caller on a thread of its own. False: there are too many; the caller is told so.
pub(super) fn on_thread(
    stream: UnixStream,
    serve: impl FnOnce(UnixStream) -> io::Result<()> + Send + 'static,
) -> bool {
    let busy = CALLERS.fetch_add(1, Ordering::Relaxed) >= CALLERS_MAX;
    let served = std::thread::Builder::new().name("caller".into()).spawn(move || {
        if busy {
            refuse(&stream, &format!("{CALLERS_MAX} commands are under way already"));
        } else if let Err(e) = serve(stream) {
            tracing::debug!("admin: {e}");
        }
        CALLERS.fetch_sub(1, Ordering::Relaxed);
    });
    if served.is_err() {
        CALLERS.fetch_sub(1, Ordering::Relaxed);
    }
    !busy && served.is_ok()
}

/// Whether callers wait for their answers.
pub fn is_busy() -> bool {
    CALLERS.load(Ordering::Relaxed) > 0
}

/// Waits until every caller has its answer, if only that the host has stopped: the loop has ended,
/// and soon the process does.
pub fn finish() {
    let give_up = Instant::now() + GOODBYE_MAX;
    while CALLERS.load(Ordering::Relaxed) > 0 && Instant::now() < give_up {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Tells a caller why it gets no answer. The caller may be gone: ignore the error.
pub fn refuse(stream: &UnixStream, why: &str) {
    let said = Caller::new(stream).and_then(|mut caller| caller.say(&Reply::Error(why.to_owned())));
    if let Err(e) = said {
        tracing::debug!("admin: {e}");
    }
}

/// Reads a caller's command, in the keeper.
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
    BufReader::new((&stream).take(COMMAND_BYTES_MAX)).read_line(&mut line)?;
    let command: AdminCommand = match serde_json::from_str(&line) {
        Ok(command) => command,
        Err(e) => return caller.say(&Reply::Error(format!("the command is not known to this host: {e}"))),
    };
    if command.served_by() != ServedBy::Keeper {
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
    match last {
        Some(Reply::End | Reply::Error(_)) => Ok(()),
        Some(_) if status => caller.say(&Reply::End),
        _ => caller.say(&Reply::Error("the host is stopping".into())),
    }
}

/// Socket of a caller.
pub(super) struct Caller<'a> {
    out: BufWriter<&'a UnixStream>,
}

impl<'a> Caller<'a> {
    /// Takes a caller's socket, with time limits for reading and writing.
    pub(super) fn new(stream: &'a UnixStream) -> io::Result<Caller<'a>> {
        stream.set_read_timeout(Some(CALLER_TIMEOUT))?;
        stream.set_write_timeout(Some(CALLER_TIMEOUT))?;
        Ok(Caller { out: BufWriter::new(stream) })
    }

    /// Input of the caller, behind its command.
    pub(super) fn reader(&self) -> BufReader<&'a UnixStream> {
        BufReader::new(self.out.get_ref())
    }

    /// Sends one reply.
    pub(super) fn say(&mut self, reply: &Reply) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, reply)?;
        self.out.write_all(b"\n")?;
        self.out.flush()
    }
}
