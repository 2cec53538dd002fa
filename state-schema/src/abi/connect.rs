//! Outcome of a connection ([`super::action::CONNECT`]).

/// Connection is open.
pub const OPEN: u32 = 0;
/// Connection can't be made.
pub const FAILED: u32 = 1;
