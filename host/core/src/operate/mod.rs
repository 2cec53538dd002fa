//! What operators read and write.

pub mod check;
pub mod inspect;
pub mod plan;
pub mod restore;
