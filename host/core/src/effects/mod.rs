//! What a turn started and that comes back later.
//!
//! | file | holds |
//! | --- | --- |
//! | [`inbox`] | actions that wait for a session |
//! | [`jobs`] | jobs: queued, running, finished, lost |
//! | [`outbound`] | outbound connections: asked for, open, failed |
//! | `timers` | timers by deadline and by name |
//! | [`topics`] | topics and their subscribers |

pub mod inbox;
pub mod jobs;
pub mod outbound;
pub(crate) mod timers;
pub mod topics;
