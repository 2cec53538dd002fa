//! Tables: data that sessions share.
//!
//! A table is an ordered map from bytes to MessagePack values. The host owns it, so that it
//! outlives sessions and code. One service owns the schema of a table; any service may read and
//! write it.
//!
//! | file | holds |
//! | --- | --- |
//! | [`entry`] | encoding of one entry |
//! | [`index`] | the ordered maps |
//! | [`owner`] | ownership: service and version |
//! | `rebuild` | the index after a crash |

pub mod entry;
pub mod index;
pub mod owner;
mod rebuild;
