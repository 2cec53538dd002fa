//! The memory files that outlive the worker.

pub mod board;
pub mod input;
pub mod records;
pub mod snapshot;
