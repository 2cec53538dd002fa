//! Inputs: reports from the shell of bytes, connections, finished jobs, start and end of a
//! pass.
//!
//! A pass is [`Input::PassBegins`], any number of other inputs, [`Input::Cascade`],
//! [`Input::Commit`]. The shell may repeat the last two within a pass, if it must free the
//! memory of reads. Reports of sending follow the commit; their effects count with the next
//! one.
//!
//! An input of a slot or number that the core no longer knows is ignored, because the session
//! may have ended meanwhile. A connection that no session wants any more is closed. No input
//! returns an error.

use crate::effects::birth::SECRET_BYTES;
use crate::framing::peer::LocalEnd;
use crate::ids::{ServiceId, Slot};
use crate::tls::protection::Protection;
use crate::tls::state::TlsState;
use greenroom_state::address::Peer;
use std::net::SocketAddr;

/// Outcome of a handshake of TLS.
pub struct TlsBegin {
    /// Secrets, and the bytes that the handshake took.
    pub state: TlsState,
    /// Facts, as [`crate::tls::facts`] encodes them.
    pub facts: Vec<u8>,
}

/// Ciphers, made by the shell.
pub struct Ciphers(pub Box<dyn Protection>);

impl std::fmt::Debug for Ciphers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ciphers")
    }
}

impl std::fmt::Debug for TlsBegin {
    /// Prints no secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsBegin")
    }
}

/// Report from the shell. Bytes and texts are borrowed: the core copies what it keeps.
#[derive(Debug)]
pub enum Input<'a> {
    /// A pass begins. Deadlines that had come when the previous one began, due timers and
    /// sessions that resume have their turns.
    PassBegins {
        /// Time that all turns of the pass are told: CLOCK_MONOTONIC, in nanoseconds. Never
        /// goes back.
        now_ns: u64,
    },
    /// Commit of each turn by itself, for a while: each stage of a pass does one thing. So a death
    /// behind a turn tells which one it was.
    OneByOne {
        /// Milliseconds.
        ms: u64,
    },
    /// The time of the calendar, for the pass that begins next: nanoseconds since 1970, UTC; 0: the
    /// clock is set to an earlier time. Without it, turns are told what they were told before.
    WallClock {
        /// Nanoseconds.
        unix_ns: u64,
    },
    /// The host begins, or goes on in this process: one that has begun keeps its secret and age.
    HostBegins {
        /// Bytes that nobody can tell.
        secret: [u8; SECRET_BYTES],
        /// CLOCK_MONOTONIC, in nanoseconds.
        now_ns: u64,
    },
    /// The pass can't read all that had arrived when it began. Deadlines are judged once a later
    /// pass has; without this input, every pass counts as one that has.
    InputLeft,
    /// A connection was accepted. The session opens and has its first turn. If a limit is in
    /// the way, the connection is closed instead.
    Opened {
        /// Slot in which the shell keeps the connection.
        slot: Slot,
        /// Number of the session: above all before it.
        id: u64,
        /// Service whose port the connection came to.
        service: ServiceId,
        /// Kind of the endpoint, as its framing has it; empty: the service's first.
        kind: &'a str,
        /// Address of the peer.
        peer: Peer,
        /// Time of the opening, in milliseconds since 1970.
        at_ms: u64,
        /// Outcome of its handshake of TLS; `None`: it has none.
        tls: Option<&'a TlsBegin>,
    },
    /// The first datagram of a peer came to a port whose peers have sessions. The session opens, as
    /// one of a connection does, and the datagram is to follow as [`Input::Received`].
    PeerHeard {
        /// Slot that the shell keeps for the session.
        slot: Slot,
        /// Number of the session, used for no other one.
        id: u64,
        /// Service that has the port.
        service: ServiceId,
        /// End that it came to. It stays with the session.
        end: LocalEnd,
        /// Address of the peer.
        peer: Peer,
        /// Time of the opening, in milliseconds since 1970.
        at_ms: u64,
    },
    /// Datagrams came to a port of the service itself. Each has a turn now, or is dropped.
    Datagrams {
        /// Service that has the port.
        service: ServiceId,
        /// End that they came to.
        end: LocalEnd,
        /// Address that each came from, and its bytes.
        datagrams: &'a [(SocketAddr, &'a [u8])],
    },
    /// Bytes were read. Whole messages have their turns, the rest is kept. Of a session over UDP,
    /// these are whole datagrams, each behind its length ([`crate::framing::peer`]).
    Received {
        /// Slot of the connection.
        slot: Slot,
        /// Bytes in the order of the stream, at least one. The shell has asked
        /// [`crate::core::Core::wants_input`].
        bytes: &'a [u8],
    },
    /// The peer has ended its side in an orderly way. The session ends once its input has been
    /// run.
    PeerDone {
        /// Slot of the connection.
        slot: Slot,
    },
    /// The connection broke. An open session has its last turn; its output is dropped.
    Broken {
        /// Slot of the connection.
        slot: Slot,
    },
    /// A handshake that [`crate::command::Command::StartTls`] asked for has ended. The session goes
    /// on over TLS, or ends as one whose connection broke.
    HandshakeEnded {
        /// Slot of the connection.
        slot: Slot,
        /// Outcome of the handshake, whose counts begin with it; or the reason of its failure.
        outcome: Result<&'a TlsBegin, &'a str>,
    },
    /// The kernel took output, after a commit.
    Sent {
        /// Slot of the connection.
        slot: Slot,
        /// Bytes taken, at most those that [`crate::core::Core::output`] lent.
        bytes: usize,
        /// Whether the kernel takes no more. Then [`Input::Writable`] follows.
        blocked: bool,
    },
    /// The kernel takes output again.
    Writable {
        /// Slot of the connection.
        slot: Slot,
    },
    /// A connection that a turn asked for is open. The session opens, and the session that
    /// asked is told.
    Connected {
        /// Number of the connection that was asked for.
        number: u64,
        /// Slot in which the shell keeps the connection.
        slot: Slot,
        /// Number of the session: above all before it.
        id: u64,
        /// Address of the peer.
        peer: Peer,
        /// Time of the opening, in milliseconds since 1970.
        at_ms: u64,
        /// Outcome of its handshake of TLS; `None`: it has none.
        tls: Option<&'a TlsBegin>,
    },
    /// A connection that a turn asked for cannot be made. The session that asked is told.
    ConnectFailed {
        /// Number of the connection that was asked for.
        number: u64,
        /// Reason, in words.
        why: &'a str,
    },
    /// A job is over. Its result becomes an action of the session that started it.
    JobDone {
        /// Number of the job.
        number: u64,
        /// Result of the job, or the reason that there is none.
        result: Result<&'a [u8], &'a str>,
    },
    /// Waiting actions and due timers have their turns, before the commit. Bounded: the rest
    /// waits for the next pass.
    Cascade,
    /// The pass ends: all of it counts from here on. Commands and output may be taken now.
    Commit,
    /// Ciphers for sessions over TLS, which do not go on without. Comes once, before any pass.
    Ciphers(Ciphers),
    /// The host is to stop: every open session has its last turn.
    Stop,
    /// A successor is to go on. The next commit writes how much of each session's output was sent:
    /// the kernel does not count it for every connection.
    HandOver,
}
