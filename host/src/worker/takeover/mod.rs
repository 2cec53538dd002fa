//! Starts a worker.
//!
//! | file | holds |
//! |---|---|
//! | `reconcile` | Matches connections with sessions, and finds unread input. |
//! | `start` | Starts a worker: fresh, or as a successor. |
//! | `successor` | Goes on with a predecessor's builds and ports. |
//! | `trial` | Tries whether this binary could take over. |

mod reconcile;
pub mod start;
mod successor;
mod trial;
