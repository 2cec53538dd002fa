//! Encoding of one table entry.
//!
//! | bytes | field |
//! | --- | --- |
//! | 0 | length of the table's name (u8) |
//! | 1 and 2 | length of the key (u16, little-endian) |
//! | then | name, key, value |
//!
//! The name stands in every entry, so that recovery builds the index from entries alone, and
//! the loss of one record costs one entry. The price is up to 64 bytes for each entry.
//!
//! A record of [`Kind::Expiring`] has the entry's deadline before all that: milliseconds since
//! 1970 (u64, little-endian).
//!
//! The key of the store's record is not the key of the entry but the version of its value.

use crate::store::kind::Kind;
use crate::store::snapshot::Seen;

/// Returns the version that a value counts as. Version 0 is stored for a value of a table that
/// had no owner; it counts as version 1.
pub(crate) fn version_of(stored: u32) -> u32 {
    stored.max(1)
}

/// Bytes of a deadline.
const DEADLINE_BYTES: usize = size_of::<u64>();

/// Splits a record of an entry into its deadline, if it has one, and the encoded entry; `None`: it
/// is no such record.
pub(crate) fn split_deadline(kind: Kind, bytes: &[u8]) -> Option<(Option<u64>, &[u8])> {
    match kind {
        Kind::Entry => Some((None, bytes)),
        Kind::Expiring => {
            let (deadline, entry) = bytes.split_first_chunk()?;
            Some((Some(u64::from_le_bytes(*deadline)), entry))
        }
        _ => None,
    }
}

/// Returns the bytes that a deadline counts among those of its table.
pub(crate) fn deadline_bytes(until_ms: Option<u64>) -> usize {
    if until_ms.is_some() { DEADLINE_BYTES } else { 0 }
}

/// Returns the kind of an entry's record.
pub(super) fn kind_of(until_ms: Option<u64>) -> Kind {
    if until_ms.is_some() { Kind::Expiring } else { Kind::Entry }
}

/// Encodes an entry. The caller has checked that the name has at most 255 bytes and the key at
/// most 65,535: the lengths would be cut off otherwise. One allocation.
pub(super) fn entry(until_ms: Option<u64>, table: &str, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(overhead(until_ms, table, key) + value.len());
    if let Some(ms) = until_ms {
        bytes.extend_from_slice(&ms.to_le_bytes());
    }
    bytes.push(table.len() as u8);
    bytes.extend_from_slice(&(key.len() as u16).to_le_bytes());
    bytes.extend_from_slice(table.as_bytes());
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(value);
    bytes
}

/// Returns the value of an encoded entry. The bytes come from [`entry`], or [`name_of`] has
/// decoded them; any others may panic.
pub(crate) fn value_of(entry: &[u8]) -> &[u8] {
    let key = usize::from(u16::from_le_bytes([entry[1], entry[2]]));
    &entry[3 + usize::from(entry[0]) + key..]
}

/// Returns the table and the key of an encoded entry; `None`: the bytes are no entry. Never
/// panics: the bytes may come from a damaged record, or from a file.
pub(crate) fn name_of(entry: &[u8]) -> Option<(&str, &[u8])> {
    let (&table, rest) = entry.split_first()?;
    let (key, rest) = rest.split_at_checked(2)?;
    let (table, rest) = rest.split_at_checked(usize::from(table))?;
    let key = rest.get(..usize::from(u16::from_le_bytes([key[0], key[1]])))?;
    Some((std::str::from_utf8(table).ok()?, key))
}

/// Entry as a snapshot shows it, for filters and rehearsals.
#[derive(Debug, Clone, Copy)]
pub struct SeenEntry<'a> {
    /// Name of the table.
    pub table: &'a str,
    /// Key of the entry.
    pub key: &'a [u8],
    /// Version that the value counts as.
    pub version: u32,
    /// Value, in MessagePack.
    pub value: &'a [u8],
}

impl<'a> SeenEntry<'a> {
    /// Decodes a record of a snapshot; `None`: the record is no entry, or cannot be read.
    pub fn of(seen: &Seen<'a>) -> Option<SeenEntry<'a>> {
        let (_, entry) = split_deadline(seen.kind, seen.bytes)?;
        let (table, key) = name_of(entry)?;
        Some(SeenEntry { table, key, version: version_of(seen.key as u32), value: value_of(entry) })
    }
}

/// Returns the bytes that an encoded entry has beyond its value.
pub(crate) fn overhead(until_ms: Option<u64>, table: &str, key: &[u8]) -> usize {
    3 + table.len() + key.len() + deadline_bytes(until_ms)
}
