//! Levels of [`super::Host::log`].

use super::bytes::Bytes;

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

/// Event of a handler's log.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LogEvent<'a> {
    /// Size of this struct.
    pub size: u32,
    /// Number from [`self`].
    pub level: u32,
    /// Module or subsystem.
    pub target: Bytes<'a>,
    /// The message, its fields appended as `name=value`.
    pub message: Bytes<'a>,
}
