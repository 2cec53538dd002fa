//! Every limit.

pub mod host;
pub(crate) mod in_force;
pub mod names;
pub mod per_service;
