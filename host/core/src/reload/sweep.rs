//! Sweeps: conversion of stored data that nobody reads, a little in each pass.
//!
//! A turn converts what it reads for its own use. A sweep converts what is stored, state by
//! state and entry by entry, so that old versions leave the store and converters can retire. A
//! sweep begins when a build takes charge without a probation, when a build has proved itself,
//! and after a rollback. The start of a probation stops it.
//!
//! A pass looks at most at [`SWEPT_PER_PASS`] sessions and entries of one service, the newest
//! sweep first. While a sweep is under way, passes follow each other without sleep.
//!
//! Data that cannot be converted stays as it is, and is reported when a turn reads it. If such
//! data is of a newer version, the converters stay, too. Each conversion is committed with its
//! pass. Progress itself is not stored: a successor begins again, and passes over what has the
//! served version.

use crate::execute::Executor;
use crate::execute::call::rehearse;
use crate::host_state::HostState;
use crate::host_state::state::write_state;
use crate::ids::{ServiceId, Slot};
use crate::service::convert::{Reread, convert_value};
use crate::service::registry::Writer;
use crate::session::blocked::Blocked;
use crate::session::life::Life;
use crate::tables::index::Tables;
use greenroom_state::compatibility::TableShape;

/// Kind of action that the board names while a session's state is read without an action.
const READ: u32 = 0;
/// Most sessions and entries that a pass looks at, converted or not. Bounds what a sweep adds
/// to a pass.
const SWEPT_PER_PASS: usize = 64;

/// Progress of one service's sweep: sessions first, by number, then tables, by key.
#[derive(Debug)]
struct Sweep {
    /// Service whose states and tables are swept.
    service: ServiceId,
    /// Number of the last session that is done.
    after: u64,
    /// Number of tables that are done.
    tables: usize,
    /// First key of the table under way that is not done; empty: the first of all.
    from: Vec<u8>,
}

/// Sweeps under way.
#[derive(Debug, Default)]
pub(crate) struct Sweeps {
    /// The newest last.
    all: Vec<Sweep>,
    /// Whether this process has committed a pass. A successor serves first, and converts then.
    committed: bool,
}

impl Sweeps {
    /// Whether a pass is due for sweeps.
    pub(crate) fn are_due(&self) -> bool {
        !self.all.is_empty()
    }

    /// Notes that a pass was committed.
    pub(crate) fn committed(&mut self) {
        self.committed = true;
    }

    /// Begins to convert what a library's services hold in other versions. If a service holds
    /// none, its converters retire at once. O(services × tables).
    pub(crate) fn begin(&mut self, host: &mut HostState, library: &str) {
        self.stop(host, library);
        let mut idle = Vec::new();
        for (id, service) in host.services.numbered().filter(|(_, s)| s.is_of(library)) {
            let wanted = service.offer.shape.version;
            let states = service.stored.keys().any(|v| *v != wanted);
            let other = |t: &TableShape| host.tables.versions(&t.name).iter().any(|v| *v != t.shape.version);
            if states || service.offer.tables.iter().any(other) {
                self.all.push(Sweep { service: id, after: 0, tables: 0, from: Vec::new() });
            } else {
                idle.push(id);
            }
        }
        for service in idle {
            host.services.retire_converters(service);
        }
    }

    /// Stops the sweeps of a library. What is converted stays converted.
    pub(crate) fn stop(&mut self, host: &HostState, library: &str) {
        self.all.retain(|s| !host.services[s.service].is_of(library));
    }

    /// Goes on with the newest sweep, for at most [`SWEPT_PER_PASS`] sessions and entries.
    /// Called when a pass begins.
    pub(crate) fn go_on(&mut self, host: &mut HostState, executor: &mut Executor) {
        if !self.committed {
            return;
        }
        let Some(mut sweep) = self.all.pop() else { return };
        match sweep.go_on(host, executor) {
            true => sweep_is_over(host, sweep.service),
            false => self.all.push(sweep),
        }
    }
}

impl Sweep {
    /// Sweeps a slice of the service. Returns whether all is done.
    fn go_on(&mut self, host: &mut HostState, executor: &mut Executor) -> bool {
        let mut left = SWEPT_PER_PASS;
        let sessions = host.sessions.after(self.after).take(left);
        let sessions: Vec<_> = sessions.map(|(slot, s)| (slot, s.id)).collect();
        for &(slot, id) in &sessions {
            self.after = id;
            left -= 1;
            sweep_session(host, executor, slot, self.service);
        }
        // Sessions that opened meanwhile have higher numbers, so a later slice finds them.
        let all = sessions.len() < SWEPT_PER_PASS;
        while all && left > 0 {
            let service = &host.services[self.service];
            let Some(table) = service.offer.tables.get(self.tables).map(|t| t.name.clone()) else { break };
            let keys: Vec<_> = host
                .tables
                .keys_from(&host.store, &table, &self.from)
                .take(left)
                .map(<[u8]>::to_vec)
                .collect();
            if keys.len() < left {
                self.tables += 1;
                self.from.clear();
            } else if let Some(last) = keys.last() {
                // The least key above the last one.
                self.from = [&last[..], &[0]].concat();
            }
            left -= keys.len();
            for key in keys {
                sweep_entry(host, &table, &key);
            }
        }
        all && self.tables >= host.services[self.service].offer.tables.len()
    }
}

/// Retires the converters of a service whose sweep is over, unless data of a newer version is
/// left.
fn sweep_is_over(host: &mut HostState, service: ServiceId) {
    let s = &host.services[service];
    // Data that could not be converted stays, and so must the builds that know its version.
    let newer = s.stored.keys().any(|v| *v > s.offer.shape.version);
    let newer_entries =
        s.offer.tables.iter().any(|t| host.tables.versions(&t.name).iter().any(|v| *v > t.shape.version));
    if !newer && !newer_entries {
        host.services.retire_converters(service);
    }
}

/// Converts the state of one session, if it is open and holds another version. The handler's
/// code is called as in a rehearsal: with the state and without an action. If the store has no
/// room, the state stays.
fn sweep_session(host: &mut HostState, executor: &mut Executor, slot: Slot, service: ServiceId) {
    let Some(s) = host.sessions.get(slot) else { return };
    // States of a canary's sessions are its own, and the sweep is that of the build that serves.
    if s.service == service && host.services[service].candidate_of(s.id).is_some() {
        return;
    }
    let written = host.services[service].written(Writer::Serving);
    let done = s.state_version == written.version || s.state.is_none();
    if s.service != service || s.life != Life::Open || s.is_blocked(Blocked::Quarantined) || done {
        return;
    }
    // Reading this state has killed a worker twice. Its next turn is judged on its own.
    if host.quarantines.is_blocked(s.id, s.turns, READ) {
        return;
    }
    // An error is left to the next turn, which reports it and quarantines the session.
    let Ok(Reread { after: Some(state), .. }) = rehearse(host, executor, slot) else { return };
    if host.store.reserve([state.len()]) {
        write_state(host, slot, &state, written);
        host.sessions.touch(slot);
    }
}

/// Converts one entry of a table, if it holds another version. If the entry cannot be
/// converted, grows beyond `table_value_bytes_max`, or finds no room, it stays as it is.
fn sweep_entry(host: &mut HostState, table: &str, key: &[u8]) {
    let mut value = Vec::new();
    let Some(stored) = host.tables.get(&host.store, table, key, &mut value) else { return };
    let converted = convert_value(&host.services, &host.owners, table, stored, &value);
    let (Ok(Some(value)), Some(owner)) = (converted, host.owners.get(table)) else { return };
    let (version, until) = (owner.version, host.tables.until(&host.store, table, key));
    if value.len() <= host.limits.host().table_value_bytes_max
        && host.store.reserve([Tables::record_bytes(until, table, key, value.len())])
    {
        let put = host.tables.put_until(&mut host.store, (table, key), version, &value, until);
        debug_assert!(put.is_ok(), "room was reserved before");
    }
}
