//! Functions of a turn for tables.
//!
//! Each gets, by the ABI, the turn of the run under way and arguments that are valid for the call.

use crate::plugin::ffi::bytes::{lend, slice};
use crate::plugin::ffi::under_way::with_name;
use greenroom_core::turn::staging::Staging;
use greenroom_core::turn::table_reads::Seek;
use greenroom_state::abi::table::{BACKWARDS, KEY_ALONE};
use greenroom_state::abi::{self, Bytes, status};

/// Lends the value of an entry, with writes of this batch; `ABSENT`: there is none.
pub(super) unsafe extern "C" fn table_get(
    turn: *mut abi::Turn,
    table: Bytes<'_>,
    key: Bytes<'_>,
    value: *mut Bytes<'static>,
) -> u32 {
    // SAFETY: see above.
    let key = unsafe { slice(key) };
    let read = |s: &mut Staging<'_>, table: &str| match s.table_get(table, key) {
        Some(found) => {
            // SAFETY: see above.
            unsafe { value.write(lend(found)) };
            status::OK
        }
        None => status::ABSENT,
    };
    // SAFETY: see above.
    unsafe { with_name(turn, table, read) }
}

/// Stages an entry.
pub(super) unsafe extern "C" fn table_put(
    turn: *mut abi::Turn,
    table: Bytes<'_>,
    key: Bytes<'_>,
    value: Bytes<'_>,
) -> u32 {
    // SAFETY: see above.
    let key = unsafe { slice(key) };
    // SAFETY: see above.
    let value = unsafe { slice(value) };
    // SAFETY: see above.
    unsafe { with_name(turn, table, |s, table| s.table_put(table, key, value)) }
}

/// Stages an entry with a deadline.
pub(super) unsafe extern "C" fn table_put_until(
    turn: *mut abi::Turn,
    table: Bytes<'_>,
    key: Bytes<'_>,
    value: Bytes<'_>,
    until_ns: u64,
) -> u32 {
    // SAFETY: see above.
    let key = unsafe { slice(key) };
    // SAFETY: see above.
    let value = unsafe { slice(value) };
    // SAFETY: see above.
    unsafe { with_name(turn, table, |s, table| s.table_put_until(table, key, value, until_ns)) }
}

/// Stages the removal of an entry.
pub(super) unsafe extern "C" fn table_delete(turn: *mut abi::Turn, table: Bytes<'_>, key: Bytes<'_>) -> u32 {
    // SAFETY: see above.
    let key = unsafe { slice(key) };
    // SAFETY: see above.
    unsafe { with_name(turn, table, |s, table| s.table_delete(table, key)) }
}

/// Stages the removal of all entries whose keys start with a prefix.
pub(super) unsafe extern "C" fn table_drop_prefix(
    turn: *mut abi::Turn,
    table: Bytes<'_>,
    prefix: Bytes<'_>,
) -> u32 {
    // SAFETY: see above.
    let prefix = unsafe { slice(prefix) };
    // SAFETY: see above.
    unsafe { with_name(turn, table, |s, table| s.table_drop_prefix(table, prefix)) }
}

/// Lends the next entry at or after `from` whose key begins with `prefix`; `ABSENT`: there is
/// none. Libraries of ABI 1.5 and before scan by it.
pub(super) unsafe extern "C" fn table_next(
    turn: *mut abi::Turn,
    table: Bytes<'_>,
    prefix: Bytes<'_>,
    from: Bytes<'_>,
    key: *mut Bytes<'static>,
    value: *mut Bytes<'static>,
) -> u32 {
    // SAFETY: see above.
    unsafe { table_seek(turn, table, prefix, from, 0, key, value) }
}

/// Lends the next entry of a scan in either direction; `ABSENT`: there is none.
pub(super) unsafe extern "C" fn table_seek(
    turn: *mut abi::Turn,
    table: Bytes<'_>,
    prefix: Bytes<'_>,
    from: Bytes<'_>,
    flags: u32,
    key: *mut Bytes<'static>,
    value: *mut Bytes<'static>,
) -> u32 {
    let seek = Seek { backwards: flags & BACKWARDS != 0, key_alone: flags & KEY_ALONE != 0 };
    if flags & !(BACKWARDS | KEY_ALONE) != 0 {
        return status::INVALID;
    }
    // SAFETY: see above.
    let prefix = unsafe { slice(prefix) };
    // SAFETY: see above.
    let from = unsafe { slice(from) };
    let read = |s: &mut Staging<'_>, table: &str| match s.table_seek(table, prefix, from, seek) {
        Some((k, v)) => {
            // SAFETY: see above.
            unsafe { key.write(lend(k)) };
            // SAFETY: see above.
            unsafe { value.write(lend(v)) };
            status::OK
        }
        None => status::ABSENT,
    };
    // SAFETY: see above.
    unsafe { with_name(turn, table, read) }
}

/// Number of entries of a table, with writes of this batch; 0 if the name is not UTF-8.
pub(super) unsafe extern "C" fn table_len(turn: *mut abi::Turn, table: Bytes<'_>) -> u64 {
    let mut len = 0;
    let count = |s: &mut Staging<'_>, table: &str| {
        len = s.table_len(table);
        status::OK
    };
    // SAFETY: see above.
    unsafe { with_name(turn, table, count) };
    len
}
