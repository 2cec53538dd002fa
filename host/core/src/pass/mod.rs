//! The stages of a pass.

pub(crate) mod close;
pub(crate) mod deliver;
pub(crate) mod send;
pub(crate) mod timeout;
