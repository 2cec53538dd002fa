//! Reason of a first turn of a service ([`super::action::STARTED`]).

/// Host has started: no build of the service served in it before. Saved tables are read.
pub const HOST: u32 = 0;
/// Another build has come into service, by a reload or a rollback.
pub const GENERATION: u32 = 1;
