//! Levels of [`super::Host::log`].

/// Failures.
pub const ERROR: u32 = 1;
/// Problems that were dealt with.
pub const WARN: u32 = 2;
/// Events for operators.
pub const INFO: u32 = 3;
/// Events for a handler's author.
pub const DEBUG: u32 = 4;
/// All events.
pub const TRACE: u32 = 5;
