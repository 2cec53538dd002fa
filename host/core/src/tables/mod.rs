//! Data that sessions share.

pub mod entry;
pub mod index;
pub mod owner;
