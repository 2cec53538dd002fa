//! What a turn may ask for.

pub mod code;
pub(crate) mod effect;
pub mod fault;
pub mod staging;
