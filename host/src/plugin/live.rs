//! Input of a rehearsal: the offers of the build that serves, the limits, and counts of live data.

use crate::plugin::entries::Entries;
use greenroom_core::limits::host::Limits;
use greenroom_core::limits::per_service::ServiceLimits;
use greenroom_core::service::offer::Offer;
use greenroom_state::compatibility::StateShape;
use greenroom_state::schema::Schema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Live data, described for a rehearsal.
#[derive(Serialize, Deserialize)]
pub struct LiveState {
    /// The pinned epoch.
    pub epoch: u64,
    /// The host's limits.
    pub limits: Limits,
    /// Limits that single services override.
    #[serde(default)]
    pub service_limits: BTreeMap<String, ServiceLimits>,
    /// Offers of the build that serves.
    pub offers: Vec<Offer>,
    /// Private copy and entry of that build, if the candidate is older: it downgrades the data that
    /// it left.
    pub newer: Option<(PathBuf, String)>,
    /// Number of sessions of its services.
    pub sessions: u64,
    /// Number of entries of each table that may be rehearsed, by version.
    pub entries: BTreeMap<String, BTreeMap<u32, u64>>,
}

impl LiveState {
    /// Number of sessions and entries, at most.
    pub fn items(&self) -> u64 {
        self.sessions + self.entries.values().flat_map(BTreeMap::values).sum::<u64>()
    }

    /// Shape of a table, as the build that serves has it.
    pub(super) fn shape_of(&self, table: &str) -> Option<&StateShape> {
        self.offers.iter().flat_map(|o| &o.tables).find(|t| t.name == table).map(|t| &t.shape)
    }

    /// Picks the entries that a candidate reads of a table whose shape is `new` for it.
    pub(super) fn entries_of(&self, table: &str, new: &StateShape) -> Entries {
        let schema = |shape: &StateShape| shape.schema.as_ref().map(Schema::fingerprint);
        let same = |old: &StateShape| {
            old.version == new.version && schema(new).is_some() && schema(old) == schema(new)
        };
        let count = self.entries.get(table).and_then(|n| n.get(&new.version)).copied().unwrap_or(0);
        match self.limits.rehearsal_entries_max as u64 {
            at_most @ 1.. if count > at_most && self.shape_of(table).is_some_and(same) => {
                Entries::with_at_most(at_most, new.version, count)
            }
            _ => Entries::default(),
        }
    }
}
