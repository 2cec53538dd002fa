//! After a process has died.

pub mod crashes;
pub mod rebuild;
