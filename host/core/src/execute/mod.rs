//! Runs handler code.

pub(crate) mod batch;
pub(crate) mod fallback;
