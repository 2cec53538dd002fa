//! What keeper and worker tell each other, and the socket they do it over.
//!
//! Each message is one packet of JSON, which may carry descriptors. A worker of a newer version may serve under a keeper of an older
//! one: fields are only added, with defaults.

use crate::config::Config;
use crate::memory::records::memory_file;
use crate::plugin::discover::Found;
use crate::protocol::admin::Command;
use greenroom_core::reload::ports::Port;
use greenroom_core::reload::request::By;
use greenroom_core::session::quarantine::BlockedAction;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// Descriptors that one message may carry; the kernel's limit is 253.
pub const DESCRIPTORS_MAX: usize = 250;
/// A message's length, in bytes. A socket's buffer holds several of these.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// What the keeper tells the worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToWorker {
    /// The first message. With the memory files of records, input and counters, and one that holds a [`Hello`].
    Hello,
    /// Connections: the keeper's key and the number of each. With as many descriptors. To be answered by [`ToKeeper::Took`].
    Connections(Vec<(u32, u64)>),
    /// Of the connections that come next, those that were asked for: the number of each, and that of [`ToKeeper::Connect`].
    Dialed(Vec<(u64, u64)>),
    /// To [`ToKeeper::Connect`]: it can't be made, for this reason.
    ConnectFailed(u64, String),
    /// All connections that the keeper holds were handed over: serve.
    Start,
    /// To [`ToKeeper::Open`]: the addresses in the same order, or why nothing was opened.
    Opened(Result<Vec<SocketAddr>, String>),
    /// A watched path changed.
    Changed(PathBuf),
    /// Put another configuration in force: its number, and who wants that. With a memory file that holds it, and the socket to answer on, if
    /// there is one. Answered by [`ToKeeper::Configured`] or [`ToKeeper::NotConfigured`].
    Configure(u64, By),
    /// An operator asks. With the socket to answer on.
    Caller(Command, By),
    /// Flush and end. A second time: end at once.
    Stop(i32),
    /// Commit and end: a successor is about to go on.
    HandOver,
    /// Keep what is committed readable, and say its epoch.
    Pin,
    /// Let go of it again.
    Unpin(u64),
}

/// What the worker tells the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToKeeper {
    /// It serves. These are the ports that count; others are to be closed. Numbers of connections go on above this one.
    Ready(Vec<HeldPort>, u64),
    /// It can't serve, for this reason, and ends.
    CantStart(String),
    /// One [`ToWorker::Connections`] has arrived.
    Took,
    /// These connections (key and number) are over.
    Drop(Vec<(u32, u64)>),
    /// Make a connection: this number is said again when it is open or has failed. Said twice, it is made once.
    Connect(u64, SocketAddr),
    /// Bind and listen on these, without accepting yet.
    Open(Vec<Port>),
    /// These were opened, and are not wanted after all.
    Discard(Vec<SocketAddr>),
    /// A reload was committed: accept from these, and close what isn't among them, but for what was opened since.
    Ports(Vec<HeldPort>),
    /// The configuration of this number is in force.
    Configured(u64),
    /// The configuration of this number was refused, or changes nothing.
    NotConfigured(u64),
    /// To [`ToWorker::Pin`].
    Pinned(u64),
    /// To [`ToWorker::Unpin`]: whether it was pinned all the time.
    Unpinned(bool),
    /// It has loaded so much that a fresh process should go on.
    Recycle(String),
    /// A trial's answer: what it could take over, or why it can't.
    Tried(Result<String, String>),
}

/// What a worker begins with.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The keeper's process, which private copies are named by.
    pub host_pid: u32,
    /// How many workers there were before.
    pub incarnation: u64,
    /// The configuration.
    pub config: Config,
    /// The libraries to serve, and where others may appear.
    pub found: Found,
    /// Where private copies go.
    pub copies: PathBuf,
    /// Where tables and ledger are saved.
    pub save: PathBuf,
    /// The most detailed level that is logged.
    pub log: String,
    /// Actions that killed a worker and must not run.
    pub withheld: Vec<BlockedAction>,
    /// Generations that killed workers and are to give way to those before them: library and generation.
    pub give_way: Vec<(String, u64)>,
    /// Generations that killed a worker lately: on probation, they give way at once.
    #[serde(default)]
    pub killed: Vec<(String, u64)>,
    /// The worker before had itself to blame for its death.
    #[serde(default)]
    pub crashed: bool,
    /// The ports that count, as the worker before said.
    pub ports: Vec<HeldPort>,
    /// Not to serve, but to try out whether it could: what was committed with this epoch, which is pinned.
    #[serde(default)]
    pub trial: Option<u64>,
    /// The keeper, which isn't upgraded, knows [`ToKeeper::NotConfigured`].
    #[serde(default)]
    pub hears_refusals: bool,
}

/// Puts something into a memory file: it may be longer than a message.
pub fn to_file(what: &impl Serialize) -> io::Result<OwnedFd> {
    let file = std::fs::File::from(memory_file("greenroom-message")?);
    serde_json::to_writer(&file, what)?;
    Ok(file.into())
}

/// Reads it.
pub fn from_file<T: DeserializeOwned>(file: OwnedFd) -> io::Result<T> {
    use std::io::Seek;
    let mut file = std::fs::File::from(file);
    file.rewind()?;
    Ok(serde_json::from_reader(io::BufReader::new(file))?)
}

/// A port that is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldPort {
    /// The service and the address that was asked for.
    pub port: Port,
    /// The address that the kernel gave.
    pub addr: SocketAddr,
}

/// One end of the socket.
pub struct Link<In, Out> {
    fd: OwnedFd,
    /// Messages that the other side had no room for.
    outbox: VecDeque<Vec<u8>>,
    buffer: Vec<u8>,
    messages: PhantomData<fn(In) -> Out>,
}

/// What came.
pub enum Received<In> {
    /// A message and its descriptors, which may be fewer than were sent if this process may have no more.
    Message(In, Vec<OwnedFd>),
    /// A message that only a later version knows, in words. Workers are upgraded, and their keepers are not.
    Unknown(String),
    /// Nothing yet.
    Nothing,
    /// The other side is gone.
    Closed,
}

/// Two ends, for one process each.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

impl<In: DeserializeOwned, Out: Serialize> Link<In, Out> {
    /// Talks over one end of a [`pair`].
    pub fn new(fd: OwnedFd) -> Link<In, Out> {
        Link { fd, outbox: VecDeque::new(), buffer: vec![0; MESSAGE_BYTES_MAX], messages: PhantomData }
    }

    /// The socket, to be polled.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Sends a message, now or when there is room.
    pub fn send(&mut self, message: &Out) {
        match serde_json::to_vec(message) {
            Ok(bytes) if bytes.len() <= MESSAGE_BYTES_MAX => self.outbox.push_back(bytes),
            Ok(bytes) => {
                tracing::error!("a message of {} bytes is too long between keeper and worker", bytes.len())
            }
            Err(e) => tracing::error!("a message between keeper and worker: {e}"),
        }
        self.flush();
    }

    /// Sends what had to wait. A side that is gone is noticed where messages are received.
    pub fn flush(&mut self) {
        while let Some(bytes) = self.outbox.front() {
            if !matches!(self.transmit(bytes, &[]), Ok(true)) {
                return;
            }
            self.outbox.pop_front();
        }
    }

    /// Sends a message with descriptors, if there is room now.
    pub fn send_with(&mut self, message: &Out, fds: &[BorrowedFd<'_>]) -> io::Result<bool> {
        self.flush();
        if !self.outbox.is_empty() {
            return Ok(false);
        }
        let bytes = serde_json::to_vec(message)?;
        self.transmit(&bytes, fds)
    }

    fn transmit(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<bool> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(io::Error::other(format!("a message of {} bytes is too long", bytes.len())));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::other("too many descriptors for a message"));
        }
        loop {
            match sendmsg(&self.fd, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(true),
                Err(rustix::io::Errno::INTR) => {}
                // Too many in flight: the other side has to take some first.
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::TOOMANYREFS) => return Ok(false),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Receives a message, if there is one.
    pub fn receive(&mut self) -> io::Result<Received<In>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = loop {
            match recvmsg(&self.fd, &mut [IoSliceMut::new(&mut self.buffer)], &mut control, flags) {
                Ok(got) => break got,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(Received::Nothing),
                Err(rustix::io::Errno::CONNRESET) => return Ok(Received::Closed),
                Err(e) => return Err(e.into()),
            }
        };
        if got.bytes == 0 {
            return Ok(Received::Closed);
        }
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if got.flags.contains(ReturnFlags::TRUNC) {
            return Err(io::Error::other("a message was cut off"));
        }
        match serde_json::from_slice(&self.buffer[..got.bytes]) {
            Ok(message) => Ok(Received::Message(message, fds)),
            Err(e) if is_of_later(&self.buffer[..got.bytes], &e) => Ok(Received::Unknown(e.to_string())),
            Err(e) => Err(e.into()),
        }
    }

    /// Receives a message, and waits for it. `None`: the other side is gone.
    pub fn wait(&mut self) -> io::Result<Option<(In, Vec<OwnedFd>)>> {
        use rustix::event::{PollFd, PollFlags, poll};
        loop {
            match self.receive()? {
                Received::Message(message, fds) => return Ok(Some((message, fds))),
                Received::Closed => return Ok(None),
                Received::Unknown(what) => tracing::warn!("a message is left out: {what}"),
                Received::Nothing => {}
            }
            self.flush();
            let wanted = match self.outbox.is_empty() {
                true => PollFlags::IN,
                false => PollFlags::IN | PollFlags::OUT,
            };
            match poll(&mut [PollFd::new(&self.fd, wanted)], None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// Whether it is the message itself that isn't known, not something in it.
fn is_of_later(message: &[u8], why: &serde_json::Error) -> bool {
    let tag = match serde_json::from_slice(message) {
        Ok(serde_json::Value::String(tag)) => Some(tag),
        Ok(serde_json::Value::Object(fields)) => fields.into_iter().next().map(|(tag, _)| tag),
        _ => None,
    };
    tag.is_some_and(|tag| why.to_string().starts_with(&format!("unknown variant `{tag}`")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn messages_and_descriptors_arrive_whole_and_in_order() {
        let (a, b) = pair().unwrap();
        let mut keeper = Link::<ToKeeper, ToWorker>::new(a);
        let mut worker = Link::<ToWorker, ToKeeper>::new(b);
        assert!(matches!(worker.receive().unwrap(), Received::Nothing));
        let files: Vec<_> =
            (0..DESCRIPTORS_MAX).map(|_| std::fs::File::open("/proc/self/stat").unwrap()).collect();
        let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let connections: Vec<_> = (0..DESCRIPTORS_MAX as u32).map(|n| (n, u64::MAX - u64::from(n))).collect();
        assert!(keeper.send_with(&ToWorker::Connections(connections.clone()), &fds).unwrap());
        keeper.send(&ToWorker::Start);
        let (message, got) = worker.wait().unwrap().unwrap();
        assert!(matches!(message, ToWorker::Connections(c) if c == connections));
        assert_eq!(got.len(), DESCRIPTORS_MAX);
        let mut text = String::new();
        std::fs::File::from(got.into_iter().next().unwrap()).read_to_string(&mut text).unwrap();
        assert!(text.contains(&std::process::id().to_string()));
        assert!(matches!(worker.wait().unwrap(), Some((ToWorker::Start, _))));
        // More than the socket holds waits its turn.
        for n in 0..5000 {
            worker.send(&ToKeeper::Drop(vec![(n, 0)]));
        }
        for n in 0..5000 {
            worker.flush();
            let (message, _) = keeper.wait().unwrap().unwrap();
            assert!(matches!(message, ToKeeper::Drop(d) if d == [(n, 0)]));
        }
        // What only a later version says is left out, and what is no message at all is an error.
        let (a, b) = pair().unwrap();
        let mut keeper = Link::<ToKeeper, ToWorker>::new(a);
        let mut later = Link::<(), serde_json::Value>::new(b);
        later.send(&serde_json::json!({"Sing": 3}));
        later.send(&serde_json::json!("Took"));
        later.send(&serde_json::json!({"Configured": "x"}));
        later.send(&serde_json::json!({"Tried": {"Sing": 3}}));
        assert!(matches!(keeper.receive().unwrap(), Received::Unknown(what) if what.contains("`Sing`")));
        assert!(matches!(keeper.receive().unwrap(), Received::Message(ToKeeper::Took, _)));
        assert!(keeper.receive().is_err());
        assert!(keeper.receive().is_err());
        drop(later);
        assert!(keeper.wait().unwrap().is_none());
    }
}
