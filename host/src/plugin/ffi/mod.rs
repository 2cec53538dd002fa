//! The C ABI, host side.

pub mod library;
