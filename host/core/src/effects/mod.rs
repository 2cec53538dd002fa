//! Effects that outlive their turn: waiting actions, jobs, connections, timers, topics, names.
//!
//! Each part is an index in memory. Recovery builds it again from records: one for each action,
//! timer, job, connection, subscription and name. A part takes the store as an argument, and
//! reads no session.
//!
//! | file | holds |
//! | --- | --- |
//! | [`action_name`] | names of kinds |
//! | `action_record` | an action that is to wait, and its record |
//! | `action_buffer` | actions copied for one call |
//! | [`birth`] | the secret of the host, and its age |
//! | `buckets` | token buckets |
//! | `action_queue` | the actions that wait for one session |
//! | [`datagrams`] | datagrams to send behind the commit |
//! | `holder` | a session that holds a name or a subscription |
//! | [`inbox`] | actions that wait for a session |
//! | [`job_forms`] | a job as it is asked for, begins, ends and is shown |
//! | [`job_shares`] | threads that run jobs, by service |
//! | [`jobs`] | jobs: queued, running, finished, lost |
//! | `missed` | counts of dropped actions |
//! | [`names`] | names that sessions hold |
//! | [`outbound`] | outbound connections: asked for, open, failed |
//! | `running_batch` | the batch under way |
//! | `timers` | timers by deadline and by name |
//! | `wakes`, `waking` | wakes that wait for an event; their way to a turn |
//! | [`topics`] | topics and their subscribers |

pub(crate) mod action_buffer;
pub mod action_name;
mod action_queue;
pub(crate) mod action_record;
pub mod birth;
pub(crate) mod buckets;
pub mod datagrams;
pub(crate) mod holder;
pub mod inbox;
pub mod job_forms;
mod job_record;
pub mod job_shares;
pub mod jobs;
mod missed;
pub mod names;
pub mod outbound;
pub(crate) mod running_batch;
pub(crate) mod timers;
pub mod topics;
mod wakes;
mod waking;
