//! Limits: every bound of the host.
//!
//! | file | holds |
//! | --- | --- |
//! | [`host`] | every limit: name, unit, default |
//! | [`names`] | the names, for counting and for messages |
//! | [`per_service`] | limits that one service overrides |
//! | `share` | share of a service in a limit of the host |
//! | [`trusted`] | proxies whose headers are believed |
//! | `budget` | the work of each stage of a pass, estimated and bounded |
//! | `in_force` | the limits in force, and the count of those reached |

pub(crate) mod budget;
pub mod host;
pub(crate) mod in_force;
pub mod names;
pub mod per_service;
pub(crate) mod share;
pub mod trusted;
