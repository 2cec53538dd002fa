//! End of a job ([`super::action::JOB`]).

/// Job returned a result.
pub const DONE: u32 = 0;
/// Job returned an error or panicked, or the library has no such job.
pub const FAILED: u32 = 1;
/// The process that ran it died, and it isn't to run twice, or has died of it twice.
pub const LOST: u32 = 2;
