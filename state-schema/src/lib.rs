//! What Greenroom's host and its handlers must agree on, and nothing else.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`abi`] | the C ABI between host and handler: `repr(C)` tables and their version |
//! | [`address`] | endpoints and peers: as text for people, as bytes for records |
//! | [`elf_note`] | the ELF note by which a library says what it is before any of its code runs |
//! | [`session_record`] | a session's record: everything about a connection that survives code |
//! | [`schema`] | a state's JSON Schema and its fingerprint |
//! | [`schema_diff`] | differences between two schemas, field by field |
//! | `schema_text` | a schema in words |
//! | [`compatibility`] | what a build says of the data it keeps, and whether it may take over what another left |
//! | [`rehearsal_report`] | what a rehearsal says of the data: changes by field, verdict, way back |
//! | [`json`] | MessagePack, in which state is kept, to JSON, in which people read it, and back |
//! | [`edit`] | what an operator gives to be stored: how a field is set, and what is to be said against it |
//! | [`dump`] | the format of `greenroom state dump`, written as a stream, and its reader |
//!
//! No I/O, no clock, no thread, no unsafe code: the two places that act on these types are the SDK's
//! `export.rs` on the handler's side and `plugin/ffi.rs` on the host's.
#![forbid(unsafe_code)]

pub mod abi;
pub mod address;
pub mod compatibility;
pub mod dump;
pub mod edit;
pub mod elf_note;
pub mod json;
pub mod rehearsal_report;
pub mod schema;
pub mod schema_diff;
mod schema_text;
pub mod session_record;
