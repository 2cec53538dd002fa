//! Effects that come back later: jobs, connections, timers, topics.

pub(crate) mod asked;
pub mod jobs;
pub mod outbound;
pub(crate) mod timers;
pub mod topics;
