//! Conversion of a stored value from one version to another, with the builds at hand.
//!
//! | stored version | converted by |
//! | --- | --- |
//! | older than wanted | the build that serves: its migrations |
//! | as wanted | nobody; or the build that serves reads and writes the value |
//! | newer than wanted | a build that was rolled back: its downgrades |
//!
//! Values are converted when they are read, so a reload need not wait for all of them. A sweep
//! (`crate::reload::sweep`) converts those that nobody reads.
//!
//! A conversion runs handler code on a copy, stores nothing, and may be repeated. A failure
//! leaves the stored value as it is; the error is a sentence. A downgrade without loss is not
//! promised here: the judgement before a rollback and the previous build's fallback check that.

use super::registry::{LoadedBuild, Service, Services, Writer};
use crate::ids::ServiceId;
use crate::tables::entry::version_of;
use crate::tables::owner::{Owner, TableOwners};

/// Copy of a state, before and after a build has read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reread {
    /// State as stored, with its version; `None`: none was stored.
    pub before: Option<(u32, Vec<u8>)>,
    /// State as the build that serves would store it; `None`: it keeps none.
    pub after: Option<Vec<u8>>,
}

/// Converts a stored value of a table to its owner's version. `Ok(None)`: the value is of that
/// version already, or the table has no owner. Called for every entry that a turn reads.
pub(crate) fn convert_value(
    services: &Services,
    owners: &TableOwners,
    table: &str,
    stored: u32,
    value: &[u8],
) -> Result<Option<Vec<u8>>, String> {
    let Some(owner) = owners.get(table).filter(|o| o.version != version_of(stored)) else { return Ok(None) };
    value_for(services, owner, table, version_of(stored), value).map(Some)
}

/// Converts a value to the version of a table's owner. A value of that version is read and
/// written, so the result is what the build in charge would store. Fails if no build at hand
/// knows the way.
pub(crate) fn value_for(
    services: &Services,
    owner: &Owner,
    table: &str,
    stored: u32,
    value: &[u8],
) -> Result<Vec<u8>, String> {
    let service = &services[owner.service];
    if stored <= owner.version {
        return service.code.convert(owner.which, stored, owner.version, value);
    }
    // The newest converter that knows the way is asked. A converter may count its tables
    // otherwise, so the table is found by name.
    let knows = service.converters.iter().rev().find_map(|c| {
        let at = c.offer.tables.iter().position(|t| t.name == table)?;
        c.offer.tables[at].shape.converts(stored, owner.version).ok().map(|()| (c, at as u32 + 1))
    });
    let (converter, which) = knows.ok_or_else(|| no_way(stored, owner.version))?;
    let value = converter.code.convert(which, stored, owner.version, value)?;
    // The build that is to serve the value reads and writes it: the converter may encode
    // otherwise.
    service.code.convert(owner.which, owner.version, owner.version, &value)
}

/// Says that no build at hand converts between two versions.
fn no_way(stored: u32, wanted: u32) -> String {
    format!("it is of version {stored}, and no build at hand makes it into version {wanted}")
}

impl Service {
    /// Converts a state of a newer version to the wanted one, with the newest rolled-back build
    /// that knows the way. Fails if there is none, or if its code does.
    pub(crate) fn left_by_newer(&self, stored: u32, wanted: u32, state: &[u8]) -> Result<Vec<u8>, String> {
        let knows = |c: &&LoadedBuild| c.offer.shape.converts(stored, wanted).is_ok();
        let converter = self.converters.iter().rev().find(knows);
        converter.ok_or_else(|| no_way(stored, wanted))?.code.convert(0, stored, wanted, state)
    }

    /// Converts a value with the code that serves: `Code::convert`. To a version above its own
    /// leads the newest build that stands by to convert, if there is one.
    pub(crate) fn convert(&self, which: u32, from: u32, to: u32, value: &[u8]) -> Result<Vec<u8>, String> {
        let table = (which as usize).checked_sub(1).and_then(|at| self.offer.tables.get(at));
        let own = table.map_or(&self.offer.shape, |t| &t.shape).version;
        let Some(newer) = self.converters.last().filter(|_| to > own) else {
            return self.code.convert(which, from, to, value);
        };
        // A converter may count its tables otherwise, so the table is found by name.
        let which = match table {
            None => Some(0),
            Some(t) => newer.offer.tables.iter().position(|n| n.name == t.name).map(|at| at as u32 + 1),
        };
        newer.code.convert(which.ok_or_else(|| no_way(from, to))?, from, to, value)
    }

    /// Downgrades a state that a newer build left, in place, and returns its version then.
    /// States of older versions stay: the build that reads them migrates them itself. Fails as
    /// [`Service::left_by_newer`], and the state is unchanged then.
    pub(crate) fn downgrade_state(
        &self,
        stored: u32,
        wanted: u32,
        state: &mut Vec<u8>,
    ) -> Result<u32, String> {
        // Without a converter the build that serves gets the state as it is, and says itself
        // why it cannot read it.
        if stored <= wanted || self.converters.is_empty() {
            return Ok(stored);
        }
        *state = self.left_by_newer(stored, wanted, state)?;
        Ok(wanted)
    }
}

impl Services {
    /// Finds the standby build that owns a table, among those of the library that serves
    /// `service`. Returns it with the place of the table among its own. O(services × tables).
    pub(crate) fn standby_owner(&self, service: ServiceId, table: &str) -> Option<(&LoadedBuild, usize)> {
        let library = &self[service].standby.as_ref()?.build.library;
        let standbys = self.all().iter().filter_map(|s| s.standby.as_ref());
        standbys.filter(|b| b.build.library == *library).find_map(|b| {
            let at = b.offer.tables.iter().position(|t| t.name == table)?;
            Some((b, at))
        })
    }

    /// Returns the version of a table's value that a build of a service writes; 0: the table
    /// has no owner. A standby build that does not own the table writes the owner's version, as
    /// any other library does.
    pub(crate) fn version_written(
        &self,
        owners: &TableOwners,
        writer: Writer,
        service: ServiceId,
        table: &str,
    ) -> u32 {
        if writer == Writer::Standby
            && let Some((standby, at)) = self.standby_owner(service, table)
        {
            return standby.offer.tables[at].shape.version;
        }
        owners.get(table).map_or(0, |o| o.version)
    }
}
