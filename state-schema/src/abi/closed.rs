//! Reason why a session ended ([`super::action::CLOSED`]).

/// The peer closed it in an orderly way; what is sent now may still reach it.
pub const PEER: u32 = 1;
/// The connection broke; nothing can be sent.
pub const BROKEN: u32 = 2;
/// The handler closed it.
pub const HANDLER: u32 = 3;
/// A limit closed it (a frame too long, output never read).
pub const LIMIT: u32 = 4;
/// The host is stopping.
pub const STOPPING: u32 = 5;
/// An operator closed it.
pub const OPERATOR: u32 = 6;
