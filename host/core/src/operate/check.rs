//! Checks states and entries that an operator wants to write. Nothing of them is kept here.

use crate::execute::Executor;
use crate::execute::call::reread;
use crate::host_state::HostState;
use crate::ids::{ServiceId, Slot};
use crate::service::convert::value_for;
use crate::service::offer::Build;
use crate::session::life::Life;
use crate::tables::entry::version_of;
use crate::tables::owner::Owner;
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
    /// The code that serves can't read it, in its words, although it was given in the version that
    /// is served.
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

/// Checks a state: what would be stored of it.
pub(crate) fn check_state(
    host: &HostState,
    executor: &mut Executor,
    given: &GivenState,
    builds: &mut Builds,
) -> Checked {
    let Some((slot, service)) = restorable(host, given.session) else { return Checked::Gone };
    let s = &host.services[service];
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
    let most = host.limits.of(service).state_bytes_max;
    match reread(host, executor, slot, service, (*version, packed)) {
        Ok(None) => {
            Checked::Refused("its service keeps no state, or doesn't hand over what it has read".into())
        }
        Ok(Some(kept)) if kept.len() > most => {
            Checked::Refused(format!("it would have {} bytes (limit state_bytes_max: {most})", kept.len()))
        }
        Ok(Some(kept)) => Checked::Fits { kept: Some((wanted, kept)), served },
        Err(_) if has_state(host, slot, Some((*version, packed))) => Checked::Stays,
        Err(why) if served => Checked::Unreadable(why),
        Err(why) if *version > wanted => Checked::Refused(newer(&why)),
        Err(why) => Checked::Refused(format!(
            "it is of version {version}, and generation {generation} can't make version {wanted} of it: {why}"
        )),
    }
}

/// The open session of a number.
pub(super) fn restorable(host: &HostState, session: u64) -> Option<(Slot, ServiceId)> {
    let slot = host.sessions.slot_of(session)?;
    let s = host.sessions.get(slot)?;
    (s.life == Life::Open && !s.is_service()).then_some((slot, s.service))
}

/// Whether a session has this state; `None`: it has none.
pub(super) fn has_state(host: &HostState, slot: Slot, state: Option<(u32, &[u8])>) -> bool {
    let Some(s) = host.sessions.get(slot) else { return false };
    match (s.state, state) {
        (None, None) => true,
        (Some(r), Some((version, bytes))) => s.state_version == version && host.store.read(r, |b| b == bytes),
        _ => false,
    }
}

/// Checks an entry of a table: what would be stored of it.
pub(crate) fn check_entry(host: &HostState, table: &str, given: &GivenEntry, builds: &mut Builds) -> Checked {
    let limits = host.limits.host();
    let over = |what: &str, bytes: usize, limit: &str, max: usize| {
        Checked::Refused(format!("{what} {bytes} bytes (limit {limit}: {max})"))
    };
    let key_max = limits.table_key_bytes_max;
    if given.key.len() > key_max {
        return over("its key has", given.key.len(), "table_key_bytes_max", key_max);
    }
    let (kept, served) = match host.owners.get(table) {
        // The bytes are shown as a text then, and can't be told from one.
        None if is_no_value(host, table, &given.key) => {
            return Checked::Refused("what is stored is no MessagePack; leave the table out".into());
        }
        None => ((given.version.unwrap_or(0), given.value.clone()), false),
        Some(owner) => match check_owned(host, table, owner, given, builds) {
            Ok(checked) => checked,
            Err(checked) => return checked,
        },
    };
    let value_max = limits.table_value_bytes_max;
    if kept.1.len() > value_max {
        return over("its value would have", kept.1.len(), "table_value_bytes_max", value_max);
    }
    Checked::Fits { kept: Some(kept), served }
}

/// The value that a table's owner would store, with its version; and whether it was given in that
/// version. `Err`: why there is none.
fn check_owned(
    host: &HostState,
    table: &str,
    owner: &Owner,
    given: &GivenEntry,
    builds: &mut Builds,
) -> Result<((u32, Vec<u8>), bool), Checked> {
    let s = &host.services[owner.service];
    if let Some(build) = &s.build {
        builds.insert(s.offer.name.clone(), build.clone());
    }
    let version = version_of(given.version.unwrap_or(owner.version));
    match value_for(&host.services, owner, table, version, &given.value) {
        Ok(kept) => Ok(((owner.version, kept), version == owner.version)),
        Err(_) if has_entry(host, table, &given.key, (version, &given.value[..])) => Err(Checked::Stays),
        Err(why) if version == owner.version => Err(Checked::Unreadable(why)),
        Err(why) if version > owner.version => Err(Checked::Refused(newer(&why))),
        Err(why) => Err(Checked::Refused(format!(
            "it is of version {version}, and service {} can't make version {} of it: {why}",
            s.offer.name, owner.version
        ))),
    }
}

/// Whether an entry is there whose value is no MessagePack.
fn is_no_value(host: &HostState, table: &str, key: &[u8]) -> bool {
    let mut value = Vec::new();
    host.tables.get(&host.store, table, key, &mut value).is_some() && to_json(&value).is_err()
}

/// Whether an entry has this version and value.
pub(super) fn has_entry(host: &HostState, table: &str, key: &[u8], (version, bytes): (u32, &[u8])) -> bool {
    let mut value = Vec::new();
    let stored = host.tables.get(&host.store, table, key, &mut value);
    stored.is_some_and(|stored| version_of(stored) == version_of(version)) && value == bytes
}

/// The version of an entry's value, if the table's owner writes another one.
pub(crate) fn other_version(host: &HostState, table: &str, key: &[u8]) -> Option<u32> {
    let stored = host.tables.get(&host.store, table, key, &mut Vec::new())?;
    match host.owners.get(table) {
        None => Some(stored).filter(|v| *v != 0),
        Some(owner) => Some(version_of(stored)).filter(|v| *v != owner.version),
    }
}

/// The schema of a service's states, or of a table's values.
pub(crate) fn schema<'h>(
    host: &'h HostState,
    service: Option<&str>,
    table: Option<&str>,
) -> Option<&'h Schema> {
    let shape = match (service, table) {
        (_, Some(table)) => {
            let owner = host.owners.get(table)?;
            let tables = &host.services[owner.service].offer.tables;
            &tables.get(owner.which as usize - 1)?.shape
        }
        (Some(name), None) => &host.services.all().iter().find(|s| s.offer.name == name)?.offer.shape,
        (None, None) => return None,
    };
    shape.schema.as_ref()
}
