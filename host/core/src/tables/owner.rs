//! Table ownership: service and version.

use crate::ids::ServiceId;
use std::collections::BTreeMap;

/// Who answers for the shape of a table's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// This service.
    pub service: ServiceId,
    /// Its n-th table, from 1.
    pub which: u32,
    /// The version of its values.
    pub version: u32,
}

/// Owners by table.
pub type Owners = BTreeMap<Box<str>, Owner>;
