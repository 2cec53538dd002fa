//! The store: records that outlive the process that wrote them.

mod block;
pub(crate) mod host_records;
pub mod kind;
pub mod layout;
pub mod memory;
mod pins;
pub mod records;
pub mod recover;
mod slabs;
pub mod snapshot;
#[cfg(test)]
mod tests;
