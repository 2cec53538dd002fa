//! Views of sessions and tables for operators, and operator restores.
//!
//! | file | does |
//! | --- | --- |
//! | [`inspect`] | read-only views, in slices |
//! | [`check`] | checks states and entries that an operator wants to write |
//! | [`plan`] | the plan of a restore |
//! | [`replay`] | runs a recorded turn with other code |
//! | [`restore`] | writes a checked plan: all of it, or nothing |
//! | [`watch`] | begins and ends watches of turns |

pub mod check;
pub mod inspect;
pub mod plan;
pub mod replay;
pub mod restore;
pub mod watch;
