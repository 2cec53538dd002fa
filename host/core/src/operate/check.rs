//! States and entries as an operator gives them: what the code that serves would store of each. Nothing of it is kept here.

use crate::core::Core;
use crate::ids::{ServiceId, Slot};
use crate::reload::sweep::value_for;
use crate::service::offer::Build;
use crate::session::life::Life;
use crate::tables::entry::version_of;
use greenroom_state::json::to_json;
use greenroom_state::schema::Schema;
use std::collections::BTreeMap;

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

/// What is to be said of data that a newer build wrote.
fn newer(why: &str) -> String {
    format!("{why}; put it back while a build of that version serves")
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
        let most = self.limits_in(service).state_bytes_max;
        match self.reread(slot, service, *version, packed) {
            Ok(None) => {
                Checked::Refused("its service keeps no state, or doesn't hand over what it has read".into())
            }
            Ok(Some(kept)) if kept.len() > most => Checked::Refused(format!(
                "it would have {} bytes (limit state_bytes_max: {most})",
                kept.len()
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
    pub(crate) fn restorable(&self, session: u64) -> Option<(Slot, ServiceId)> {
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
    pub(crate) fn has_state(&self, slot: Slot, state: Option<(u32, &[u8])>) -> bool {
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
            // Its bytes are shown as a text then, and can't be told from one.
            None if self.is_no_value(table, &given.key) => {
                return Checked::Refused("what is stored is no MessagePack; leave the table out".into());
            }
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

    /// Whether an entry is there whose value isn't what values are.
    fn is_no_value(&self, table: &str, key: &[u8]) -> bool {
        let mut value = Vec::new();
        self.tables.get(&self.store, table, key, &mut value).is_some() && to_json(&value).is_err()
    }

    pub(crate) fn has_entry(&self, table: &str, key: &[u8], (version, bytes): (u32, &[u8])) -> bool {
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
}
