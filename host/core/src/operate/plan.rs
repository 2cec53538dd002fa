//! The plan of a restore, and what it would change.

use super::check::Builds;
use crate::ids::Slot;
use crate::ledger::{Restored, RestoredTable};
use crate::tables::owner::Owner;
use std::collections::BTreeMap;

/// Sessions that a report names.
const NAMED_MAX: usize = 100;

/// A state that is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedState {
    /// For this session.
    pub session: u64,
    /// With its version; `None`: none.
    pub kept: Option<(u32, Vec<u8>)>,
    /// As it was given, if that differs: a session that has it is left alone.
    pub given: Option<(u32, Vec<u8>)>,
}

/// An entry that is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedEntry {
    /// With its version.
    pub kept: (u32, Vec<u8>),
    /// As it was given, if that differs.
    pub given: Option<(u32, Vec<u8>)>,
}

/// What a table is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlannedTable {
    /// Its name.
    pub name: String,
    /// Who owned it when it was checked.
    pub owner: Option<Owner>,
    /// All of its entries.
    pub entries: BTreeMap<Vec<u8>, PlannedEntry>,
}

/// All that is to be stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The states.
    pub states: Vec<PlannedState>,
    /// The tables; others stay as they are.
    pub tables: Vec<PlannedTable>,
    /// The builds that have checked it.
    pub builds: Builds,
    /// Sessions that were gone when they were looked for.
    pub gone: Vec<u64>,
}

/// What a plan would change, as far as that was looked at.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    pub(super) at: At,
    /// States to be written, by their places in the plan.
    pub(super) states: Vec<(Slot, usize)>,
    pub(super) gone: Vec<u64>,
    pub(super) quarantined: Vec<u64>,
    pub(super) unchanged: usize,
    pub(super) tables: Vec<TableSurvey>,
}

/// How far a survey has come: the place of a state; then of a table, and a key there, of the plan's
/// and then of the table's.
#[derive(Debug, Clone, Default)]
pub(super) struct At {
    pub(super) state: usize,
    pub(super) table: usize,
    pub(super) stored: bool,
    pub(super) key: Vec<u8>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct TableSurvey {
    pub(super) puts: Vec<Vec<u8>>,
    pub(super) deletes: Vec<Vec<u8>>,
    pub(super) unchanged: usize,
    pub(super) bytes: usize,
}

impl Survey {
    /// What it has found.
    pub fn found(&self, plan: &Plan) -> Restored {
        let gone = || plan.gone.iter().chain(&self.gone).copied();
        let table = |(planned, t): (&PlannedTable, &TableSurvey)| {
            let counts =
                RestoredTable { put: t.puts.len(), deleted: t.deletes.len(), unchanged: t.unchanged };
            (planned.name.clone(), counts)
        };
        Restored {
            changed: self.states.len(),
            unchanged: self.unchanged,
            missing: gone().count(),
            missing_ids: gone().take(NAMED_MAX).collect(),
            quarantined_ids: self.quarantined.iter().take(NAMED_MAX).copied().collect(),
            tables: plan.tables.iter().zip(&self.tables).map(table).collect(),
            ..Restored::default()
        }
    }
}
