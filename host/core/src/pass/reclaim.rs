//! Deletion of entries that are over, or were dropped with their prefix.
//!
//! Nobody reads them any more, so a pass deletes a share of them and leaves the rest to the next
//! one, which comes at once.

use crate::effects::action_record::{Data, PendingAction};
use crate::effects::inbox::Inbox;
use crate::effects::running_batch::RunningBatch;
use crate::host_state::HostState;
use crate::host_state::deliver::deliver;
use crate::ids::Slot;
use crate::limits::budget::{EFFECT_NS, RECLAIM_NS};
use crate::tables::index::OverEntry;
use greenroom_state::abi::action;

/// Part of the records that wait for their deletion which a pass deletes, at least: a 256th.
const SHARES: usize = 256;
/// Actions that may wait for a service when it is told of another entry that is over.
const EXPIRED_WAITING_MAX: usize = 1024;

/// Deletes entries that are over, for a share of the pass, and tells the owners of their tables, if
/// those want to know. Of a table whose owner has many to hear of, the rest waits: nobody reads it.
pub(super) fn expire(host: &mut HostState) {
    let tables = host.tables.tables_over();
    if tables.is_empty() {
        return;
    }
    begin_share(host, host.tables.count_over());
    for table in tables {
        let owner = host.owners.get(&table).filter(|owner| owner.hears_of_expiry);
        let owner = owner.map(|owner| Slot::of_service(owner.service));
        while let Some(over) = host.tables.next_over(&host.store, &table) {
            if let OverEntry::Key(key) = over {
                if let Some(slot) = owner
                    && !tell_expired(host, slot, &table, &key)
                {
                    // Turns of this pass may make room.
                    if host.inbox.is_ready() {
                        host.tables.leave_rest();
                    }
                    break;
                }
                host.tables.delete(&mut host.store, &table, &key);
            }
            host.budget.spend(RECLAIM_NS);
            // At least one entry in each pass, however short that is.
            if host.budget.is_spent() {
                host.tables.leave_rest();
                return host.tables.look_for_deadlines();
            }
        }
    }
    host.tables.look_for_deadlines();
}

/// Tells a service that an entry of its table is over. False: too much waits for it, or the store
/// has no room; nothing has changed then.
fn tell_expired(host: &mut HostState, slot: Slot, table: &str, key: &[u8]) -> bool {
    let (waiting, _) = host.inbox.backlog(slot);
    if waiting >= EXPIRED_WAITING_MAX || !host.store.reserve([Inbox::record_bytes(table.len(), key.len())]) {
        return false;
    }
    let (kind, data) = (action::EXPIRED, Data::Own(key));
    let told = PendingAction { kind, detail: 0, from: 0, depth: 0, name: table.as_bytes(), data };
    deliver(host, slot, &told, &RunningBatch::default());
    host.budget.spend(EFFECT_NS);
    true
}

/// Deletes records of entries that were dropped, for a share of the pass. Nobody waits for it.
pub(super) fn reclaim(host: &mut HostState) {
    let left = host.tables.dropped_left();
    if left == 0 {
        return;
    }
    begin_share(host, left);
    while host.tables.reclaim(&mut host.store) {
        host.budget.spend(RECLAIM_NS);
        if host.budget.is_spent() {
            break;
        }
    }
}

/// Begins to delete some of the records that wait for it: for a quarter of a stage, and longer if
/// many wait. So the share grows with what turns leave, and the store does not fill up with it.
fn begin_share(host: &mut HostState, waiting: usize) {
    let quarter_us = host.limits.host().pass_us / 4;
    host.budget.begin(quarter_us.max((waiting / SHARES) as u64 * RECLAIM_NS / 1000));
}
