//! Carries out a reload.

pub(crate) mod build_records;
pub(crate) mod carry_out;
pub(crate) mod probation;
pub(crate) mod proposals;
