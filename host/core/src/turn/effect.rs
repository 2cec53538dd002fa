//! Effects that a turn can ask for, as they are staged.
//!
//! An effect owns no bytes: texts and data are parts of the arena of `Buffers`, and end with it.
//! Two places match every variant, so that a new one can't be forgotten:
//! `crate::execute::reserve` and `crate::execute::apply`.

use crate::framing::frame::FrameState;
use crate::framing::peer::LocalEnd;
use crate::ids::ServiceId;
use greenroom_state::address::Address;
use std::net::SocketAddr;
use std::ops::Range;

/// Part of the arena. Texts in it are UTF-8.
pub(crate) type Part = Range<usize>;

/// Broadcast as a library has framed it.
#[derive(Debug)]
pub(crate) struct Framed {
    /// Part of the arena that it is made of.
    pub(crate) data: Part,
    /// Service whose library was asked.
    pub(crate) service: ServiceId,
    /// Bytes to send, or the reason why there are none.
    pub(crate) bytes: Result<Vec<u8>, String>,
}

/// Sessions that a broadcast is for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Recipients {
    /// All on a topic.
    Topic(Part),
    /// All on any of several topics, each once.
    Topics(Box<[Part]>),
    /// Session of a number, if it belongs to the same library.
    Session(u64),
}

impl Recipients {
    /// Number of sessions, at most. `subscribers` counts those on a topic.
    pub(crate) fn count(&self, subscribers: &dyn Fn(&Part) -> usize) -> usize {
        match self {
            Recipients::Topic(topic) => subscribers(topic),
            Recipients::Topics(topics) => topics.iter().map(subscribers).sum(),
            Recipients::Session(_) => 1,
        }
    }
}

/// Ways to broadcast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broadcast {
    /// Leaves out the session whose turn it is.
    pub others: bool,
    /// The data are a line, given without its ending.
    pub line: bool,
    /// Leaves out sessions whose unsent output is over `output_bytes_pause`.
    pub drop_if_slow: bool,
}

impl Broadcast {
    /// To all, as it is.
    pub const ALL: Broadcast = Broadcast { others: false, line: false, drop_if_slow: false };
    /// To all but the session whose turn it is.
    pub const OTHERS: Broadcast = Broadcast { others: true, ..Broadcast::ALL };
    /// A line, to all.
    pub const LINE: Broadcast = Broadcast { line: true, ..Broadcast::ALL };
}

/// Effect that a turn asks for. Effects are applied in the order in which they are staged.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    /// Bytes for the session's peer, framed already.
    Send(Part),
    /// Data for the peers of other sessions, not framed yet.
    Broadcast { to: Recipients, data: Part, how: Broadcast },
    /// End of a session of the same library, by its number, behind the actions that wait for it.
    CloseSession(u64),
    /// Topic that the session joins.
    Subscribe(Part),
    /// Topic that the session leaves.
    Unsubscribe(Part),
    /// Name of the service that the session takes.
    Register(Part),
    /// Name that the session gives up.
    Unregister(Part),
    /// Entry of a table, written in place of the one under its key. `until`: its deadline, in
    /// milliseconds since 1970.
    Put { table: Part, key: Part, value: Part, until: Option<u64> },
    /// Entry of a table that goes, if it is there.
    Delete { table: Part, key: Part },
    /// Entries that go: all of a table whose keys start with the prefix.
    DropPrefix { table: Part, prefix: Part },
    /// Action for the session of a number. `depth`: turns between it and something from outside.
    Note { to: u64, data: Part, depth: u16 },
    /// Turn for the session of a number, without bytes.
    Wake { to: u64, depth: u16 },
    /// Turn for the session itself, once its output is sent.
    WakeWhenDrained,
    /// Action for all sessions on a topic. `others`: except the sender.
    Publish { topic: Part, data: Part, others: bool, depth: u16 },
    /// Timer of the session, or of its service (`service`). CLOCK_MONOTONIC, in nanoseconds.
    SetTimer { service: bool, name: Part, deadline_ns: u64 },
    /// Timer that goes, due or not.
    CancelTimer { service: bool, name: Part },
    /// Job to queue, under the number that the turn was told. `once`: at most once.
    StartJob { number: u64, name: Part, input: Part, once: bool },
    /// Job, by its number, that goes with its result.
    CancelJob(u64),
    /// Connection to make, under the number that the turn was told. It becomes a session of
    /// `service`.
    /// `over_tls`: the name that the server's certificate must have, if it is one over TLS.
    Connect { number: u64, service: ServiceId, addr: Address, over_tls: Option<Part>, context: Part },
    /// Number of the session whose output must drain before this session's input goes on.
    WaitFor(u64),
    /// State that the session's framing has from here on. Boxed, as few turns change it.
    Framing(Box<FrameState>),
    /// Datagram to an address, from an end at the host.
    Datagram { from: LocalEnd, to: SocketAddr, data: Part },
    /// TLS around the session's stream from here on: the name that the server's certificate must
    /// have, or none.
    StartTls(Part),
    /// Token of a bucket, and the time when the bucket is full again, in nanoseconds.
    Take { bucket: u64, full_at_ns: u64 },
    /// Longest message that the session's peer may send; 0: as its framing has it.
    FrameMax(u32),
    /// Silence of the session's peer that it is told of, in nanoseconds; 0: none.
    IdleAfter(u64),
    /// Whether the session's input waits, unread, until the handler says otherwise.
    Hold(bool),
}
