//! Data of one version is made into data of another: what a newer build left is taken back by that build's own downgrades, what an
//! older one left is migrated by the build that serves.
//!
//! It happens when something is read, and for what nobody reads by a sweep, a little in each pass: after a build has proved itself,
//! and after a build was rolled back.

use crate::core::Core;
use crate::ids::{ServiceId, Slot};
use crate::service::registry::{Service, Writer};
use crate::session::life::Life;
use crate::store::kind::Kind;
use crate::tables::entry::version_of;
use crate::tables::owner::{Owner, Owners};

/// What the board says of a batch without actions.
const READ: u32 = 0;
/// Sessions or entries that a pass looks at beside its work.
const SWEPT_PER_PASS: usize = 64;

/// What is still to be swept of one service.
#[derive(Debug)]
pub(crate) struct Sweep {
    service: ServiceId,
    /// Sessions up to this number are done.
    after: u64,
    /// Tables that are done; the keys of the next one before this are done.
    tables: usize,
    from: Vec<u8>,
}

/// A copy of what was read, before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reread {
    /// As it was stored, with its version; `None`: nothing was stored.
    pub before: Option<(u32, Vec<u8>)>,
    /// As the build that serves would store it; `None`: it keeps nothing.
    pub after: Option<Vec<u8>>,
}

/// A stored value of a table in its owner's version; `Ok(None)`: it is that already, or nobody owns the table.
pub(crate) fn convert_value(
    services: &[Service],
    owners: &Owners,
    table: &str,
    stored: u32,
    value: &[u8],
) -> Result<Option<Vec<u8>>, String> {
    let Some(owner) = owners.get(table).filter(|o| o.version != version_of(stored)) else { return Ok(None) };
    value_for(services, owner, table, version_of(stored), value).map(Some)
}

/// As [`convert_value`], by the table's owner; a value that is of its version already is read and written.
pub(crate) fn value_for(
    services: &[Service],
    owner: &Owner,
    table: &str,
    stored: u32,
    value: &[u8],
) -> Result<Vec<u8>, String> {
    let service = &services[usize::from(owner.service.0)];
    if stored <= owner.version {
        return service.code.convert(owner.which, stored, owner.version, value);
    }
    // A converter may count its tables otherwise.
    let knows = service.converters.iter().rev().find_map(|c| {
        let at = c.offer.tables.iter().position(|t| t.name == table)?;
        c.offer.tables[at].shape.converts(stored, owner.version).ok().map(|()| (c, at as u32 + 1))
    });
    let (converter, which) = knows.ok_or_else(|| no_way(stored, owner.version))?;
    let value = converter.code.convert(which, stored, owner.version, value)?;
    // Read and written by who is to serve it.
    service.code.convert(owner.which, owner.version, owner.version, &value)
}

fn no_way(stored: u32, wanted: u32) -> String {
    format!("it is of version {stored}, and no build at hand makes it into version {wanted}")
}

impl Service {
    /// A state of a newer version in the one that is wanted, by the build that left it.
    pub(crate) fn left_by_newer(&self, stored: u32, wanted: u32, state: &[u8]) -> Result<Vec<u8>, String> {
        let knows =
            |c: &&crate::service::registry::LoadedBuild| c.offer.shape.converts(stored, wanted).is_ok();
        let converter = self.converters.iter().rev().find(knows);
        converter.ok_or_else(|| no_way(stored, wanted))?.code.convert(0, stored, wanted, state)
    }
}

impl Core {
    /// Makes a state that a newer build left into what the build that serves reads, in [`Core`]'s own copy. Returns the version that
    /// the copy has then. States of older versions stay: the build migrates them itself.
    pub(crate) fn take_back(&mut self, service: ServiceId, stored: u32) -> Result<u32, String> {
        let service = &self.services[usize::from(service.0)];
        let wanted = service.offer.shape.version;
        if stored <= wanted || service.converters.is_empty() {
            return Ok(stored);
        }
        self.state = service.left_by_newer(stored, wanted, &self.state)?;
        Ok(wanted)
    }

    /// As the build that serves a service says; see [`crate::turn::code::Code::convert`].
    pub fn convert(
        &self,
        service: ServiceId,
        which: u32,
        from: u32,
        to: u32,
        value: &[u8],
    ) -> Result<Vec<u8>, String> {
        self.services[usize::from(service.0)].code.convert(which, from, to, value)
    }

    /// Has a table's owner read a value that was stored in a version, and migrate it if it must, as the next turn that reads it would.
    /// Returns what it would store.
    pub fn rehearse_entry(&self, table: &str, stored: u32, value: &[u8]) -> Result<Vec<u8>, String> {
        let owner = self.owners.get(table).ok_or("nobody owns the table")?;
        let after = value_for(&self.services, owner, table, version_of(stored), value)?;
        if after.len() > self.limits.table_value_bytes_max {
            return Err("it would be over limit table_value_bytes_max".into());
        }
        Ok(after)
    }

    /// Who owns which table.
    pub fn owners(&self) -> &Owners {
        &self.owners
    }

    /// Notes which tables the services of a library own now.
    pub(crate) fn own_tables(&mut self, library: &str) {
        for (number, service) in self.services.iter().enumerate() {
            let id = ServiceId(number as u16);
            if service.build.is_some() && !service.is_of(library) {
                continue;
            }
            self.owners.retain(|_, o| o.service != id);
            if service.build.is_none() {
                continue;
            }
            for (at, table) in service.offer.tables.iter().enumerate() {
                let owner = Owner { service: id, which: at as u32 + 1, version: table.shape.version };
                self.owners.insert(table.name.as_str().into(), owner);
            }
        }
    }

    /// Converts what a library's services left in other versions, in the passes to come.
    pub(crate) fn sweep(&mut self, library: &str) {
        self.stop_sweeps(library);
        let mut idle = Vec::new();
        for (number, service) in self.services.iter().enumerate().filter(|(_, s)| s.is_of(library)) {
            let service_id = ServiceId(number as u16);
            let wanted = service.offer.shape.version;
            let states = service.stored.keys().any(|v| *v != wanted);
            let other = |t: &greenroom_state::compatibility::TableShape| {
                self.tables.versions(&t.name).iter().any(|v| *v != t.shape.version)
            };
            if states || service.offer.tables.iter().any(other) {
                self.sweeps.push(Sweep { service: service_id, after: 0, tables: 0, from: Vec::new() });
            } else {
                idle.push(service_id);
            }
        }
        for service in idle {
            self.retire_converters(service);
        }
    }

    pub(crate) fn stop_sweeps(&mut self, library: &str) {
        let Core { sweeps, services, .. } = self;
        sweeps.retain(|s| !services[usize::from(s.service.0)].is_of(library));
    }

    fn retire_converters(&mut self, service: ServiceId) {
        let converters = std::mem::take(&mut self.services[usize::from(service.0)].converters);
        self.retired.extend(converters);
    }

    /// A part of the sweeps under way.
    pub(crate) fn sweep_on(&mut self) {
        let Some(mut sweep) = self.sweeps.pop() else { return };
        let mut left = SWEPT_PER_PASS;
        let sessions: Vec<_> =
            self.sessions.after(sweep.after).take(left).map(|(slot, s)| (slot, s.id)).collect();
        for &(slot, id) in &sessions {
            sweep.after = id;
            left -= 1;
            self.sweep_session(slot, sweep.service);
        }
        let mut all = sessions.len() < SWEPT_PER_PASS;
        while all && left > 0 {
            let service = &self.services[usize::from(sweep.service.0)];
            let Some(table) = service.offer.tables.get(sweep.tables).map(|t| t.name.clone()) else { break };
            let keys: Vec<_> =
                self.tables.keys_from(&table, &sweep.from).take(left).map(<[u8]>::to_vec).collect();
            if keys.len() < left {
                sweep.tables += 1;
                sweep.from.clear();
            } else if let Some(last) = keys.last() {
                sweep.from = [&last[..], &[0]].concat();
            }
            left -= keys.len();
            for key in keys {
                self.sweep_entry(&table, &key);
            }
        }
        all &= sweep.tables >= self.services[usize::from(sweep.service.0)].offer.tables.len();
        match all {
            true => self.sweep_is_over(sweep.service),
            false => self.sweeps.push(sweep),
        }
    }

    fn sweep_is_over(&mut self, service: ServiceId) {
        let s = &self.services[usize::from(service.0)];
        // What couldn't be converted stays as it is, and so does what may be needed for it.
        let newer = s.stored.keys().any(|v| *v > s.offer.shape.version);
        let newer_entries =
            s.offer.tables.iter().any(|t| self.tables.versions(&t.name).iter().any(|v| *v > t.shape.version));
        if !newer && !newer_entries {
            self.retire_converters(service);
        }
    }

    fn sweep_session(&mut self, slot: Slot, service: ServiceId) {
        let Some(s) = self.sessions.get(slot) else { return };
        let written = self.services[usize::from(service.0)].written(Writer::Serving);
        let done = s.state_version == written.version || s.state.is_none();
        if s.service != service || s.life != Life::Open || s.quarantined.is_some() || done {
            return;
        }
        // Reading it has killed the process, twice; its next turn is another matter.
        let kills = |w: &crate::session::quarantine::BlockedAction| w.turn == s.turns && w.action == READ;
        if self.withheld.get(&s.id).is_some_and(|all| all.iter().any(kills)) {
            return;
        }
        // Its next turn would find out what is wrong with it, and say so.
        let Ok(Reread { after: Some(state), .. }) = self.rehearse(slot) else { return };
        if !self.store.reserve([state.len()]) {
            return;
        }
        self.write_state(slot, &state, written);
        self.touch(slot);
    }

    fn sweep_entry(&mut self, table: &str, key: &[u8]) {
        let mut value = Vec::new();
        let Some(stored) = self.tables.get(&self.store, table, key, &mut value) else { return };
        let Ok(Some(value)) = convert_value(&self.services, &self.owners, table, stored, &value) else {
            return;
        };
        let Some(owner) = self.owners.get(table) else { return };
        let version = owner.version;
        if value.len() <= self.limits.table_value_bytes_max
            && self.store.reserve([key.len() + table.len() + value.len() + 3])
        {
            let put = self.tables.put(&mut self.store, table, key, version, &value);
            debug_assert!(put.is_ok(), "room was made sure of before");
        }
    }

    /// The version that a value of a table has which a build of a service writes.
    pub(crate) fn version_written(&self, writer: Writer, service: ServiceId, table: &str) -> u32 {
        if writer == Writer::Before
            && let Some((before, which)) = self.owner_before(service, table)
        {
            return before.offer.tables[which].shape.version;
        }
        self.owners.get(table).map_or(0, |o| o.version)
    }

    /// Writes a session's state. There must be room.
    pub(crate) fn write_state(
        &mut self,
        slot: Slot,
        state: &[u8],
        written: crate::service::registry::Written,
    ) {
        let Some(s) = self.sessions.get_mut(slot) else { return };
        s.state =
            Some(self.store.put(s.state, Kind::State, s.id, state).expect("room was made sure of before"));
        let from = std::mem::replace(&mut s.state_version, written.version);
        s.state_fingerprint = written.fingerprint;
        self.services[usize::from(s.service.0)].count_stored(from, written.version);
    }
}
