//! Faults and log lines of a turn.
//!
//! Both outlive a failed turn: its effects are dropped, its fault and its lines are reported.

use serde::{Deserialize, Serialize};

/// Fault: the reason why a turn failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Kind, a number from [`greenroom_state::abi::fault`].
    pub kind: u32,
    /// Description, in words.
    pub message: String,
    /// Source file; empty: unknown.
    pub file: String,
    /// Line in the file; 0: unknown.
    pub line: u32,
}

/// Consequence of a failed turn for its session's peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultReply {
    /// Line that the peer is sent; empty: none.
    pub line: Vec<u8>,
    /// Whether the session is closed.
    pub closes: bool,
}

/// Event that a handler logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Level, a number from [`greenroom_state::abi::level`].
    pub level: u32,
    /// Module of the handler.
    pub target: String,
    /// Message with its fields.
    pub message: String,
    /// Whether the turn that logged it failed.
    pub failed: bool,
}
