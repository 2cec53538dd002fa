//! Kinds of faults ([`super::Fault::kind`]).

/// The callback returned an error.
pub const ERROR: u32 = 1;
/// The callback panicked.
pub const PANIC: u32 = 2;
/// The session's stored state could not be read or migrated: the action was not run, and is kept.
pub const STATE: u32 = 3;
