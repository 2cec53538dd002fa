//! Selection of sessions by an operator: which ones, in which order, and how many.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Selection of sessions. All that is given must hold; by default it takes all sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Selection {
    /// Service of the sessions.
    pub service: Option<String>,
    /// Numbers of the sessions; empty: any.
    pub sessions: Vec<u64>,
    /// Part of the peer's address.
    pub peer: Option<String>,
    /// Milliseconds since the session opened, at least.
    pub older_ms: Option<u64>,
    /// Milliseconds since the session opened, at most.
    pub younger_ms: Option<u64>,
    /// Milliseconds since bytes came from the peer, at least.
    pub idle_ms: Option<u64>,
    /// Whether the session must be quarantined.
    pub quarantined: bool,
    /// Conditions on fields of the state, as [`greenroom_state::condition`] reads them.
    pub conditions: Vec<String>,
}

impl Selection {
    /// Whether it takes some sessions of a service, or of all services, and leaves others.
    pub fn is_of_some(&self) -> bool {
        *self != Selection { service: self.service.clone(), ..Selection::default() }
    }
}

/// Property that sessions are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum SortBy {
    /// Number of the session, the lowest first
    Id,
    /// Service, then number
    Service,
    /// Address of the peer
    Peer,
    /// Time since it opened, the oldest first
    Age,
    /// Time since bytes came from the peer, the longest first
    Idle,
    /// Turns run, the most first
    Turns,
    /// Bytes taken from the peer, the most first
    BytesIn,
    /// Bytes produced for the peer, the most first
    BytesOut,
    /// Bytes that the peer has not taken, the most first
    Unsent,
    /// Bytes of the state, the most first
    State,
}

/// Sessions of a list: those that sort first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct First {
    /// Order of the list.
    pub by: SortBy,
    /// Whether the order is turned round.
    pub reverse: bool,
    /// Most sessions of the list.
    pub count: usize,
}
