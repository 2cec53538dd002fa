//! States and tables are put back as an operator gives them: each item is checked by the code that serves, then all of them become
//! valid in one epoch, or none.
//!
//! The shell has items checked ([`Core::check_state`], [`Core::check_entry`]), a few in a pass, and gathers what they would be stored
//! as in a [`Plan`]. Nothing of it is kept here meanwhile; so what was checked by a build that no longer serves is refused when the
//! plan is carried out.

use crate::Core;
use crate::convert::value_for;
use crate::reload::{Outcome, Report};
use crate::service::{Build, Writer};
use crate::session::{Life, ServiceId, Slot};
use crate::tables::{Owner, overhead, version_of};
use greenroom_state::record;
use greenroom_state::schema::Schema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Items that one slice looks at.
pub const ITEMS_PER_SLICE: usize = 64;
/// Sessions that a report names.
const NAMED_MAX: usize = 100;
/// Another build serves than the one that has checked it.
pub const MEANWHILE: &str = "a reload was committed meanwhile; try again";

/// A state as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenState {
    /// For this session.
    pub session: u64,
    /// Which must be of this service.
    pub service: String,
    /// Its version, and MessagePack; `None`: the session is to have none.
    pub state: Option<(u32, Vec<u8>)>,
}

/// An entry as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenEntry {
    /// Its key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
    /// The value's version; `None`: the one that the table's owner writes.
    pub version: Option<u32>,
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// Its session is gone.
    Gone,
    /// It can be stored, as this; `None`: nothing.
    Fits {
        /// What the code that serves makes of it, with its version.
        kept: Option<(u32, Vec<u8>)>,
        /// It was given in the version that is served, so nothing of it may be lost.
        served: bool,
    },
    /// It can't be read, and is what is stored: it stays as it is.
    Stays,
    /// The code that serves can't read it, in its words, although it was given in the version that is served.
    Unreadable(String),
    /// It can't be stored, for this reason.
    Refused(String),
}

/// The builds that have checked something, by their services' names.
pub type Builds = BTreeMap<String, Build>;

/// A state that is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedState {
    /// For this session.
    pub session: u64,
    /// With its version; `None`: none.
    pub kept: Option<(u32, Vec<u8>)>,
    /// As it was given, if that differs: a session that has it is left alone.
    pub given: Option<(u32, Vec<u8>)>,
}

/// An entry that is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedEntry {
    /// With its version.
    pub kept: (u32, Vec<u8>),
    /// As it was given, if that differs.
    pub given: Option<(u32, Vec<u8>)>,
}

/// What a table is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlannedTable {
    /// Its name.
    pub name: String,
    /// Who owned it when it was checked.
    pub owner: Option<Owner>,
    /// All of its entries.
    pub entries: BTreeMap<Vec<u8>, PlannedEntry>,
}

/// All that is to be stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The states.
    pub states: Vec<PlannedState>,
    /// The tables; others stay as they are.
    pub tables: Vec<PlannedTable>,
    /// The builds that have checked it.
    pub builds: Builds,
    /// Sessions that were gone when they were looked for.
    pub gone: Vec<u64>,
}

/// What a plan would change, as far as that was looked at.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    at: At,
    /// States to be written, by their places in the plan.
    states: Vec<(Slot, usize)>,
    gone: Vec<u64>,
    quarantined: Vec<u64>,
    unchanged: usize,
    tables: Vec<TableSurvey>,
}

/// How far a survey has come: the place of a state; then of a table, and a key there, of the plan's and then of the table's.
#[derive(Debug, Clone, Default)]
struct At {
    state: usize,
    table: usize,
    stored: bool,
    key: Vec<u8>,
}

#[derive(Debug, Clone, Default)]
struct TableSurvey {
    puts: Vec<Vec<u8>>,
    deletes: Vec<Vec<u8>>,
    unchanged: usize,
    bytes: usize,
}

/// What was put back, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// The dump's file; `None`: fields were set.
    pub file: Option<String>,
    /// The session whose fields were set.
    pub session: Option<u64>,
    /// Those fields.
    pub fields: Vec<String>,
    /// Sessions whose states were changed, or removed.
    pub changed: usize,
    /// Sessions that had just that state.
    pub unchanged: usize,
    /// Sessions that are gone.
    pub missing: usize,
    /// The first hundred of them.
    pub missing_ids: Vec<u64>,
    /// The first of the sessions that were changed and are quarantined: they wait to be released.
    pub quarantined_ids: Vec<u64>,
    /// What became of tables.
    pub tables: BTreeMap<String, RestoredTable>,
}

/// What became of a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredTable {
    /// Entries that are new or have another value.
    pub put: usize,
    /// Entries that are gone.
    pub deleted: usize,
    /// Entries that were so already.
    pub unchanged: usize,
}

/// What is to be said of data that a newer build wrote.
fn newer(why: &str) -> String {
    format!("{why}; put it back while a build of that version serves")
}

impl Restored {
    /// A report for the ledger.
    pub fn report(self, outcome: Outcome, reason: String, services: Vec<String>) -> Report {
        Report {
            outcome,
            library: String::new(),
            services,
            generation: 0,
            build: String::new(),
            build_id: None,
            versions: BTreeMap::new(),
            verdict: None,
            sessions: self.changed,
            quarantined: self.quarantined_ids.len(),
            migrated: 0,
            rehearsal_ms: 0,
            line: 0,
            pause_us: 0.0,
            reason,
            rehearsal: None,
            probation: None,
            restored: Some(Box::new(self)),
        }
    }
}

impl Survey {
    /// What it has found.
    pub fn found(&self, plan: &Plan) -> Restored {
        let gone = || plan.gone.iter().chain(&self.gone).copied();
        let table = |(planned, t): (&PlannedTable, &TableSurvey)| {
            let counts =
                RestoredTable { put: t.puts.len(), deleted: t.deletes.len(), unchanged: t.unchanged };
            (planned.name.clone(), counts)
        };
        Restored {
            changed: self.states.len(),
            unchanged: self.unchanged,
            missing: gone().count(),
            missing_ids: gone().take(NAMED_MAX).collect(),
            quarantined_ids: self.quarantined.iter().take(NAMED_MAX).copied().collect(),
            tables: plan.tables.iter().zip(&self.tables).map(table).collect(),
            ..Restored::default()
        }
    }
}

impl Core {
    /// Checks a state: what would be stored of it. Nothing of it is kept.
    pub fn check_state(&mut self, given: &GivenState, builds: &mut Builds) -> Checked {
        let Some((slot, service)) = self.restorable(given.session) else { return Checked::Gone };
        let s = &self.services[usize::from(service.0)];
        let name = &s.offer.name;
        if *name != given.service {
            return Checked::Refused(format!("it is of service {name} now"));
        }
        let Some(build) = s.build.clone() else {
            return Checked::Refused("no library serves it".into());
        };
        let (wanted, generation) = (s.offer.shape.version, build.generation);
        builds.insert(name.clone(), build);
        let Some((version, packed)) = &given.state else {
            return Checked::Fits { kept: None, served: false };
        };
        if *version == 0 {
            return Checked::Refused(format!(
                "state_version 0 says that there is no state, and there is one; generation {generation} writes version {wanted}"
            ));
        }
        let served = *version == wanted;
        match self.reread(slot, service, *version, packed) {
            Ok(None) => {
                Checked::Refused("its service keeps no state, or doesn't hand over what it has read".into())
            }
            Ok(Some(kept)) if kept.len() > self.limits.state_bytes_max => Checked::Refused(format!(
                "it would have {} bytes (limit state_bytes_max: {})",
                kept.len(),
                self.limits.state_bytes_max
            )),
            Ok(Some(kept)) => Checked::Fits { kept: Some((wanted, kept)), served },
            Err(_) if self.has_state(slot, Some((*version, packed))) => Checked::Stays,
            Err(why) if served => Checked::Unreadable(why),
            Err(why) if *version > wanted => Checked::Refused(newer(&why)),
            Err(why) => Checked::Refused(format!(
                "it is of version {version}, and generation {generation} can't make version {wanted} of it: {why}"
            )),
        }
    }

    /// The open session of a number.
    fn restorable(&self, session: u64) -> Option<(Slot, ServiceId)> {
        let slot = self.sessions.slot_of(session)?;
        let s = self.sessions.get(slot)?;
        (s.life == Life::Open && !s.is_service()).then_some((slot, s.service))
    }

    /// Has the code that serves a session read a state as if it were stored, and write it.
    fn reread(
        &mut self,
        slot: Slot,
        service: ServiceId,
        version: u32,
        packed: &[u8],
    ) -> Result<Option<Vec<u8>>, String> {
        let s = &self.services[usize::from(service.0)];
        let wanted = s.offer.shape.version;
        self.state.clear();
        match version > wanted {
            true => self.state = s.left_by_newer(version, wanted, packed)?,
            false => self.state.extend_from_slice(packed),
        }
        let mut buffers = self.buffers.take().unwrap_or_default();
        // A batch without actions: libraries of ABI 1.0 convert nothing, and whatever it does is known to be this session's.
        self.run_serving(slot, &[], &mut buffers, Some(version.min(wanted)));
        let fault = buffers.fault.take();
        let kept = buffers.has_state.then(|| buffers.state.clone());
        self.buffers = Some(buffers);
        fault.map_or(Ok(kept), |fault| Err(fault.message))
    }

    /// Whether that is what a session has; `None`: it has no state.
    fn has_state(&self, slot: Slot, state: Option<(u32, &[u8])>) -> bool {
        let Some(s) = self.sessions.get(slot) else { return false };
        match (s.state, state) {
            (None, None) => true,
            (Some(r), Some((version, bytes))) => {
                s.state_version == version && self.store.read(r, |b| b == bytes)
            }
            _ => false,
        }
    }

    /// Checks an entry of a table: what would be stored of it. Nothing of it is kept.
    pub fn check_entry(&self, table: &str, given: &GivenEntry, builds: &mut Builds) -> Checked {
        let limits = &self.limits;
        if given.key.len() > limits.table_key_bytes_max {
            return Checked::Refused(format!(
                "its key has {} bytes (limit table_key_bytes_max: {})",
                given.key.len(),
                limits.table_key_bytes_max
            ));
        }
        let (kept, served) = match self.owners.get(table) {
            None => ((given.version.unwrap_or(0), given.value.clone()), false),
            Some(owner) => {
                let s = &self.services[usize::from(owner.service.0)];
                if let Some(build) = &s.build {
                    builds.insert(s.offer.name.clone(), build.clone());
                }
                let version = version_of(given.version.unwrap_or(owner.version));
                match value_for(&self.services, owner, table, version, &given.value) {
                    Ok(kept) => ((owner.version, kept), version == owner.version),
                    Err(_) if self.has_entry(table, &given.key, (version, &given.value[..])) => {
                        return Checked::Stays;
                    }
                    Err(why) if version == owner.version => return Checked::Unreadable(why),
                    Err(why) if version > owner.version => return Checked::Refused(newer(&why)),
                    Err(why) => {
                        return Checked::Refused(format!(
                            "it is of version {version}, and service {} can't make version {} of it: {why}",
                            s.offer.name, owner.version
                        ));
                    }
                }
            }
        };
        if kept.1.len() > limits.table_value_bytes_max {
            return Checked::Refused(format!(
                "its value would have {} bytes (limit table_value_bytes_max: {})",
                kept.1.len(),
                limits.table_value_bytes_max
            ));
        }
        Checked::Fits { kept: Some(kept), served }
    }

    fn has_entry(&self, table: &str, key: &[u8], (version, bytes): (u32, &[u8])) -> bool {
        let mut value = Vec::new();
        let stored = self.tables.get(&self.store, table, key, &mut value);
        stored.is_some_and(|stored| version_of(stored) == version_of(version)) && value == bytes
    }

    /// The version of an entry's value, where it isn't the one that the table's owner writes.
    pub fn other_version(&self, table: &str, key: &[u8]) -> Option<u32> {
        let stored = self.tables.get(&self.store, table, key, &mut Vec::new())?;
        match self.owners.get(table) {
            None => Some(stored).filter(|v| *v != 0),
            Some(owner) => Some(version_of(stored)).filter(|v| *v != owner.version),
        }
    }

    /// The schema of a service's states, or of a table's values.
    pub fn schema(&self, service: Option<&str>, table: Option<&str>) -> Option<&Schema> {
        let shape = match (service, table) {
            (_, Some(table)) => {
                let owner = self.owners.get(table)?;
                let tables = &self.services[usize::from(owner.service.0)].offer.tables;
                &tables.get(owner.which as usize - 1)?.shape
            }
            (Some(name), None) => &self.services.iter().find(|s| s.offer.name == name)?.offer.shape,
            (None, None) => return None,
        };
        shape.schema.as_ref()
    }

    /// Looks at so many items of a plan: what it would change. True: at all of them.
    pub fn survey(&self, plan: &Plan, survey: &mut Survey, items: usize) -> bool {
        let mut left = items;
        while left > 0 && survey.at.state < plan.states.len() {
            self.survey_state(plan, survey);
            left -= 1;
        }
        while left > 0 && survey.at.table < plan.tables.len() {
            left = self.survey_table(&plan.tables[survey.at.table], survey, left);
        }
        survey.at.state == plan.states.len() && survey.at.table == plan.tables.len()
    }

    fn survey_state(&self, plan: &Plan, survey: &mut Survey) {
        let place = survey.at.state;
        survey.at.state += 1;
        let planned = &plan.states[place];
        let Some((slot, _)) = self.restorable(planned.session) else {
            return survey.gone.push(planned.session);
        };
        let is = |state: &Option<(u32, Vec<u8>)>| {
            self.has_state(slot, state.as_ref().map(|(version, bytes)| (*version, &bytes[..])))
        };
        if is(&planned.kept) || (planned.given.is_some() && is(&planned.given)) {
            survey.unchanged += 1;
            return;
        }
        survey.states.push((slot, place));
        if self.quarantined.contains(&slot) {
            survey.quarantined.push(planned.session);
        }
    }

    /// Returns how many items are left to be looked at.
    fn survey_table(&self, planned: &PlannedTable, survey: &mut Survey, mut left: usize) -> usize {
        let at = &mut survey.at;
        if survey.tables.len() == at.table {
            survey.tables.push(TableSurvey::default());
        }
        let found = &mut survey.tables[at.table];
        if !at.stored {
            for (key, entry) in planned.entries.range(at.key.clone()..) {
                if left == 0 {
                    at.key.clone_from(key);
                    return 0;
                }
                left -= 1;
                let has =
                    |(version, bytes): &(u32, Vec<u8>)| self.has_entry(&planned.name, key, (*version, bytes));
                match has(&entry.kept) || entry.given.as_ref().is_some_and(has) {
                    true => {
                        found.unchanged += 1;
                        found.bytes += self.tables.entry_bytes(&self.store, &planned.name, key);
                    }
                    false => {
                        found.bytes += key.len() + entry.kept.1.len();
                        found.puts.push(key.clone());
                    }
                }
            }
            (at.stored, at.key) = (true, Vec::new());
        }
        for key in self.tables.keys_from(&planned.name, &at.key.clone()) {
            if left == 0 {
                at.key = key.to_vec();
                return 0;
            }
            left -= 1;
            if !planned.entries.contains_key(key) {
                found.deletes.push(key.to_vec());
            }
        }
        *at = At { state: at.state, table: at.table + 1, ..At::default() };
        left
    }

    /// Whether all that a survey found can be stored, and was checked by the builds that serve. The error is a sentence.
    pub fn has_room(&mut self, plan: &Plan, survey: &Survey) -> Result<(), String> {
        for (name, build) in &plan.builds {
            let serves = self.services.iter().find(|s| s.offer.name == *name).and_then(|s| s.build.as_ref());
            if serves != Some(build) {
                return Err(MEANWHILE.into());
            }
        }
        let max = self.limits.table_bytes_max;
        let mut tables = self.tables.len();
        for (planned, found) in plan.tables.iter().zip(&survey.tables) {
            let PlannedTable { name, owner, entries } = planned;
            if self.owners.get(&**name) != owner.as_ref() {
                return Err(MEANWHILE.into());
            }
            if found.bytes > max && !found.puts.is_empty() {
                let bytes = found.bytes;
                return Err(format!("table {name} would have {bytes} bytes (limit table_bytes_max: {max})"));
            }
            match (self.tables.contains(name), entries.is_empty()) {
                (true, true) => tables -= 1,
                (false, false) => tables += 1,
                _ => {}
            }
        }
        if tables > self.limits.tables_max && tables > self.tables.len() {
            return Err(format!(
                "there would be {tables} tables (limit tables_max: {})",
                self.limits.tables_max
            ));
        }
        let states = survey.states.iter().flat_map(|(_, place)| {
            let state = plan.states[*place].kept.as_ref().map(|(_, bytes)| bytes.len());
            state.into_iter().chain([record::SIZE])
        });
        let entries = plan.tables.iter().zip(&survey.tables).flat_map(|(planned, found)| {
            let len = |key: &Vec<u8>| overhead(&planned.name, key) + planned.entries[key].kept.1.len();
            found.puts.iter().map(len)
        });
        match self.store.reserve(states.chain(entries)) {
            true => Ok(()),
            false => Err("there is no room for all of it (limit store_bytes_max)".into()),
        }
    }

    /// Stores all of a plan that differs from what is there, or nothing. It counts with the next commit, as anything does. The error
    /// is a sentence.
    pub fn restore(&mut self, plan: &Plan) -> Result<Restored, String> {
        let mut survey = Survey::default();
        self.survey(plan, &mut survey, usize::MAX);
        self.has_room(plan, &survey)?;
        for &(slot, place) in &survey.states {
            match &plan.states[place].kept {
                Some((_, bytes)) => self.put_state_back(slot, bytes),
                None => self.remove_state(slot),
            }
        }
        let room = "room was made sure of before";
        for (planned, found) in plan.tables.iter().zip(&survey.tables) {
            let Core { tables, store, .. } = self;
            for key in &found.puts {
                let (version, bytes) = &planned.entries[key].kept;
                tables.put(store, &planned.name, key, *version, bytes).expect(room);
            }
            for key in &found.deletes {
                tables.delete(store, &planned.name, key);
            }
        }
        Ok(survey.found(plan))
    }

    fn put_state_back(&mut self, slot: Slot, bytes: &[u8]) {
        let Some(s) = self.sessions.get(slot) else { return };
        let written = self.services[usize::from(s.service.0)].written(Writer::Serving);
        // The session's record says no more of its state than this.
        let as_it_was = (s.state_version, s.state_fingerprint) == (written.version, written.fingerprint);
        self.write_state(slot, bytes, written);
        if !as_it_was {
            self.touch(slot);
        }
    }

    /// The session goes on as one that never stored a state.
    fn remove_state(&mut self, slot: Slot) {
        let Some(s) = self.sessions.get_mut(slot) else { return };
        let Some(r) = s.state.take() else { return };
        self.store.delete(r);
        let from = std::mem::take(&mut s.state_version);
        s.state_fingerprint = 0;
        self.services[usize::from(s.service.0)].count_stored(from, 0);
        self.touch(slot);
    }
}
