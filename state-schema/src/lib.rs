//! Formats that Greenroom's host and its handlers must agree on, and nothing else.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`abi`] | the C ABI between host and handler: `repr(C)` tables and their version |
//! | [`address`] | endpoints and peers |
//! | `address_text`, `address_binary` | their forms: text for people, bytes for records |
//! | [`byte_text`] | bytes in a line of JSON |
//! | [`compatibility`] | compatibility of two builds: versions, migrations, downgrades |
//! | [`condition`] | conditions on a field, by which operators search |
//! | [`dialogue_report`] | dialogues in a rehearsal: what becomes of their sessions |
//! | [`difference`] | differences between two values, field by field |
//! | [`dump`] | the format of `greenroom state dump`, written as a stream, and its reader |
//! | [`dump_lines`] | the same, as lines of JSON |
//! | [`edit`] | operators' edits: fields set by path, and error messages |
//! | [`elf_note`] | the ELF note that describes a library before any of its code runs |
//! | [`json`] | MessagePack to JSON and back, without loss |
//! | `misfit` | where a value does not fit its schema, in words |
//! | [`nesting`] | the depth of states and of their JSON: one bound for all |
//! | [`parse`] | JSON that people give: no key twice, none that is unknown |
//! | [`path`] | paths to fields, as operators write them |
//! | [`rehearsal_report`] | reports of rehearsals: changes by field, verdict, way back |
//! | [`same_value`] | comparison of stored values, whatever the order of their maps |
//! | [`schema`] | a state's JSON Schema and its fingerprint |
//! | [`schema_diff`] | differences between two schemas, field by field |
//! | `schema_text` | a schema in words |
//! | [`session_record`] | a session's 128-byte record: all of a connection that outlives code |
//! | [`sets`] | places of sets in a type; equality whatever the order of maps and sets |
//! | [`settings_file`] | files in settings, with and without their content |
//! | [`value_change`] | differences between two values, by field |
//!
//! No I/O, no clock, no thread, no unsafe code. The SDK's `export/` uses the ABI on the handler's
//! side, and `plugin/ffi/` on the host's.
#![forbid(unsafe_code)]

pub mod abi;
pub mod address;
mod address_binary;
#[cfg(test)]
mod address_tests;
mod address_text;
pub mod byte_text;
pub mod compatibility;
pub mod condition;
pub mod dialogue_report;
pub mod difference;
pub mod dump;
pub mod dump_lines;
pub mod edit;
pub mod elf_note;
pub mod endpoint;
pub mod json;
mod misfit;
pub mod nesting;
pub mod parse;
pub mod path;
pub mod rehearsal_report;
pub mod same_value;
pub mod schema;
pub mod schema_diff;
mod schema_text;
pub mod session_record;
pub mod sets;
pub mod settings_file;
pub mod value_change;
