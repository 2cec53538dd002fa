//! Actions that are to wait, and their records.
//!
//! A record holds an action with its data, or with the number of a shared record that holds them
//! (`crate::store::shared`). [`super::inbox`] writes, reads and deletes the records; recovery
//! sorts them by sequence.
//!
//! Fields are stored in 16 bits where the contract allows: kinds and details are small numbers,
//! and `topic_name_bytes_max` and `job_name_bytes_max` are at most 65,535.

use crate::store::records::Store;
use crate::store::shared::SharedRecords;

/// Kind of an action that ends its session in place of a turn. No library is told of it.
pub(crate) const CLOSE_ASKED: u32 = 0xffff;
/// Bytes of an action's record beside its name and data.
pub(super) const ACTION_HEAD: usize = 32;

/// An action that is to wait, borrowed from the turn or report that causes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PendingAction<'a> {
    /// Kind, one of [`greenroom_state::abi::action`].
    pub(crate) kind: u32,
    /// Detail, as the kind says; else 0.
    pub(crate) detail: u16,
    /// Number of the session that caused it, of the job, or of the connection; 0: none.
    pub(crate) from: u64,
    /// Turns between the action and something that came from outside. `cascade_max` bounds it.
    pub(crate) depth: u16,
    /// Topic or job; empty for other kinds.
    pub(crate) name: &'a [u8],
    /// Bytes that the turn gets with the action.
    pub(crate) data: Data<'a>,
}

/// The data of an action.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Data<'a> {
    /// Bytes of its own, which the record holds behind the name.
    Own(&'a [u8]),
    /// Number of a shared record. The record of the action holds no data then.
    Shared(u64),
}

impl Data<'_> {
    /// Bytes of the data. A shared record that is missing counts as 0 bytes.
    pub(super) fn len(&self, store: &Store, shared: &SharedRecords) -> usize {
        match self {
            Data::Own(bytes) => bytes.len(),
            Data::Shared(number) => shared.get(*number).map_or(0, |r| store.read(r, <[u8]>::len)),
        }
    }
}

/// Encodes an action's record. Numbers are little-endian. O(bytes of name and data).
///
/// | bytes | field |
/// | --- | --- |
/// | 0 to 7 | sequence |
/// | 8 to 15 | from |
/// | 16 to 23 | number of the shared record; 0: none |
/// | 24 to 31 | kind, depth, length of the name, detail (2 bytes each) |
/// | 32 on | the name, the data |
pub(super) fn encode(sequence: u64, a: &PendingAction<'_>) -> Vec<u8> {
    let (shared, own) = match a.data {
        Data::Own(bytes) => (0, bytes),
        Data::Shared(number) => (number, &[][..]),
    };
    let mut bytes = Vec::with_capacity(ACTION_HEAD + a.name.len() + own.len());
    for n in [sequence, a.from, shared] {
        bytes.extend_from_slice(&n.to_le_bytes());
    }
    for n in [a.kind as u16, a.depth, a.name.len() as u16, a.detail] {
        bytes.extend_from_slice(&n.to_le_bytes());
    }
    bytes.extend_from_slice(a.name);
    bytes.extend_from_slice(own);
    bytes
}

/// The parts of an action's record, borrowed from it.
pub(super) struct Decoded<'a> {
    pub(super) sequence: u64,
    pub(super) from: u64,
    pub(super) shared: u64,
    pub(super) kind: u32,
    pub(super) detail: u32,
    pub(super) depth: u16,
    pub(super) name: &'a [u8],
    pub(super) data: &'a [u8],
}

/// Decodes an action's record. `None`: it is too short for its head or its name.
pub(super) fn decode(bytes: &[u8]) -> Option<Decoded<'_>> {
    let (head, rest) = bytes.split_at_checked(ACTION_HEAD)?;
    let long = |at: usize| Some(u64::from_le_bytes(head.get(at..at + 8)?.try_into().ok()?));
    let short = |at: usize| Some(u16::from_le_bytes(head.get(at..at + 2)?.try_into().ok()?));
    let (name, data) = rest.split_at_checked(usize::from(short(28)?))?;
    Some(Decoded {
        sequence: long(0)?,
        from: long(8)?,
        shared: long(16)?,
        kind: u32::from(short(24)?),
        detail: u32::from(short(30)?),
        depth: short(26)?,
        name,
        data,
    })
}
