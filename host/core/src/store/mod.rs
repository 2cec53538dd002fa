//! Store: records that outlive the process that wrote them.
//!
//! All that must survive is in it, as bytes under a kind and a key. Parts above put it there. Cut
//! off at any word, the memory holds exactly the records of the last commit.
//!
//! | file | holds |
//! | --- | --- |
//! | [`records`] | the record store: put, append, delete, read, commit |
//! | [`kind`] | kinds of records |
//! | [`layout`] | memory layout: header, directory, units, size classes |
//! | `block` | a block's header |
//! | `slabs` | slabs: allocated, filled, reclaimed |
//! | `slab_class` | the class of a slab whose directory byte is damaged |
//! | [`recover`] | the scan after a crash |
//! | `tail` | bytes that grow behind a record, in its block |
//! | `promise` | blocks that a reservation still has |
//! | `room` | room for records that are about to be written |
//! | `bytes_by_kind` | bytes of the records of each kind |
//! | `pins`, [`snapshot`] | a committed epoch, read from outside |
//! | [`memory`] | the bytes that a store lies in |
//! | `shared` | records shared by several others |
//! | `host_records` | the host's own records |

mod block;
mod bytes_by_kind;
pub(crate) mod host_records;
pub mod kind;
pub mod layout;
pub mod memory;
mod pins;
mod promise;
pub mod records;
pub mod recover;
pub(crate) mod room;
pub(crate) mod shared;
mod slab_class;
mod slabs;
pub mod snapshot;
pub(crate) mod tail;
#[cfg(test)]
mod tests;
