//! Faults and log lines of a turn.

/// Why a turn failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// One of [`greenroom_state::abi::fault`].
    pub kind: u32,
    /// What happened.
    pub message: String,
    /// Source file; empty: unknown.
    pub file: String,
    /// Line in it; 0: unknown.
    pub line: u32,
}

/// One event that a handler logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// One of [`greenroom_state::abi::level`].
    pub level: u32,
    /// The handler's module.
    pub target: String,
    /// The message with its fields.
    pub message: String,
    /// The turn that logged it failed.
    pub failed: bool,
}
