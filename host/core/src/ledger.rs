//! Reports: outcomes of reloads, rollbacks, restores and configurations.
//!
//! Commands print them as JSON, and the ledger keeps each as a line in the store. So the names
//! of fields and variants are an interface: programs read them, and a worker of another version
//! reads old lines. Fields are only added. A line that cannot be read is left out of answers.
//!
//! The shell fills in what only it knows: ledger line, pause, quarantined sessions. A report
//! decides nothing.

use greenroom_state::rehearsal_report::{Rehearsal, Verdict};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Outcome of a reload, or of another change. Programs depend on these words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The build that was asked for serves.
    Committed,
    /// The build that was asked for served already.
    Unchanged,
    /// The build that was asked for does not serve; nothing has changed.
    Refused,
    /// The previous build serves again.
    RolledBack,
    /// A dry run, which would have been committed.
    Rehearsed,
    /// The build served, and another one took its place before it had proved itself.
    Replaced,
    /// Another configuration is in force.
    Configured,
    /// No reload: states and tables were restored by an operator.
    Restored,
    /// The build that was asked for runs some sessions, beside the one that serves.
    Canary,
    /// A canary's sessions run the build that serves again.
    TakenBack,
}

/// Report of one library's reload, or of another change. Some fields have a meaning for reloads
/// alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Outcome of the change.
    pub outcome: Outcome,
    /// Name of the library; its file, until one was loaded.
    pub library: String,
    /// Services that the library serves after the change.
    pub services: Vec<String>,
    /// Generation that serves after the change; 0: none.
    pub generation: u64,
    /// SHA-256 of the build that was asked for, in hexadecimal; empty: it could not be read.
    pub build: String,
    /// Build id that the linker gave the file; `None`: none.
    #[serde(default)]
    pub build_id: Option<String>,
    /// State versions of the build that was asked for, by service.
    #[serde(default)]
    pub versions: BTreeMap<String, u32>,
    /// Compatibility of old and new build by the schemas of all services and tables; `None`: no
    /// rehearsal was held.
    #[serde(default)]
    pub verdict: Option<Verdict>,
    /// Sessions of its services, closing ones included. For an operator restore: sessions
    /// changed.
    pub sessions: usize,
    /// Sessions among those that are quarantined. For an operator restore at most the hundred
    /// that [`Restored::quarantined_ids`] names.
    #[serde(default)]
    pub quarantined: usize,
    /// Sessions whose states had to be migrated in the rehearsal.
    #[serde(default)]
    pub migrated: u64,
    /// Duration of the rehearsal, in milliseconds.
    #[serde(default)]
    pub rehearsal_ms: u64,
    /// Number of the line in the ledger; 0: none.
    #[serde(default)]
    pub line: u64,
    /// Time that the loop stood still for the change, in microseconds.
    pub pause_us: f64,
    /// Reason of a refusal or a rollback, or the changes of a configuration, in words.
    pub reason: String,
    /// Findings of the rehearsal in full.
    #[serde(default)]
    pub rehearsal: Option<Rehearsal>,
    /// Course of the probation; `None`: the build had none.
    #[serde(default)]
    pub probation: Option<ProbationReport>,
    /// Result of an operator restore; `None`: the change is none.
    #[serde(default)]
    pub restored: Option<Box<Restored>>,
    /// Canary that begins, ends or is promoted; `None`: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryReport>,
}

impl Report {
    /// Makes a report of a change that is no library's: `what` stands in the place of its name.
    /// All other fields are empty.
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
            canary: None,
        }
    }
}

/// Canary in a report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryReport {
    /// Generation of the candidate.
    pub generation: u64,
    /// Share of new sessions that run it, in ten-thousandths.
    pub share: u32,
    /// Sessions that run it by choice.
    pub chosen: usize,
    /// Sessions that run it, or ran it at its end.
    pub sessions: u64,
    /// Turns that it has run.
    pub turns: u64,
    /// Turns among those that failed and count: the build before does not fail them.
    pub faults: u64,
    /// Batches that both builds have run.
    pub compared: u64,
    /// Batches among those in which they answered differently.
    pub differing: u64,
}

/// Probation in a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbationReport {
    /// State of the probation.
    pub state: ProbationState,
    /// Counts of the turns on probation.
    #[serde(flatten)]
    pub record: ProbationCounts,
}

/// State of a probation. Programs depend on these words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbationState {
    /// The build is on probation.
    UnderWay,
    /// The build has proved itself.
    Passed,
    /// The previous build serves again.
    RolledBack,
    /// The build was to be rolled back, and there was no way back: it serves on.
    Failed,
    /// Another build took its place.
    Replaced,
}

/// Result of an operator restore, or of a survey before it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// File of the dump; `None`: fields of one session were set.
    pub file: Option<String>,
    /// Session whose fields were set; `None`: a dump was restored.
    pub session: Option<u64>,
    /// Paths of those fields.
    pub fields: Vec<String>,
    /// Sessions whose states were changed, or removed.
    pub changed: usize,
    /// Sessions that had exactly the given state already.
    pub unchanged: usize,
    /// Sessions of the dump that are gone.
    pub missing: usize,
    /// Numbers of the first hundred of those.
    pub missing_ids: Vec<u64>,
    /// Sessions that were changed and are quarantined. They wait to be released. Shown by the
    /// report that this is part of.
    #[serde(skip)]
    pub quarantined: usize,
    /// Numbers of the first hundred of those.
    pub quarantined_ids: Vec<u64>,
    /// Results by table.
    pub tables: BTreeMap<String, RestoredTable>,
    /// Keys of the entries that were put or deleted one by one, as JSON.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// Line of the ledger whose change was undone; `None`: it is no undoing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<u64>,
}

/// Result of an operator restore for one table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredTable {
    /// Entries that are new or have another value.
    pub put: usize,
    /// Entries that the dump does not have, and that were deleted.
    pub deleted: usize,
    /// Entries that were the same already.
    pub unchanged: usize,
    /// Entries whose deadlines have passed, and that were left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub over: usize,
}

/// Whether a count is left out of JSON.
fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Restored {
    /// Makes the report for the ledger. The caller adds line and pause.
    pub fn report(self, outcome: Outcome, reason: String, services: Vec<String>) -> Report {
        Report {
            services,
            sessions: self.changed,
            quarantined: self.quarantined,
            restored: Some(Box::new(self)),
            ..Report::of_host("", outcome, reason)
        }
    }
}

/// Counts of the turns that a build ran on probation.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbationCounts {
    /// Turns run.
    pub turns: u64,
    /// Turns among those that failed and count: the previous build did not fail them, or could
    /// not be asked.
    pub faults: u32,
    /// Turns among the counted ones that the previous build ran in its place: no client saw
    /// them fail.
    pub spared: u32,
}
