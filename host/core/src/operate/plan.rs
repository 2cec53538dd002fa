//! Plan of a restore, and the survey of its changes.
//!
//! A plan is made by the caller, item by item, out of what [`super::check`] says. The loop
//! keeps nothing of it, so a plan costs the loop no memory, and an abandoned one needs no
//! cleaning up. A survey compares a plan with what is stored. For a dry run the survey is cut
//! into slices. The restore itself makes its own survey in one go, so that nothing changes
//! between survey and writing.

use super::check::Builds;
use crate::ids::Slot;
use crate::ledger::{Restored, RestoredTable};
use crate::tables::owner::Owner;
use std::collections::{BTreeMap, BTreeSet};

/// Most session numbers in each list of a report.
const NAMED_MAX: usize = 100;

/// State that a session is to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedState {
    /// Number of the session.
    pub session: u64,
    /// Version and state to store; `None`: the session is to store none.
    pub kept: Option<(u32, Vec<u8>)>,
    /// Version and state as they were given, if they differ from `kept`. If the session stores
    /// just this, it is left as it is: its next turn would make `kept` of it.
    pub given: Option<(u32, Vec<u8>)>,
}

/// Entry that a table is to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedEntry {
    /// Version and value to store.
    pub kept: (u32, Vec<u8>),
    /// Version and value as they were given, if they differ from `kept`. An entry that has them
    /// is left as it is.
    pub given: Option<(u32, Vec<u8>)>,
    /// Deadline of the entry, in milliseconds since 1970.
    pub until: Option<u64>,
}

/// Table with all of its entries, or with those that change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlannedTable {
    /// Name of the table.
    pub name: String,
    /// Owner of the table when its entries were checked; `None`: nobody owned it.
    pub owner: Option<Owner>,
    /// Entries of the table, by key. If there are none, and no others stay, the table ends to
    /// exist.
    pub entries: BTreeMap<Vec<u8>, PlannedEntry>,
    /// Keys to delete. `None`: all stored entries that are not among `entries` are deleted.
    pub deletes: Option<BTreeSet<Vec<u8>>>,
}

/// Data that must be stored still when a plan is carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// State of a session.
    State {
        /// Number of the session. One that is gone refuses nothing.
        session: u64,
        /// Turns that it had run when the state was looked at.
        turns: u64,
        /// Version and state; `None`: it stores none.
        is: Option<(u32, Vec<u8>)>,
    },
    /// Entry of a table.
    Entry {
        /// Name of the table.
        table: String,
        /// Key of the entry.
        key: Vec<u8>,
        /// The entry; `None`: there is none.
        is: Option<StoredEntry>,
    },
}

/// Entry as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// Version of the value.
    pub version: u32,
    /// Value, as MessagePack.
    pub value: Vec<u8>,
    /// Deadline of the entry, in milliseconds since 1970.
    pub until: Option<u64>,
}

/// Plan of a restore: all that is to be stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// States, each session at most once.
    pub states: Vec<PlannedState>,
    /// Tables that are replaced. All others stay as they are.
    pub tables: Vec<PlannedTable>,
    /// Builds that have checked the plan. If another one serves, the plan is refused.
    pub builds: Builds,
    /// Sessions that were gone when their states were checked. They are reported, and stop
    /// nothing.
    pub gone: Vec<u64>,
    /// Data that must be stored still. If other data are, the plan is refused.
    pub only_if: Vec<Expected>,
}

impl PlannedEntry {
    /// Whether its deadline has passed, so that it would be gone at once.
    pub(super) fn is_over(&self, wall_ms: u64) -> bool {
        self.until.is_some_and(|until| until <= wall_ms)
    }
}

impl Plan {
    /// Returns the services whose builds have checked something, in order.
    pub fn services(&self) -> Vec<String> {
        let mut services: Vec<_> = self.builds.keys().map(|(service, _)| service.clone()).collect();
        // A canary has two builds of one service.
        services.dedup();
        services
    }
}

/// Survey of what a plan changes. Complete once all slices are done.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// Place to go on from.
    pub(super) at: At,
    /// States to write: slot of the session, and place in the plan.
    pub(super) states: Vec<(Slot, usize)>,
    /// Sessions that were gone when the survey came to them.
    pub(super) gone: Vec<u64>,
    /// Sessions whose states are to be written and that are quarantined.
    pub(super) quarantined: Vec<u64>,
    /// Sessions that store the planned or the given state already.
    pub(super) unchanged: usize,
    /// Surveys of the plan's tables, in its order.
    pub(super) tables: Vec<TableSurvey>,
}

/// Place of a survey: first through the states, then through one table after the other.
#[derive(Debug, Clone, Default)]
pub(super) struct At {
    /// Number of states that are done.
    pub(super) state: usize,
    /// Number of tables that are done.
    pub(super) table: usize,
    /// Whether the planned entries of the table under way are done, and its stored keys follow.
    pub(super) stored: bool,
    /// First key that is not done, of the planned entries or of the stored ones.
    pub(super) key: Vec<u8>,
}

/// Survey of one table.
#[derive(Debug, Clone, Default)]
pub(super) struct TableSurvey {
    /// Keys whose entries are to be written.
    pub(super) puts: Vec<Vec<u8>>,
    /// Keys that are stored and not planned.
    pub(super) deletes: Vec<Vec<u8>>,
    /// Entries that are stored as planned or as given already.
    pub(super) unchanged: usize,
    /// Entries whose deadlines have passed. They are planned as if they were not there.
    pub(super) over: usize,
    /// The table's last write when the survey came to it: another one outdates what was found.
    pub(super) last_write: u64,
    /// Bytes of keys and values that the table will have. Limit `table_bytes_max` is held
    /// against this.
    pub(super) bytes: usize,
}

impl Survey {
    /// Returns the counts of the survey, as report and ledger show them. O(tables + sessions
    /// named).
    pub fn found(&self, plan: &Plan) -> Restored {
        // Sessions that were gone at the check, then those that have gone since.
        let gone = || plan.gone.iter().chain(&self.gone).copied();
        let table = |(planned, t): (&PlannedTable, &TableSurvey)| {
            let (put, deleted) = (t.puts.len(), t.deletes.len());
            let counts = RestoredTable { put, deleted, unchanged: t.unchanged, over: t.over };
            (planned.name.clone(), counts)
        };
        Restored {
            changed: self.states.len(),
            unchanged: self.unchanged,
            missing: gone().count(),
            missing_ids: gone().take(NAMED_MAX).collect(),
            quarantined: self.quarantined.len(),
            quarantined_ids: self.quarantined.iter().take(NAMED_MAX).copied().collect(),
            tables: plan.tables.iter().zip(&self.tables).map(table).collect(),
            ..Restored::default()
        }
    }
}
