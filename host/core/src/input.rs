//! Reports from the shell: bytes, connections, finished jobs, start and end of a pass.

use crate::ids::{ServiceId, Slot};
use greenroom_state::address::Peer;

/// What happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// A pass begins, at this time (CLOCK_MONOTONIC, nanoseconds).
    PassBegins {
        /// The time that all turns of the pass are told.
        now_ns: u64,
    },
    /// A connection was accepted.
    Opened {
        /// Where the shell keeps it.
        slot: Slot,
        /// Its number: above all before it.
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
        /// From this connection.
        slot: Slot,
        /// At least one.
        bytes: &'a [u8],
    },
    /// The peer has ended its side in an orderly way.
    PeerDone {
        /// Of this connection.
        slot: Slot,
    },
    /// The connection broke.
    Broken {
        /// This one.
        slot: Slot,
    },
    /// The kernel took output, after a commit.
    Sent {
        /// Of this connection.
        slot: Slot,
        /// So much.
        bytes: usize,
        /// And would take no more: [`Input::Writable`] will follow.
        blocked: bool,
    },
    /// The kernel takes output again.
    Writable {
        /// Of this connection.
        slot: Slot,
    },
    /// A connection that was asked for is open.
    Connected {
        /// By this number.
        number: u64,
        /// Where the shell keeps it.
        slot: Slot,
        /// Its own number: above all before it.
        id: u64,
        /// The peer's address.
        peer: Peer,
        /// Milliseconds since 1970.
        at_ms: u64,
    },
    /// A connection that was asked for can't be made.
    ConnectFailed {
        /// By this number.
        number: u64,
        /// Why.
        why: &'a str,
    },
    /// A job is over.
    JobDone {
        /// Its number.
        number: u64,
        /// Its result, or why there is none.
        result: Result<&'a [u8], &'a str>,
    },
    /// What turns of this pass have caused, and timers that are due, have their turns: before the
    /// commit.
    Cascade,
    /// The pass ends: all of it counts from here on.
    Commit,
    /// The host is to stop: every session gets its last turn.
    Stop,
}
