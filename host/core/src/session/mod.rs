//! One connection and what it owes its peer.

pub mod life;
pub(crate) mod output;
pub mod quarantine;
pub mod table;
