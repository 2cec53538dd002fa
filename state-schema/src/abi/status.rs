//! Answers of the host's functions.

/// Done, or staged to be done when the turn succeeds.
pub const OK: u32 = 0;
/// The key is not in the table.
pub const ABSENT: u32 = 1;
/// A limit of the host refuses it; the turn should fail.
pub const LIMIT: u32 = 2;
/// An argument is unusable: no UTF-8 where a string is due, an unknown flag, no turn under way.
pub const INVALID: u32 = 3;
