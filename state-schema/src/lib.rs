//! What Greenroom's host and its handlers must agree on, and nothing else.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`abi`] | the C ABI between host and handler: `repr(C)` tables and their version |
//! | [`note`] | the ELF note by which a library says what it is before any of its code runs |
//! | [`record`] | a session's record: everything about a connection that survives code |
//! | [`schema`] | a state's JSON Schema, its fingerprint, and what differs between two of them |
//! | [`value`] | MessagePack, in which state is kept, to JSON, in which people read it, and back |
//! | [`dump`] | the format of `greenroom state dump`, written as a stream, and its reader |
//!
//! No I/O, no clock, no thread, no unsafe code: the two places that act on these types are the SDK's
//! `export.rs` on the handler's side and `plugin/ffi.rs` on the host's.
#![forbid(unsafe_code)]

pub mod abi;
pub mod dump;
pub mod note;
pub mod record;
pub mod schema;
pub mod value;
