//! How a worker starts.

pub mod start;
