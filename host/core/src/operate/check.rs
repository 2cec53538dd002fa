//! Checks of states and entries that an operator wants to write. Nothing of them is kept here.
//!
//! The code that serves reads each item as if it were stored, and writes it again. The result
//! is the one form that can be stored: the code has proved that it can read it. An item of a
//! newer version is first downgraded by a build that was rolled back, if one is at hand. Values
//! of tables without an owner are stored as they are.
//!
//! A check holds only for the build that made it. [`Builds`] collects these builds, and
//! `restore.rs` refuses a plan if another build serves by then.
//!
//! The caller has items checked in slices, between turns. Each item costs a call of the
//! handler, on the loop. If reading a state kills the worker, the board names the session, as
//! for a turn. Nothing is written, so a check may be repeated.

use crate::execute::Executor;
use crate::execute::call::reread;
use crate::host_state::HostState;
use crate::ids::{ServiceId, Slot};
use crate::service::convert::value_for;
use crate::service::offer::Build;
use crate::session::life::Life;
use crate::tables::entry::version_of;
use crate::tables::owner::Owner;
use greenroom_state::abi;
use greenroom_state::json::to_json;
use greenroom_state::same_value::same_with_sets;
use greenroom_state::schema::Schema;
use greenroom_state::sets::Sets;
use std::collections::BTreeMap;

/// State as an operator gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenState {
    /// Number of the session that is to hold it.
    pub session: u64,
    /// Name of the service that the session must be of.
    pub service: String,
    /// Version and state, as MessagePack; `None`: the session is to store none.
    pub state: Option<(u32, Vec<u8>)>,
}

/// Entry of a table as an operator gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenEntry {
    /// Key of the entry.
    pub key: Vec<u8>,
    /// Value, as MessagePack.
    pub value: Vec<u8>,
    /// Version of the value; `None`: the version that the table's owner writes.
    pub version: Option<u32>,
    /// Deadline of the entry, in milliseconds since 1970.
    pub until: Option<u64>,
}

/// Outcome of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// The session is not open, so there is nothing to write to.
    Gone,
    /// The item can be stored.
    Fits {
        /// Version and form that the code that serves makes of it; `None`: no state is to be
        /// stored.
        kept: Option<(u32, Vec<u8>)>,
        /// Whether the item was given in the version that is served. The caller then refuses it
        /// if anything is lost.
        served: bool,
    },
    /// The item cannot be read, but is exactly what is stored, and so stays.
    Stays,
    /// The item is of the version that is served, and the code cannot read it. The words are
    /// the handler's.
    Unreadable(String),
    /// The item cannot be stored, for this reason.
    Refused(String),
}

/// Builds that have checked something, by the names of their services and their generations: a
/// canary has two of one service.
pub type Builds = BTreeMap<(String, u64), Build>;

/// Completes a reason about data that a newer build wrote.
fn newer(why: &str) -> String {
    format!("{why}; put it back while a build of that version serves")
}

/// Checks a state, and returns what would be stored of it. Adds the build that checked to
/// `builds`. Calls the handler; changes nothing.
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
    // Placeholder code would say that the service keeps no state.
    let Some(build) = s.build.clone() else {
        return Checked::Refused("no library serves it".into());
    };
    let runs = s.build_of(given.session);
    let (wanted, generation) = (runs.written.version, runs.generation);
    builds.insert((name.clone(), generation), s.checked_by(given.session, build));
    // Without a state no code is needed: the session goes on as a fresh one.
    let Some((version, packed)) = &given.state else {
        return Checked::Fits { kept: None, served: false };
    };
    // Stored states count from version 1. Version 0 marks a session without a state in a dump.
    if *version == 0 {
        return Checked::Refused(format!(
            "state_version 0 says that there is no state, and there is one; generation {generation} writes version {wanted}"
        ));
    }
    let served = *version == wanted;
    // The form that the code writes counts, and may be longer than what was given.
    let most = host.limits.of(service).state_bytes_max;
    // The call runs as one of this session: the limits of its service hold, and a death is
    // blamed on it.
    match reread(host, executor, slot, service, (*version, packed)) {
        Ok(None) => {
            Checked::Refused("its service keeps no state, or doesn't hand over what it has read".into())
        }
        Ok(Some(kept)) if kept.len() > most => {
            Checked::Refused(format!("it would have {} bytes (limit state_bytes_max: {most})", kept.len()))
        }
        Ok(Some(kept)) => Checked::Fits { kept: Some((wanted, kept)), served },
        // An operator who restores a whole dump is not stopped by a state that was unreadable
        // before.
        Err(_) if has_state(host, slot, Some((*version, packed))) => Checked::Stays,
        Err(why) if served => Checked::Unreadable(why),
        Err(why) if *version > wanted => Checked::Refused(newer(&why)),
        Err(why) => Checked::Refused(format!(
            "it is of version {version}, and generation {generation} can't make version {wanted} of it: {why}"
        )),
    }
}

/// Slot and service of an open session; `None`: no session of that number, a draining one, or a
/// service's own turns.
pub(super) fn restorable(host: &HostState, session: u64) -> Option<(Slot, ServiceId)> {
    let slot = host.sessions.slot_of(session)?;
    let s = host.sessions.get(slot)?;
    (s.life == Life::Open && !s.is_service()).then_some((slot, s.service))
}

/// Whether a session stores exactly this state, version and bytes; `None`: whether it stores
/// none. O(bytes).
pub(super) fn has_state(host: &HostState, slot: Slot, state: Option<(u32, &[u8])>) -> bool {
    let Some(s) = host.sessions.get(slot) else { return false };
    match (s.state, state) {
        (None, None) => true,
        (Some(r), Some((version, bytes))) => s.state_version == version && host.store.read(r, |b| b == bytes),
        _ => false,
    }
}

/// Whether a session stores this state, or one that differs from it only in the order of maps and
/// sets. O(bytes), and O(schema) if the bytes differ.
pub(super) fn has_same_state(host: &HostState, slot: Slot, state: Option<(u32, &[u8])>) -> bool {
    if has_state(host, slot, state) {
        return true;
    }
    let (Some(s), Some((version, bytes))) = (host.sessions.get(slot), state) else { return false };
    let shape = &host.services[s.service].offer.shape;
    let is_of_schema = s.state_version == version && version == shape.version;
    let Some(r) = s.state.filter(|_| is_of_schema) else { return false };
    host.store.read(r, |stored| is_same(stored, bytes, shape.schema.as_ref()))
}

/// Whether two values are equal, but for the order of maps and sets. If a schema does not say which
/// lists are sets, another order is another value: an operator who gives it wants it.
fn is_same(a: &[u8], b: &[u8], schema: Option<&Schema>) -> bool {
    let sets = Sets::of(schema);
    sets.are_exact() && same_with_sets(a, b, &sets)
}

/// Checks an entry of a table, and returns what would be stored of it. Adds the owner's build
/// to `builds`. If the table has no owner, no code is called, and any value fits that is within
/// the limits. Changes nothing.
pub(crate) fn check_entry(host: &HostState, table: &str, given: &GivenEntry, builds: &mut Builds) -> Checked {
    // Tables belong to the host, so the host's limits hold, not those of a service.
    let limits = host.limits.host();
    let over = |what: &str, bytes: usize, limit: &str, max: usize| {
        Checked::Refused(format!("{what} {bytes} bytes (limit {limit}: {max})"))
    };
    let key_max = limits.table_key_bytes_max;
    if given.key.len() > key_max {
        return over("its key has", given.key.len(), "table_key_bytes_max", key_max);
    }
    if let Some(why) = unread_key(host, table, &given.key) {
        let version = given.version.or_else(|| host.owners.get(table).map(|o| o.version)).unwrap_or(0);
        // An operator who restores a whole dump is not stopped by a key that was stored before.
        return match has_entry(host, table, &given.key, (version, &given.value[..])) {
            true => Checked::Stays,
            false => Checked::Refused(why),
        };
    }
    let (kept, served) = match host.owners.get(table) {
        // A dump shows such bytes as text, so bytes and text could not be told apart when they
        // come back.
        None if is_no_value(host, table, &given.key) => {
            return Checked::Refused("what is stored is no MessagePack; leave the table out".into());
        }
        // A value without a version would be taken for one of the first.
        None if given.version.is_none() && host.tables.versions(table).iter().any(|v| *v > 1) => {
            return Checked::Refused(
                "no build that owns the table is loaded, so nobody can check the value; load it first".into(),
            );
        }
        // Nobody answers for the version, so it is stored as it was given; 0: none.
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

/// Why a table's owner can't read a key; `None`: it can, or takes any bytes. Nobody could find an
/// entry under such a key, and a scan of the table would fail.
fn unread_key(host: &HostState, table: &str, key: &[u8]) -> Option<String> {
    let owner = host.owners.get(table)?;
    let s = &host.services[owner.service];
    // `which` counts from 1.
    s.offer.tables.get(owner.which as usize - 1).filter(|shape| shape.reads_keys)?;
    let why = s.code.convert(owner.which | abi::table::KEY_OF, 0, 0, key).err()?;
    Some(format!("service {} can't read the key: {why}", s.offer.name))
}

/// Has a table's owner convert a value. Returns the value to store with its version, and
/// whether it was given in that version. If the value cannot be converted, `Err` is the outcome
/// of the check.
fn check_owned(
    host: &HostState,
    table: &str,
    owner: &Owner,
    given: &GivenEntry,
    builds: &mut Builds,
) -> Result<((u32, Vec<u8>), bool), Checked> {
    let s = &host.services[owner.service];
    // The build is noted before the outcome: a refusal holds for this build alone, too.
    if let Some(build) = &s.build {
        builds.insert((s.offer.name.clone(), build.generation), build.clone());
    }
    // Version 0 means that nobody answered for the value. Such a value counts as the first
    // version.
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

/// Whether an entry is stored under this key whose value is no MessagePack. O(value).
fn is_no_value(host: &HostState, table: &str, key: &[u8]) -> bool {
    let mut value = Vec::new();
    host.tables.get(&host.store, table, key, &mut value).is_some() && to_json(&value).is_err()
}

/// Whether an entry is stored under this key with this version and value. O(value).
pub(super) fn has_entry(host: &HostState, table: &str, key: &[u8], (version, bytes): (u32, &[u8])) -> bool {
    let mut value = Vec::new();
    let stored = host.tables.get(&host.store, table, key, &mut value);
    stored.is_some_and(|stored| version_of(stored) == version_of(version)) && value == bytes
}

/// Whether an entry is stored under this key with this version, and with this value or one that
/// differs from it only in the order of maps and sets. O(value), and O(schema) if the bytes differ.
pub(super) fn has_same_entry(
    host: &HostState,
    table: &str,
    key: &[u8],
    (version, bytes): (u32, &[u8]),
) -> bool {
    if has_entry(host, table, key, (version, bytes)) {
        return true;
    }
    let mut value = Vec::new();
    let stored = host.tables.get(&host.store, table, key, &mut value);
    let is_of_schema = host.owners.get(table).is_some_and(|owner| owner.version == version_of(version));
    let is_same_version = stored.is_some_and(|stored| version_of(stored) == version_of(version));
    is_of_schema && is_same_version && is_same(&value, bytes, schema(host, None, Some(table)))
}

/// Version of an entry's value, if the table's owner writes another one, or if nobody owns the
/// table and the version is known; else `None`. For dumps, which name a version only where it
/// differs.
pub(crate) fn other_version(host: &HostState, table: &str, key: &[u8]) -> Option<u32> {
    let stored = host.tables.get(&host.store, table, key, &mut Vec::new())?;
    match host.owners.get(table) {
        None => Some(stored).filter(|v| *v != 0),
        Some(owner) => Some(version_of(stored)).filter(|v| *v != owner.version),
    }
}

/// Schema of a table's values, or, without a table, of a service's states. `None`: no such
/// service, or no owner, or no schema. O(services).
pub(crate) fn schema<'h>(
    host: &'h HostState,
    service: Option<&str>,
    table: Option<&str>,
) -> Option<&'h Schema> {
    let shape = match (service, table) {
        (_, Some(table)) => {
            let owner = host.owners.get(table)?;
            // `which` counts from 1.
            let tables = &host.services[owner.service].offer.tables;
            &tables.get(owner.which as usize - 1)?.shape
        }
        (Some(name), None) => &host.services.all().iter().find(|s| s.offer.name == name)?.offer.shape,
        (None, None) => return None,
    };
    shape.schema.as_ref()
}
