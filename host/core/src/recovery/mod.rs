//! Recovery: after a process has died.
//!
//! | file | does |
//! | --- | --- |
//! | [`rebuild`] | rebuilds the host's state from the records |
//! | `dependent` | records that need others: tails of input, waits for output |
//! | `lost` | words for records that were lost |
//! | `reconcile` | compares each session with the kernel's byte counts |
//! | `saved` | the part of the state that is saved to disk |
//! | [`crashes`] | blames a crash on an action or a generation, and blocks it |
//!
//! No step commits, so a successor that dies in one leaves its own successor the same records.

pub mod crashes;
mod dependent;
mod lost;
pub mod rebuild;
pub mod reconcile;
pub(crate) mod saved;
