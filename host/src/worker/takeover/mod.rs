//! Start of a worker.
//!
//! Order of a successor's start: records, connections, builds and ports, reconciliation, first
//! pass, `Ready`. Nothing is committed before the first pass, so a start may be repeated after a
//! crash.
//!
//! | file | holds |
//! |---|---|
//! | `ended_loads` | Tells of loads that ended a predecessor. |
//! | `equip` | Gives a core its ciphers and its secret. |
//! | `load_build` | Loads recorded builds, unless that has ended processes. |
//! | `predecessor_memory` | Opens the memory files of a predecessor. |
//! | `reconcile` | Matches connections with sessions, and finds unread input. |
//! | `save_alone` | Saves in a host that stops and can start no worker. |
//! | `start` | Starts a worker: fresh, or as a successor. |
//! | `successor` | Goes on with a predecessor's builds and ports. |
//! | `trial` | Tries whether this binary could take over. |

mod ended_loads;
mod equip;
mod load_build;
mod predecessor_memory;
mod reconcile;
mod save_alone;
pub mod start;
mod successor;
mod trial;
