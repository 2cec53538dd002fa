//! Tables: data that sessions share.
//!
//! A table is an ordered map from bytes to MessagePack values. The host owns it, so that it
//! outlives sessions and code. One service owns the schema of a table; any service may read and
//! write it.
//!
//! | file | holds |
//! | --- | --- |
//! | `chunk` | part of an ordered set: up to 128 entries |
//! | `chunks` | ordered set in chunks, of which a range is taken out at once |
//! | `deadlines` | deadlines of entries, and the clock that they are judged by |
//! | `drops` | entries that were dropped, until their records are deleted |
//! | [`entry`] | encoding of one entry |
//! | [`index`] | the ordered maps |
//! | `indexed` | an entry in them |
//! | [`owner`] | ownership: service and version |
//! | [`prefixes`] | prefixes that were dropped, and the entries under them |
//! | `rebuild` | the index after a crash |
//! | `taken` | a range that was taken out of a map |
//! | `totals` | counts of entries, bytes and versions |

mod chunk;
mod chunks;
mod deadlines;
mod drops;
pub mod entry;
pub mod index;
mod indexed;
pub mod owner;
pub mod prefixes;
mod rebuild;
mod taken;
mod totals;
