//! News of handshakes: what each was for, and what became of it.

use crate::protocol::keeper::EndpointId;
use std::os::fd::OwnedFd;

/// Connection that a handshake is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    /// Connection that this endpoint accepted, and that has no number yet.
    Accepted(EndpointId),
    /// Connection that a worker asked for by this number.
    Dialed(u64),
    /// Connection of this number, which has a session.
    Session(u64),
}

/// Outcome that the keeper acts on.
pub(super) enum Shaken {
    /// The handshake of this number is done: its connection, and what it is for.
    Done(u64, OwnedFd, Purpose),
    /// A handshake has failed that somebody waits for, for this reason.
    Failed(Purpose, String),
    /// A handshake took too long.
    Late,
    /// A handshake was given up for another one.
    GivenUp,
    /// Files of a service cannot be used, for this reason, or can.
    Failing(String, Option<String>),
}
