//! Input of a rehearsal: the offers of the build that serves, the limits, and counts of live
//! data.
//!
//! The worker fills it in when it orders the trial, and pins the epoch in the same step. The
//! pin holds the last commit, and the counts are those of the moment. So both may differ by the
//! changes of one pass. A description crosses to the child as JSON, inside the trial's task.

use crate::plugin::entries::Entries;
use greenroom_core::limits::host::Limits;
use greenroom_core::limits::per_service::ServiceLimits;
use greenroom_core::service::offer::Offer;
use greenroom_core::tables::prefixes::DroppedPrefixes;
use greenroom_state::compatibility::StateShape;
use greenroom_state::schema::Schema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Live data, described for a rehearsal.
#[derive(Serialize, Deserialize)]
pub struct LiveState {
    /// Pinned epoch. The data is read as of this commit.
    pub epoch: u64,
    /// Host's limits, under the configuration that the candidate would serve with.
    pub limits: Limits,
    /// Limits that single services override.
    #[serde(default)]
    pub service_limits: BTreeMap<String, ServiceLimits>,
    /// Offers of the services of its library, and of services with sessions that no build
    /// serves.
    pub offers: Vec<Offer>,
    /// Private copy and entry of the build that serves, if the candidate is an older one. That
    /// build downgrades the data that it left.
    pub newer: Option<(PathBuf, String)>,
    /// Private copy and entry of the build that serves, to tell old failures from the candidate's.
    #[serde(default)]
    pub serving: Option<(PathBuf, String)>,
    /// Number of sessions of these services.
    pub sessions: u64,
    /// Number of entries of each table that may be rehearsed, by version: tables of the
    /// library, and those without an owner.
    pub entries: BTreeMap<String, BTreeMap<u32, u64>>,
    /// Prefixes whose dropped entries the snapshot still shows.
    #[serde(default)]
    pub dropped: DroppedPrefixes,
}

impl LiveState {
    /// Number of sessions and entries to read, at most. The time limit of the trial follows
    /// from it.
    pub fn items(&self) -> u64 {
        self.sessions + self.entries.values().flat_map(BTreeMap::values).sum::<u64>()
    }

    /// Shape of a table, as the build that serves has it; `None`: it does not own the table.
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
        // 0 means all. A table that is not larger than the limit is read whole, too.
        match self.limits.rehearsal_entries_max as u64 {
            at_most @ 1.. if count > at_most && self.shape_of(table).is_some_and(same) => {
                Entries::with_at_most(at_most, new.version, count)
            }
            _ => Entries::default(),
        }
    }
}
