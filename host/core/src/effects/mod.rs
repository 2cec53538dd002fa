//! Effects that come back later: waiting actions, jobs, connections, timers, topics.
//!
//! Each part is an index in memory. Recovery builds it again from records: one for each action,
//! timer, job and connection, and each session's own list of topics. A part takes the store as
//! an argument, and reads no session.
//!
//! | file | holds |
//! | --- | --- |
//! | `action_record` | an action that is to wait, and its record |
//! | `action_buffer` | actions copied for one call |
//! | `action_queue` | the actions that wait for one session |
//! | [`datagrams`] | datagrams to send behind the commit |
//! | [`inbox`] | actions that wait for a session |
//! | [`job_shares`] | threads that run jobs, by service |
//! | [`jobs`] | jobs: queued, running, finished, lost |
//! | [`outbound`] | outbound connections: asked for, open, failed |
//! | `timers` | timers by deadline and by name |
//! | [`topics`] | topics and their subscribers |

pub(crate) mod action_buffer;
mod action_queue;
pub(crate) mod action_record;
pub mod datagrams;
pub mod inbox;
pub mod job_shares;
pub mod jobs;
pub mod outbound;
pub(crate) mod timers;
pub mod topics;
