//! Forms of a job: as a turn asks for it, as it begins, as it ends, and as operators see it.

use crate::ids::ServiceId;

/// A job that a turn asks for, borrowed from the staging area.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewJob<'a> {
    /// Number of the session, or of the service.
    pub(crate) owner: u64,
    /// Service whose function runs.
    pub(crate) service: ServiceId,
    /// Number that the turn was told. [`Jobs::next`] gave it.
    pub(crate) number: u64,
    /// Name of the function, at most `job_name_bytes_max` bytes.
    pub(crate) name: &'a str,
    pub(crate) input: &'a [u8],
    /// Whether it runs at most once.
    pub(crate) once: bool,
}

/// A job that is to begin, copied out of its record.
#[derive(Debug)]
pub(crate) struct BegunJob {
    pub(crate) number: u64,
    /// Number of the session, or of the service.
    pub(crate) owner: u64,
    pub(crate) service: ServiceId,
    pub(crate) name: String,
    pub(crate) input: Vec<u8>,
}

/// A job that is over. Its record is deleted.
#[derive(Debug)]
pub(crate) struct EndedJob {
    /// Number of the session, or of the service.
    pub(crate) owner: u64,
    pub(crate) name: String,
}

/// A job that a successor must not begin again. It ends as lost.
#[derive(Debug)]
pub(crate) struct LostJob {
    /// Number of the session, or of the service.
    pub(crate) owner: u64,
    pub(crate) service: ServiceId,
    pub(crate) name: String,
    /// Reason, for the owner and for operators.
    pub(crate) why: &'static str,
}

/// A job that has not ended, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobView {
    /// Number of the job.
    pub number: u64,
    /// Name of its function.
    pub name: String,
    /// Whether it has a thread.
    pub running: bool,
}
