//! Tables that services own ([`super::Service::tables`]).

use super::bytes::Bytes;
use super::turn::Turn;

/// [`Seek`]: the greatest key below a bound, rather than the least from it on.
pub const BACKWARDS: u32 = 1;
/// [`Seek`]: the key alone. The value is empty then, and is neither read nor converted.
pub const KEY_ALONE: u32 = 2;

/// [`super::Host::table_seek`]: finds the next entry whose key starts with `prefix`. Forwards it is
/// the one with the least key at or behind `from`; a scan goes on from that key with a zero byte
/// appended. With [`BACKWARDS`] it is the one with the greatest key below `from`, or of all if
/// `from` is empty; a scan goes on from that key. Both are valid until the next call with this
/// turn. `flags`: 0, or [`BACKWARDS`] and [`KEY_ALONE`] or either.
pub type Seek = unsafe extern "C" fn(
    turn: *mut Turn,
    table: Bytes<'_>,
    prefix: Bytes<'_>,
    from: Bytes<'_>,
    flags: u32,
    key: *mut Bytes<'static>,
    value: *mut Bytes<'static>,
) -> u32;

/// [`Table::flags`]: its service gets [`super::action::EXPIRED`] for each entry that is over.
pub const HEARS_OF_EXPIRY: u32 = 1;

/// [`Table::flags`], since 1.9: [`super::Service::convert`] reads the table's keys, too
/// ([`KEY_OF`]).
pub const READS_KEYS: u32 = 2;
/// [`super::Service::convert`], since 1.9: added to the number of a table that has [`READS_KEYS`].
/// The value is a key then, and both versions are 0. The result is empty; a key that the library
/// can't read is an error.
pub const KEY_OF: u32 = 1 << 31;

/// [`super::Host::table_put_until`]: writes a value (MessagePack) under a key until a time, in
/// nanoseconds since 1970, UTC. From then on, by the clock that [`super::Host::wall`] tells, the
/// entry is gone for all who read; the host counts in whole milliseconds, and is never early. A
/// time that is over deletes the entry. A put without a time takes the time away.
pub type PutUntil = unsafe extern "C" fn(
    turn: *mut Turn,
    table: Bytes<'_>,
    key: Bytes<'_>,
    value: Bytes<'_>,
    until_ns: u64,
) -> u32;

/// [`super::Host::table_drop_prefix`]: drops all entries whose keys start with `prefix`, however
/// many those are; empty: all. Their memory is free a little later.
pub type DropPrefix = unsafe extern "C" fn(turn: *mut Turn, table: Bytes<'_>, prefix: Bytes<'_>) -> u32;

/// A table that a service owns: its values' schema and migrations rule it, whoever writes. Valid
/// until the process ends.
#[repr(C)]
pub struct Table {
    /// Size of this struct.
    pub size: u32,
    /// Version of its values, from 1.
    pub version: u32,
    /// The table's name.
    pub name: Bytes<'static>,
    /// JSON Schema of its values.
    pub schema: Bytes<'static>,
    /// Number of versions in [`Table::migrations`].
    pub migration_count: u32,
    /// Number of versions in [`Table::downgrades`].
    pub downgrade_count: u32,
    /// The versions from which this library can make the next one.
    pub migrations: *const u32,
    /// The versions from which this library can make the one before.
    pub downgrades: *const u32,
    /// Since 1.6 (0 before): 0, or [`HEARS_OF_EXPIRY`] and [`READS_KEYS`] or either.
    pub flags: u32,
    /// Must be zero.
    pub reserved: u32,
}

/// Size of [`Table`] up to ABI 1.5.
pub const SIZE_1_5: usize = std::mem::offset_of!(Table, flags);
