//! How a reload ended, or what else an operator has changed: as commands print it, and as the
//! ledger keeps it.

use greenroom_state::rehearsal_report::{Rehearsal, Verdict};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How a reload ended. Programs depend on these words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The build that was asked for runs now.
    Committed,
    /// It ran already.
    Unchanged,
    /// It doesn't run; nothing has changed.
    Refused,
    /// The build before runs again.
    RolledBack,
    /// A dry run: it would have been committed.
    Rehearsed,
    /// It ran, and another one took its place before it had proved itself.
    Replaced,
    /// Another configuration is in force.
    Configured,
    /// No reload: states and tables were put back.
    Restored,
}

/// What `greenroom reload` prints of a library.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// The library's name; until one was loaded, its file.
    pub library: String,
    /// The services that it runs now.
    pub services: Vec<String>,
    /// The generation that runs now; 0: none.
    pub generation: u64,
    /// SHA-256 of the build that was asked for; empty: it couldn't be read.
    pub build: String,
    /// What its linker called it.
    #[serde(default)]
    pub build_id: Option<String>,
    /// The state versions of the build that was asked for, by service.
    #[serde(default)]
    pub versions: BTreeMap<String, u32>,
    /// Who reads whose data, by the schemas of all its services and tables.
    #[serde(default)]
    pub verdict: Option<Verdict>,
    /// Sessions alive on its services.
    pub sessions: usize,
    /// Of those, sessions that wait in quarantine.
    #[serde(default)]
    pub quarantined: usize,
    /// Sessions whose states had to be migrated in the rehearsal.
    #[serde(default)]
    pub migrated: u64,
    /// How long the rehearsal took, in milliseconds.
    #[serde(default)]
    pub rehearsal_ms: u64,
    /// Its line in the ledger.
    #[serde(default)]
    pub line: u64,
    /// How long the loop stood still for it, in microseconds.
    pub pause_us: f64,
    /// Why it was refused, or rolled back.
    pub reason: String,
    /// All that the rehearsal told.
    #[serde(default)]
    pub rehearsal: Option<Rehearsal>,
    /// How the build did on probation; `None`: it had none.
    #[serde(default)]
    pub probation: Option<ProbationReport>,
    /// It is no reload: what was put back of states and tables.
    #[serde(default)]
    pub restored: Option<Box<Restored>>,
}

impl Report {
    /// Of something that is no library's.
    pub fn of_host(what: &str, outcome: Outcome, reason: String) -> Report {
        Report {
            outcome,
            library: what.to_owned(),
            services: Vec::new(),
            generation: 0,
            build: String::new(),
            build_id: None,
            versions: BTreeMap::new(),
            verdict: None,
            sessions: 0,
            quarantined: 0,
            migrated: 0,
            rehearsal_ms: 0,
            line: 0,
            pause_us: 0.0,
            reason,
            rehearsal: None,
            probation: None,
            restored: None,
        }
    }
}

/// A probation in a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbationReport {
    /// How it stands.
    pub state: ProbationState,
    /// What the build did.
    #[serde(flatten)]
    pub record: ProbationCounts,
}

/// How a probation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbationState {
    /// Under way.
    UnderWay,
    /// The build proved itself.
    Passed,
    /// The build before serves again.
    RolledBack,
    /// The build was to be rolled back, and there was no way back.
    Failed,
    /// Another build took its place.
    Replaced,
}

/// What was put back, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// The dump's file; `None`: fields were set.
    pub file: Option<String>,
    /// The session whose fields were set.
    pub session: Option<u64>,
    /// Those fields.
    pub fields: Vec<String>,
    /// Sessions whose states were changed, or removed.
    pub changed: usize,
    /// Sessions that had just that state.
    pub unchanged: usize,
    /// Sessions that are gone.
    pub missing: usize,
    /// The first hundred of them.
    pub missing_ids: Vec<u64>,
    /// The first of the sessions that were changed and are quarantined: they wait to be released.
    pub quarantined_ids: Vec<u64>,
    /// What became of tables.
    pub tables: BTreeMap<String, RestoredTable>,
}

/// What became of a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredTable {
    /// Entries that are new or have another value.
    pub put: usize,
    /// Entries that are gone.
    pub deleted: usize,
    /// Entries that were so already.
    pub unchanged: usize,
}

impl Restored {
    /// A report for the ledger.
    pub fn report(self, outcome: Outcome, reason: String, services: Vec<String>) -> Report {
        Report {
            services,
            sessions: self.changed,
            quarantined: self.quarantined_ids.len(),
            restored: Some(Box::new(self)),
            ..Report::of_host("", outcome, reason)
        }
    }
}

/// How a build did on probation.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbationCounts {
    /// Turns run.
    pub turns: u64,
    /// Of those, turns that failed and that the build before didn't fail, or couldn't be asked for.
    pub faults: u32,
    /// Of those, turns that the build before ran in its place: no client saw them fail.
    pub spared: u32,
}
