//! Tables: data that sessions share.
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
