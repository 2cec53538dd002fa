//! The admin socket: callers are accepted by the keeper, and served on a thread each.
//!
//! | step | process |
//! | --- | --- |
//! | accept, check the role, read the command, note in the audit log who asks for it | keeper |
//! | answer `status` and `upgrade` | keeper |
//! | answer anything else | worker, on the same socket |
//!
//! A caller's role follows from the kernel's credentials of the peer ([`super::access`]), so no
//! password is needed. Who has no role is refused without a thread.
//!
//! The socket's file may be deleted while the host lives. The keeper's upkeep notices, and has the
//! host listen at the path again.

use crate::admin::access::{Access, AdminCaller};
use crate::admin::audit::AuditLine;
use crate::admin::caller::{COMMAND_BYTES_MAX, Caller, SpareThread, on_thread, refuse};
use crate::config::admin::Role;
use crate::mailbox::Mailbox;
use crate::protocol::admin::{AdminCommand, Reply};
use crate::protocol::serving::ServedBy;
use greenroom_core::reload::request::Requester;
use greenroom_state::parse::parse;
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// Request to the keeper.
pub enum Asked {
    /// A command that the keeper answers ([`ServedBy::Keeper`]).
    OfKeeper(AdminCommand, Answers),
    /// A command that the worker answers, on this socket.
    OfWorker(AdminCommand, Requester, UnixStream),
    /// A line was written to the audit log; else why not.
    Audited(Option<String>),
}

/// Sender of a keeper's answers. The answer ends when the sender is dropped.
pub type Answers = Sender<Reply>;

/// The admin socket, while this process listens on it. A thread accepts callers until the process
/// ends. Dropping the socket removes it, and callers that are connected get their answers still.
///
/// The owner holds the lock of the runtime directory.
pub struct AdminSocket {
    access: Arc<Access>,
    /// Gives requests to the keeper's loop.
    post: Mailbox<Asked>,
    /// Shared with the thread that accepts.
    listener: Arc<UnixListener>,
    /// Device and inode of the socket at the path. `None`: it was gone at once.
    place: Option<(u64, u64)>,
}

impl AdminSocket {
    /// Listens at the path, for callers that have access. Fails if the path exists or cannot be
    /// written.
    pub fn listen(access: Arc<Access>, post: Mailbox<Asked>) -> io::Result<AdminSocket> {
        let (listener, place) = open(&access, post.clone())?;
        Ok(AdminSocket { access, post, listener, place })
    }

    /// Path of the socket.
    pub fn path(&self) -> &Path {
        self.access.socket()
    }

    /// Whether the path still names the socket. Costs one stat.
    pub fn is_in_place(&self) -> bool {
        self.place.is_some() && self.place == place_of(self.path())
    }

    /// Sets the modes of socket and directory, by [`Access::set_modes`].
    pub fn set_modes(&self) -> io::Result<()> {
        self.access.set_modes()
    }

    /// Listens again at the path, whatever is there by now. Callers that connected and were not
    /// accepted yet are cut off. After an error the earlier socket stays, and nobody finds it.
    pub fn listen_again(&mut self) -> io::Result<()> {
        let _ = std::fs::remove_file(self.path());
        let (listener, place) = open(&self.access, self.post.clone())?;
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
            let _ = std::fs::remove_file(self.path());
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
fn open(access: &Arc<Access>, post: Mailbox<Asked>) -> io::Result<Listening> {
    let listener = Arc::new(UnixListener::bind(access.socket())?);
    // Whatever the modes are before this line, a caller needs a role.
    access.set_modes()?;
    let place = place_of(access.socket());
    let (accepting, access, spare) = (listener.clone(), access.clone(), SpareThread::start()?);
    let run = move || accept(&accepting, &access, &spare, &post);
    std::thread::Builder::new().name("admin".into()).spawn(run)?;
    Ok((listener, place))
}

/// Accepts callers until the socket is shut down.
fn accept(listener: &UnixListener, access: &Arc<Access>, spare: &SpareThread, post: &Mailbox<Asked>) {
    for stream in listener.incoming() {
        match stream {
            Ok(stream) => match access.caller(&stream) {
                Ok(who) if who.role.is_none() => refuse(&stream, &who.stranger()),
                Ok(who) => {
                    let (access, post) = (access.clone(), post.clone());
                    let role = who.role.unwrap_or(Role::Read);
                    on_thread(stream, role, Some(spare), move |stream| take_in(stream, who, &access, &post));
                }
                Err(e) => refuse(&stream, &format!("the kernel doesn't say who calls: {e}")),
            },
            Err(e) if e.kind() == ErrorKind::InvalidInput => return,
            // No descriptors are left: the next caller may get one.
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Reads a caller's command in the keeper, and has it answered by keeper or worker.
///
/// Fails if the caller is gone or too slow; nothing was asked then, or the answer is lost.
fn take_in(stream: UnixStream, who: AdminCaller, access: &Access, post: &Mailbox<Asked>) -> io::Result<()> {
    let mut caller = Caller::new(&stream, who.role.unwrap_or(Role::Read))?;
    let by = Requester::Operator { uid: who.uid, pid: who.pid };
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
    let (audit, changes) = (access.audit(), command.role() == Role::Operate);
    if let Some(why) = who.refusal(command.role(), command.name()) {
        audited(AuditLine::of("denied", &command, by).because(&why), audit.as_deref(), post);
        return caller.say(&Reply::Error(why));
    }
    if changes {
        audited(AuditLine::of("asked", &command, by), audit.as_deref(), post);
    }
    if command.served_by() != ServedBy::Keeper {
        // The socket goes to the worker whole; nothing is buffered here.
        drop(caller);
        if !post.post(Asked::OfWorker(command, by, stream)) {
            tracing::debug!("admin: the host is stopping");
        }
        return Ok(());
    }
    let one_reply = matches!(command, AdminCommand::Status | AdminCommand::Metrics | AdminCommand::Log(_));
    let trail = changes.then(|| KeeperTrail::begin(&command, by, post));
    let (answers, answered) = channel();
    post.post(Asked::OfKeeper(command, answers));
    // An answer without an end means that the loop stopped. An answer of one reply needs the end
    // added.
    let (mut end, mut said) = (Reply::Error("the host is stopping".into()), Ok(()));
    for reply in answered {
        match reply {
            Reply::End | Reply::Error(_) => end = reply,
            reply if said.is_ok() => {
                said = caller.say(&reply);
                end = if one_reply { Reply::End } else { end };
            }
            // The caller has left; the keeper goes on.
            _ => {}
        }
    }
    if let Some(trail) = trail {
        trail.end(&end, audit.as_deref(), post);
    }
    said.and_then(|()| caller.say(&end))
}

/// Trail of a change that the keeper carries out.
struct KeeperTrail {
    line: AuditLine,
    before: Value,
}

impl KeeperTrail {
    /// Begins before the change.
    fn begin(command: &AdminCommand, by: Requester, post: &Mailbox<Asked>) -> KeeperTrail {
        KeeperTrail { line: AuditLine::of("done", command, by), before: processes(post) }
    }

    /// Ends behind the change, with the end of its answer, before the caller hears of the end.
    fn end(self, end: &Reply, file: Option<&Path>, post: &Mailbox<Asked>) {
        let line = match end {
            Reply::Error(why) => self.line.becomes("failed").because(why),
            _ => self.line,
        };
        audited(line.with(self.before, processes(post)), file, post);
    }
}

/// Writes a line of the audit log, and tells the keeper whether it could: `status` says so.
fn audited(line: AuditLine, file: Option<&Path>, post: &Mailbox<Asked>) {
    let why = line.write(file);
    post.post(Asked::Audited(why));
}

/// Processes of the host, and the version of its binary.
fn processes(post: &Mailbox<Asked>) -> Value {
    let (answers, answered) = channel();
    post.post(Asked::OfKeeper(AdminCommand::Status, answers));
    match answered.recv() {
        Ok(Reply::Status(status)) => {
            let host = status.host;
            json!({"version": host.version, "worker_pid": host.worker_pid, "workers_before": host.workers_before, "log": host.log})
        }
        _ => Value::Null,
    }
}
