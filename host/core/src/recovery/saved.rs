//! The part of the state that is saved to disk: tables and ledger.
//!
//! The shell writes the file, and reads it into a core that holds nothing yet. Sessions are not
//! in it: without their connections they mean nothing. Entries keep the versions of their
//! values, so the builds that own the tables migrate them as ever.
//!
//! Items that were restored become valid with the next commit. If an item fails, those before
//! it stay.

use crate::host_state::HostState;
use crate::store::kind::Kind;
use crate::tables::entry::{name_of, split_deadline, value_of};

/// Lends what outlives the host itself to `each`: table entries and ledger lines, as they are
/// stored. An entry comes with its version, anything else with 0. The first item is the number
/// of the last connection, which tables may name.
///
/// Ends early when `each` says false. O(entries + lines); must not be called from a running
/// turn.
pub(crate) fn each_saved(host: &HostState, mut each: impl FnMut(Kind, u32, &[u8]) -> bool) {
    if !each(Kind::Served, 0, &host.host_records.connection_number().to_le_bytes()) {
        return;
    }
    for r in host.tables.refs() {
        // An entry's key is the version of its value.
        let version = host.store.key(r) as u32;
        let (Some(kind), bytes) = host.store.kind_and_bytes(r) else { continue };
        if !each(kind, version, bytes) {
            return;
        }
    }
    for (_, line) in host.host_records.list(&host.store, Kind::Ledger, 0, usize::MAX) {
        if !each(Kind::Ledger, 0, &line) {
            return;
        }
    }
}

/// Takes back one item that [`each_saved`] lent. Fails if the item cannot be read, or if the
/// store has no room for it; the item changes nothing then.
pub(crate) fn restore_saved(
    host: &mut HostState,
    kind: Kind,
    version: u32,
    bytes: &[u8],
) -> Result<(), String> {
    let HostState { host_records, store, tables, .. } = host;
    if kind == Kind::Served {
        let number = bytes.try_into().map_err(|_| "it holds a number that can't be read")?;
        // Counts on from the earlier host, so no number that a table holds becomes another
        // session's.
        host_records.record_connection_number(u64::from_le_bytes(number));
        return Ok(());
    }
    if kind == Kind::Ledger {
        // Lines get new numbers without gaps, behind those that are there.
        let next = host_records.last_key(Kind::Ledger).map_or(1, |key| key + 1);
        let kept = host_records.put(store, kind, next, bytes);
        return kept.then_some(()).ok_or_else(|| "the store is full".into());
    }
    let split = split_deadline(kind, bytes).and_then(|(until, entry)| Some((until, entry, name_of(entry)?)));
    let (until, entry, (table, key)) = split.ok_or("it holds an entry that can't be read")?;
    // A put alone would use the store's reserve, which is for sessions that go on and close.
    if !store.reserve([bytes.len()]) {
        return Err("the tables don't fit (limit store_bytes_max)".into());
    }
    let put = tables.put_until(store, (table, key), version, value_of(entry), until);
    put.map_err(|_| "the tables don't fit (limit store_bytes_max)".into())
}
