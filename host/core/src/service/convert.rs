//! Converts a stored value from one version to another with the builds at hand.
//!
//! A newer build's own downgrades convert what it left; the build that serves migrates what an
//! older one left. Values are converted when they are read. A sweep (`crate::reload::sweep`)
//! converts those that nobody reads.

use super::registry::{LoadedBuild, Service, Services, Writer};
use crate::ids::ServiceId;
use crate::tables::entry::version_of;
use crate::tables::owner::{Owner, TableOwners};

/// A copy of a state, before and after it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reread {
    /// State as stored, with its version; `None`: none was stored.
    pub before: Option<(u32, Vec<u8>)>,
    /// State as the build that serves would store it; `None`: it keeps none.
    pub after: Option<Vec<u8>>,
}

/// Converts a stored value of a table to its owner's version; `Ok(None)`: the value is of that
/// version already, or nobody owns the table.
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

/// Converts a value to the version of a table's owner. A value of that version is read and written.
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
    // A converter may count its tables otherwise.
    let knows = service.converters.iter().rev().find_map(|c| {
        let at = c.offer.tables.iter().position(|t| t.name == table)?;
        c.offer.tables[at].shape.converts(stored, owner.version).ok().map(|()| (c, at as u32 + 1))
    });
    let (converter, which) = knows.ok_or_else(|| no_way(stored, owner.version))?;
    let value = converter.code.convert(which, stored, owner.version, value)?;
    // The build that is to serve the value reads and writes it.
    service.code.convert(owner.which, owner.version, owner.version, &value)
}

fn no_way(stored: u32, wanted: u32) -> String {
    format!("it is of version {stored}, and no build at hand makes it into version {wanted}")
}

impl Service {
    /// Converts a state of a newer version to the wanted one, by the build that left it.
    pub(crate) fn left_by_newer(&self, stored: u32, wanted: u32, state: &[u8]) -> Result<Vec<u8>, String> {
        let knows = |c: &&LoadedBuild| c.offer.shape.converts(stored, wanted).is_ok();
        let converter = self.converters.iter().rev().find(knows);
        converter.ok_or_else(|| no_way(stored, wanted))?.code.convert(0, stored, wanted, state)
    }

    /// Downgrades a state that a newer build left, in place. Returns the version that it has then.
    /// States of older versions stay: the build that serves migrates them itself.
    pub(crate) fn downgrade_state(&self, stored: u32, state: &mut Vec<u8>) -> Result<u32, String> {
        let wanted = self.offer.shape.version;
        if stored <= wanted || self.converters.is_empty() {
            return Ok(stored);
        }
        *state = self.left_by_newer(stored, wanted, state)?;
        Ok(wanted)
    }
}

impl Services {
    /// The build that stands by and owns a table, of the library of a service; and the place of the
    /// table among its own.
    pub(crate) fn standby_owner(&self, service: ServiceId, table: &str) -> Option<(&LoadedBuild, usize)> {
        let library = &self[service].standby.as_ref()?.build.library;
        let standbys = self.all().iter().filter_map(|s| s.standby.as_ref());
        standbys.filter(|b| b.build.library == *library).find_map(|b| {
            let at = b.offer.tables.iter().position(|t| t.name == table)?;
            Some((b, at))
        })
    }

    /// The version of a table's value that a build of a service writes.
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
