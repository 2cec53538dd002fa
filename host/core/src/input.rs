//! Reports from the shell: bytes, connections, finished jobs, start and end of a pass.

use crate::ids::{ServiceId, Slot};
use greenroom_state::address::Peer;

/// A report from the shell.
#[derive(Debug)]
pub enum Input<'a> {
    /// A pass begins, at this time (CLOCK_MONOTONIC, nanoseconds).
    PassBegins {
        /// The time that all turns of the pass are told.
        now_ns: u64,
    },
    /// A connection was accepted.
    Opened {
        /// The slot that the shell keeps it in.
        slot: Slot,
        /// The session's number: above all before it.
        id: u64,
        /// The service that it came to.
        service: ServiceId,
        /// The peer's address.
        peer: Peer,
        /// Milliseconds since 1970.
        at_ms: u64,
    },
    /// Bytes were read.
    Received {
        /// Slot of the connection.
        slot: Slot,
        /// The bytes, at least one.
        bytes: &'a [u8],
    },
    /// The peer has ended its side in an orderly way.
    PeerDone {
        /// Slot of the connection.
        slot: Slot,
    },
    /// The connection broke.
    Broken {
        /// Slot of the connection.
        slot: Slot,
    },
    /// The kernel took output, after a commit.
    Sent {
        /// Slot of the connection.
        slot: Slot,
        /// Bytes taken.
        bytes: usize,
        /// The kernel would take no more: [`Input::Writable`] will follow.
        blocked: bool,
    },
    /// The kernel takes output again.
    Writable {
        /// Slot of the connection.
        slot: Slot,
    },
    /// A connection that was asked for is open.
    Connected {
        /// Number of the connection that was asked for.
        number: u64,
        /// The slot that the shell keeps it in.
        slot: Slot,
        /// The session's number: above all before it.
        id: u64,
        /// The peer's address.
        peer: Peer,
        /// Milliseconds since 1970.
        at_ms: u64,
    },
    /// A connection that was asked for can't be made.
    ConnectFailed {
        /// Number of the connection that was asked for.
        number: u64,
        /// The reason, in words.
        why: &'a str,
    },
    /// A job is over.
    JobDone {
        /// The job's number.
        number: u64,
        /// The job's result, or the reason that there is none.
        result: Result<&'a [u8], &'a str>,
    },
    /// Turns that this pass caused and timers that are due have their turns, before the commit.
    Cascade,
    /// The pass ends: all of it counts from here on.
    Commit,
    /// The host is to stop: every session gets its last turn.
    Stop,
}
