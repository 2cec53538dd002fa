//! The part of the state that is saved to disk: tables and ledger.

use crate::host_state::HostState;
use crate::store::kind::Kind;
use crate::tables::entry::{name_of, value_of};

/// Lends what outlives the host itself to `each`: table entries and ledger lines, as they are
/// stored, with an entry's version, and the number of the last connection, which tables may name.
/// It ends early when `each` says false. O(entries).
pub(crate) fn each_saved(host: &HostState, mut each: impl FnMut(Kind, u32, &[u8]) -> bool) {
    if !each(Kind::Served, 0, &host.host_records.connection_number().to_le_bytes()) {
        return;
    }
    for r in host.tables.refs() {
        let version = host.store.key(r) as u32;
        if !host.store.read(r, |bytes| each(Kind::Entry, version, bytes)) {
            return;
        }
    }
    for (_, line) in host.host_records.list(&host.store, Kind::Ledger, 0, usize::MAX) {
        if !each(Kind::Ledger, 0, &line) {
            return;
        }
    }
}

/// Takes back what [`each_saved`] lent. The error says what is wrong with it.
pub(crate) fn restore_saved(
    host: &mut HostState,
    kind: Kind,
    version: u32,
    bytes: &[u8],
) -> Result<(), String> {
    let HostState { host_records, store, tables, .. } = host;
    if kind == Kind::Served {
        let number = bytes.try_into().map_err(|_| "it holds a number that can't be read")?;
        host_records.record_connection_number(u64::from_le_bytes(number));
        return Ok(());
    }
    if kind == Kind::Ledger {
        let next = host_records.list(store, Kind::Ledger, 0, usize::MAX).last().map_or(1, |(key, _)| key + 1);
        let kept = host_records.put(store, kind, next, bytes);
        return kept.then_some(()).ok_or_else(|| "the store is full".into());
    }
    let (table, key) = name_of(bytes).ok_or("it holds an entry that can't be read")?;
    if !store.reserve([bytes.len()]) {
        return Err("the tables don't fit (limit store_bytes_max)".into());
    }
    let put = tables.put(store, table, key, version, value_of(bytes));
    put.map_err(|_| "the tables don't fit (limit store_bytes_max)".into())
}
