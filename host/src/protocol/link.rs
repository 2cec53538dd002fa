//! The socket between keeper and worker: packets with descriptors.
//!
//! A packet carries one message of at most 64 KiB of JSON, and up to [`DESCRIPTORS_MAX`]
//! descriptors. A longer message goes through a memory file, and its packet says so. A version that
//! does not know that leaves the message out.
//!
//! Both ends are nonblocking, and only [`Link::wait`] blocks. Messages without descriptors are
//! queued in the sender if the socket is full, in order and without limit. Messages with
//! descriptors are not queued, as the queue would have to own the descriptors. Their sender tries
//! again.
//!
//! A socket pair of packets (SEQPACKET) keeps messages whole and in order, passes descriptors, and
//! tells each side when the other has ended. A stream would need lengths around the messages.
//!
//! If one side ends with messages unread, the kernel reports a reset to the other side, ahead of
//! messages that wait there. [`Link::receive`] reports the reset as the end, so last messages of
//! such a side may be lost.

use crate::memory::records::memory_file;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Descriptors that one message may carry; the kernel's limit is 253.
pub const DESCRIPTORS_MAX: usize = 250;
/// Largest length of a message, in bytes. A socket's buffer holds several of these.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Packet of a message that lies in the memory file whose descriptor comes with it.
const IN_A_FILE: &[u8] = b"\"InAFile\"";
/// Largest length of such a message, in bytes. A longer one is an error of this program.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Writes a value to a fresh memory file, as JSON of any length. Costs one descriptor until it is
/// dropped.
pub fn to_file(what: &impl Serialize) -> io::Result<OwnedFd> {
    let file = std::fs::File::from(memory_file("greenroom-message")?);
    serde_json::to_writer(&file, what)?;
    Ok(file.into())
}

/// Reads a value from a memory file, from its beginning: sender and receiver share the position.
pub fn from_file<T: DeserializeOwned>(file: OwnedFd) -> io::Result<T> {
    let mut file = std::fs::File::from(file);
    file.rewind()?;
    Ok(serde_json::from_reader(io::BufReader::new(file))?)
}

/// Message that waits for room: its bytes, or the memory file that holds them.
enum Packet {
    Bytes(Vec<u8>),
    File(OwnedFd),
}

/// An end of the socket. Costs a buffer of 64 KiB.
pub struct Link<In, Out> {
    fd: OwnedFd,
    /// Messages that wait for room in the socket, the oldest first.
    outbox: VecDeque<Packet>,
    /// Scratch of [`Link::receive`], of the largest length.
    buffer: Vec<u8>,
    /// Types of the messages, in both directions. No value of them is stored.
    messages: PhantomData<fn(In) -> Out>,
}

/// Outcome of receiving.
pub enum Received<In> {
    /// A message and its descriptors: fewer than were sent, if this process reached its limit of
    /// files.
    Message(In, Vec<OwnedFd>),
    /// A message that only a later version knows, in words.
    Unknown(String),
    /// Nothing yet.
    Nothing,
    /// The socket is closed: its other side is gone.
    Closed,
}

/// Makes a socket's two ends, one for each process. Both are nonblocking and closed on exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

impl<In: DeserializeOwned, Out: Serialize> Link<In, Out> {
    /// Wraps one end of a [`pair`].
    pub fn new(fd: OwnedFd) -> Link<In, Out> {
        Link { fd, outbox: VecDeque::new(), buffer: vec![0; MESSAGE_BYTES_MAX], messages: PhantomData }
    }

    /// The socket, to be polled.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether messages wait for room in the socket. Sends what there is room for first.
    pub fn has_unsent(&mut self) -> bool {
        self.flush();
        !self.outbox.is_empty()
    }

    /// Sends a message, now or when the socket has room. A dead peer is no error here. A message
    /// that no memory file can be made for is logged and dropped.
    pub fn send(&mut self, message: &Out) {
        match packet(message) {
            Ok(packet) => self.outbox.push_back(packet),
            Err(e) => tracing::error!("a message between keeper and worker is dropped: {e}"),
        }
        self.flush();
    }

    /// Sends waiting messages, until the socket is full. A dead peer shows where messages are
    /// received. To be called when the poll reports room.
    pub fn flush(&mut self) {
        while let Some(packet) = self.outbox.front() {
            let sent = match packet {
                Packet::Bytes(bytes) => self.transmit(bytes, &[]),
                Packet::File(file) => self.transmit(IN_A_FILE, &[file.as_fd()]),
            };
            if !matches!(sent, Ok(true)) {
                return;
            }
            self.outbox.pop_front();
        }
    }

    /// Sends a message with descriptors, if the socket has room now. False: nothing is sent, and
    /// the caller is to try again. The descriptors stay the caller's.
    ///
    /// A long message goes through a memory file, whose descriptor comes last. Fails if there is no
    /// room for that file, the descriptors are too many, or the peer is gone.
    pub fn send_with(&mut self, message: &Out, fds: &[BorrowedFd<'_>]) -> io::Result<bool> {
        self.flush();
        // Messages stay in order: none overtakes one that waits.
        if !self.outbox.is_empty() {
            return Ok(false);
        }
        match packet(message)? {
            Packet::Bytes(bytes) => self.transmit(&bytes, fds),
            Packet::File(file) => self.transmit(IN_A_FILE, &[fds, &[file.as_fd()]].concat()),
        }
    }

    /// Sends one packet. False: the socket is full.
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
                // A packet is sent whole or not at all.
                Ok(_) => return Ok(true),
                Err(rustix::io::Errno::INTR) => {}
                // Too many in flight: the other side has to take some first.
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::TOOMANYREFS) => return Ok(false),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Receives a message, if one is there. Never blocks.
    ///
    /// Fails if a packet is no message of this protocol, or is cut off. Its descriptors are closed
    /// then, and the next call receives the next packet.
    pub fn receive(&mut self) -> io::Result<Received<In>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let mut reset = false;
        let got = loop {
            match recvmsg(&self.fd, &mut [IoSliceMut::new(&mut self.buffer)], &mut control, flags) {
                Ok(got) => break got,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(Received::Nothing),
                // The peer has ended with messages unread. The kernel says so once, before the
                // messages that the peer sent: its last words come next.
                Err(rustix::io::Errno::CONNRESET) if !reset => reset = true,
                Err(rustix::io::Errno::CONNRESET) => return Ok(Received::Closed),
                Err(e) => return Err(e.into()),
            }
        };
        // No message is empty, so an empty packet is the end.
        if got.bytes == 0 {
            return Ok(Received::Closed);
        }
        // The descriptors are owned before any return below, which closes them.
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if got.flags.contains(ReturnFlags::TRUNC) {
            return Err(io::Error::other("a message was cut off"));
        }
        let mut bytes = &self.buffer[..got.bytes];
        let from_file;
        if bytes == IN_A_FILE {
            let file = fds.pop().ok_or_else(|| io::Error::other("no descriptor to spare"))?;
            from_file = read_file(file)?;
            bytes = &from_file;
        }
        match parse(bytes) {
            Ok(message) => Ok(Received::Message(message, fds)),
            Err(e) if is_of_later(bytes, &e) => Ok(Received::Unknown(e.to_string())),
            Err(e) => Err(e.into()),
        }
    }

    /// Waits for a message, without a time limit, and sends what waits meanwhile. `None`: the other
    /// side is gone. For a process in its start, which has no loop yet. Unknown messages are logged
    /// and left out.
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

/// Makes the packet of a message. Fails if a long one gets no memory file.
fn packet(message: &impl Serialize) -> io::Result<Packet> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() <= MESSAGE_BYTES_MAX {
        return Ok(Packet::Bytes(bytes));
    }
    let mut file = std::fs::File::from(memory_file("greenroom-message")?);
    file.write_all(&bytes)?;
    Ok(Packet::File(file.into()))
}

/// Reads a message from its memory file, from the beginning.
fn read_file(file: OwnedFd) -> io::Result<Vec<u8>> {
    let mut file = std::fs::File::from(file);
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Parses a message, however deep it nests: the admin socket has bounded what a caller sends, at
/// more than the parser's own 128 levels. A failure would cost the link.
fn parse<T: DeserializeOwned>(message: &[u8]) -> serde_json::Result<T> {
    let mut json = serde_json::Deserializer::from_slice(message);
    json.disable_recursion_limit();
    let parsed = T::deserialize(&mut json)?;
    json.end()?;
    Ok(parsed)
}

/// Tells an unknown message from a known one with unknown content. Only the former may be left out:
/// a known one that cannot be read may be one that the sender relies on.
///
/// serde names the unknown variant in its error, and an inner enum may have one as well. So the
/// variant must be the message's own tag.
fn is_of_later(message: &[u8], why: &serde_json::Error) -> bool {
    let tag = match parse(message) {
        Ok(serde_json::Value::String(tag)) => Some(tag),
        Ok(serde_json::Value::Object(fields)) => fields.into_iter().next().map(|(tag, _)| tag),
        _ => None,
    };
    tag.is_some_and(|tag| why.to_string().starts_with(&format!("unknown variant `{tag}`")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::keeper::{ToKeeper, ToWorker};

    /// The kernel reports a reset before the messages that the peer sent last.
    #[test]
    fn last_words_arrive_although_the_peer_left_messages_unread() {
        let (a, b) = pair().unwrap();
        let mut keeper = Link::<ToKeeper, ToWorker>::new(a);
        let mut worker = Link::<ToWorker, ToKeeper>::new(b);
        keeper.send(&ToWorker::Start);
        worker.send(&ToKeeper::CantStart("no memory".into()));
        drop(worker);
        let last = keeper.receive().unwrap();
        assert!(matches!(last, Received::Message(ToKeeper::CantStart(why), _) if why == "no memory"));
        assert!(matches!(keeper.receive().unwrap(), Received::Closed));
    }

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
        // Messages beyond the socket's room wait.
        for n in 0..5000 {
            worker.send(&ToKeeper::Drop(vec![(n, 0)]));
        }
        for n in 0..5000 {
            worker.flush();
            let (message, _) = keeper.wait().unwrap().unwrap();
            assert!(matches!(message, ToKeeper::Drop(d) if d == [(n, 0)]));
        }
        // A message beyond a packet's length goes through a file, in its order.
        let long: Vec<_> = (0..20_000).map(|n| (n, u64::MAX)).collect();
        keeper.send(&ToWorker::Connections(long.clone()));
        keeper.send(&ToWorker::Start);
        assert!(matches!(worker.wait().unwrap(), Some((ToWorker::Connections(c), _)) if c == long));
        assert!(matches!(worker.wait().unwrap(), Some((ToWorker::Start, _))));
        // A later version's message is left out; a malformed message is an error.
        let (a, b) = pair().unwrap();
        let mut keeper = Link::<ToKeeper, ToWorker>::new(a);
        let mut later = Link::<(), serde_json::Value>::new(b);
        later.send(&serde_json::json!({"Sing": 3}));
        later.send(&serde_json::json!("Took"));
        later.send(&serde_json::json!({"Configured": "x"}));
        later.send(&serde_json::json!({"Tried": {"Sing": 3}}));
        assert!(matches!(keeper.receive().unwrap(), Received::Unknown(what) if what.contains("`Sing`")));
        assert!(matches!(keeper.receive().unwrap(), Received::Message(ToKeeper::Ack, _)));
        assert!(keeper.receive().is_err());
        assert!(keeper.receive().is_err());
        drop(later);
        assert!(keeper.wait().unwrap().is_none());
    }
}
