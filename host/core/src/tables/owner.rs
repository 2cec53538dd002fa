//! Table ownership: the service whose schema and migrations rule a table.

use crate::ids::ServiceId;
use std::collections::BTreeMap;

/// The owner of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Service that owns the table.
    pub service: ServiceId,
    /// Place of the table among the service's own, from 1.
    pub which: u32,
    /// Version of the table's values.
    pub version: u32,
}

/// Owners by table.
pub type Owners = BTreeMap<Box<str>, Owner>;

/// The owners of all tables.
#[derive(Debug, Default)]
pub(crate) struct TableOwners {
    all: Owners,
}

impl TableOwners {
    /// The owner of a table.
    pub(crate) fn get(&self, table: &str) -> Option<&Owner> {
        self.all.get(table)
    }

    /// Owners by table.
    pub(crate) fn all(&self) -> &Owners {
        &self.all
    }

    /// Takes all tables from a service.
    pub(crate) fn clear(&mut self, service: ServiceId) {
        self.all.retain(|_, o| o.service != service);
    }

    /// Gives a service the tables that it declares, in order, each with its version.
    pub(crate) fn give<'t>(&mut self, service: ServiceId, tables: impl Iterator<Item = (&'t str, u32)>) {
        for (at, (name, version)) in tables.enumerate() {
            self.all.insert(name.into(), Owner { service, which: at as u32 + 1, version });
        }
    }
}
