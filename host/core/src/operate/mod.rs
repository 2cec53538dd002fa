//! Views of sessions and tables for operators, and operator restores.
//!
//! | file | does |
//! | --- | --- |
//! | [`inspect`] | read-only views, in slices |
//! | [`check`] | checks states and entries that an operator wants to write |
//! | [`plan`] | the plan of a restore |
//! | [`restore`] | writes a checked plan: all of it, or nothing |

pub mod check;
pub mod inspect;
pub mod plan;
pub mod restore;
