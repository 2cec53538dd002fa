//! Table ownership: the service whose schema and migrations rule a table.
//!
//! *Invariant*: a table has one owner or none. A second one is refused before a build serves
//! (`crate::reload::judge`). A table without an owner may be read and written. Values that
//! turns write to it count as version 1, and nothing converts them.
//!
//! Ownership is not stored. The commit of a reload sets it from the offers of the build. A
//! successor sets it again as it adopts the builds of its predecessor.

use crate::ids::ServiceId;
use greenroom_state::compatibility::TableShape;
use std::collections::BTreeMap;

/// Owner of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Service that owns the table.
    pub service: ServiceId,
    /// Place of the table among the service's own, from 1: the number by which its code
    /// converts the values. Another build of the service may have another one.
    pub which: u32,
    /// Version of the table's values that the build in charge writes.
    pub version: u32,
    /// Whether the service is told of entries whose deadline is over.
    pub hears_of_expiry: bool,
}

/// Owners by table.
pub type Owners = BTreeMap<Box<str>, Owner>;

/// Owners of all tables.
#[derive(Debug, Default)]
pub(crate) struct TableOwners {
    all: Owners,
}

impl TableOwners {
    /// Returns the owner of a table; `None`: the table has none. O(log tables).
    pub(crate) fn get(&self, table: &str) -> Option<&Owner> {
        self.all.get(table)
    }

    /// Returns the owners by table, in order.
    pub(crate) fn all(&self) -> &Owners {
        &self.all
    }

    /// Takes all tables from a service, before it gets those of another build. O(tables).
    pub(crate) fn clear(&mut self, service: ServiceId) {
        self.all.retain(|_, o| o.service != service);
    }

    /// Gives a service the tables that it declares, in order. The caller
    /// has made sure that no other service owns one of them.
    pub(crate) fn give<'t>(&mut self, service: ServiceId, tables: impl Iterator<Item = &'t TableShape>) {
        for (at, table) in tables.enumerate() {
            let (version, hears_of_expiry) = (table.shape.version, table.hears_of_expiry);
            let owner = Owner { service, which: at as u32 + 1, version, hears_of_expiry };
            self.all.insert(table.name.as_str().into(), owner);
        }
    }
}
