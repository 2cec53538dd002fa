//! From candidate to running build.
//!
//! | file | holds |
//! | --- | --- |
//! | [`request`] | messages of the state machine |
//! | [`library`] | one library: the build that runs, and the reload under way |
//! | [`reloads`] | what runs, what is under way, what waits |
//! | `steps` | the state machine of a reload |
//! | `judge` | every reason to refuse a candidate that passed its trial |
//! | [`ports`] | ports held and ports wanted |
//! | `commit` | puts a build in charge |
//! | `first_turns` | tells services of the build that serves |
//! | `rollback` | puts the previous build back in charge |
//! | `sweep` | converts stored data that nobody reads |

pub(crate) mod commit;
mod first_turns;
pub(crate) mod judge;
pub mod library;
pub mod ports;
pub mod reloads;
pub mod request;
pub(crate) mod rollback;
mod steps;
pub(crate) mod sweep;
