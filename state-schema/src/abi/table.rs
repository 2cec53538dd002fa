//! Tables that services own ([`super::Service::tables`]).

use super::bytes::Bytes;

/// [`super::Host::table_seek`]: the greatest key below a bound, rather than the least from it on.
pub const BACKWARDS: u32 = 1;
/// [`super::Host::table_seek`]: the key alone. The value is empty then, and is neither read nor
/// converted.
pub const KEY_ALONE: u32 = 2;

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
}
