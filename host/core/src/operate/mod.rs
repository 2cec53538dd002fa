//! Views of sessions and tables for operators, and operator restores.
//!
//! | file | does |
//! | --- | --- |
//! | [`inspect`] | read-only views, in slices |
//! | [`check`] | checks states and entries that an operator wants to write |
//! | [`desk`] | what operators do, as the front door lends it |
//! | `message` | a message to a session's peer |
//! | [`plan`] | the plan of a restore |
//! | [`replay`] | runs a recorded turn with other code |
//! | [`restore`] | writes a checked plan: all of it, or nothing |
//! | [`undo`] | data that a plan replaced, and what must be stored still to put them back |
//! | [`watch`] | begins and ends watches of turns |

pub mod check;
pub mod desk;
pub mod inspect;
pub(crate) mod message;
pub mod plan;
pub mod replay;
pub mod restore;
pub mod undo;
pub mod watch;
