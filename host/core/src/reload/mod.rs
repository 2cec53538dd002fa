//! From candidate to running build.
//!
//! | file | holds |
//! | --- | --- |
//! | [`request`] | messages of the state machine |
//! | [`library`] | one library: the build that runs, and the reload under way |
//! | [`reloads`] | what runs, what is under way, what waits |
//! | `steps` | the state machine of a reload |
//! | `judge` | every reason to refuse a candidate that passed its trial |
//! | `judge_canary` | every reason why such a candidate cannot be a canary |
//! | [`ports`] | ports held and ports wanted |
//! | `canary` | begins and ends a canary |
//! | `canary_end` | takes a candidate out of its services |
//! | `commit` | puts a build in charge |
//! | `first_turns` | tells services of the build that serves |
//! | `rollback` | puts the previous build back in charge |
//! | `sweep` | converts stored data that nobody reads |

pub(crate) mod canary;
mod canary_end;
pub(crate) mod commit;
mod first_turns;
pub(crate) mod judge;
mod judge_canary;
pub mod library;
pub mod ports;
pub mod reloads;
pub mod request;
pub(crate) mod rollback;
mod steps;
pub(crate) mod sweep;
