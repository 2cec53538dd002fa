//! Builds and the services they offer.

pub mod offer;
pub mod placeholder;
pub mod probation;
pub mod registry;
