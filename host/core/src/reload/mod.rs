//! From candidate to running build.

pub(crate) mod judge;
pub mod library;
pub mod ports;
pub mod request;
pub mod steps;
pub mod sweep;
