//! Encoding of one table entry.

use crate::store::kind::Kind;
use crate::store::snapshot::Seen;

/// The version that a value counts as: what nobody answered for is taken for the first.
pub(crate) fn version_of(stored: u32) -> u32 {
    stored.max(1)
}

/// An entry as it is stored: table and key with their lengths, then the value.
pub(super) fn entry(table: &str, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(3 + table.len() + key.len() + value.len());
    bytes.push(table.len() as u8);
    bytes.extend_from_slice(&(key.len() as u16).to_le_bytes());
    bytes.extend_from_slice(table.as_bytes());
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(value);
    bytes
}

/// The value of a stored entry.
pub(crate) fn value_of(entry: &[u8]) -> &[u8] {
    let key = usize::from(u16::from_le_bytes([entry[1], entry[2]]));
    &entry[3 + usize::from(entry[0]) + key..]
}

/// The table and the key of a stored entry; `None`: it is none.
pub(crate) fn name_of(entry: &[u8]) -> Option<(&str, &[u8])> {
    let (&table, rest) = entry.split_first()?;
    let (key, rest) = rest.split_at_checked(2)?;
    let (table, rest) = rest.split_at_checked(usize::from(table))?;
    let key = rest.get(..usize::from(u16::from_le_bytes([key[0], key[1]])))?;
    Some((std::str::from_utf8(table).ok()?, key))
}

/// An entry as a snapshot shows it.
#[derive(Debug, Clone, Copy)]
pub struct SeenEntry<'a> {
    /// Its table.
    pub table: &'a str,
    /// Its key.
    pub key: &'a [u8],
    /// The version that its value counts as.
    pub version: u32,
    /// Its value.
    pub value: &'a [u8],
}

impl<'a> SeenEntry<'a> {
    /// `None`: it is another record, or one that can't be read.
    pub fn of(seen: &Seen<'a>) -> Option<SeenEntry<'a>> {
        let (table, key) = name_of(seen.bytes).filter(|_| seen.kind == Kind::Entry)?;
        Some(SeenEntry { table, key, version: version_of(seen.key as u32), value: value_of(seen.bytes) })
    }
}

/// What an entry costs beyond its value, in bytes.
pub(crate) fn overhead(table: &str, key: &[u8]) -> usize {
    3 + table.len() + key.len()
}
