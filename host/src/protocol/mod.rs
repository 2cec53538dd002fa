//! What crosses a process boundary.

pub mod admin;
pub mod keeper;
