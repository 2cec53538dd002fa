//! Canaries on the admin socket: what is asked for, and what is shown.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Sessions that are to run the candidate of a canary, and the rules of its end.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CanaryWish {
    /// Share of new sessions, in ten-thousandths.
    pub share: u32,
    /// Sessions by their numbers.
    pub sessions: Vec<u64>,
    /// Sessions whose states hold these values: paths of fields, each with its value.
    pub fields: Vec<(String, Value)>,
    /// Interval of the batches that both builds run, to compare; 0: none.
    pub compare_every: u32,
    /// Milliseconds after which the candidate is promoted; null: by command.
    pub promote_after_ms: Option<u64>,
    /// Faults beyond which it is taken back; null: by command.
    pub faults_max: Option<u64>,
}

/// A canary, `greenroom canary --json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CanaryLine {
    /// Library of the candidate.
    pub library: String,
    /// Services that it runs sessions of.
    pub services: Vec<String>,
    /// Share of new sessions, in percent.
    pub share: f64,
    /// Sessions that were chosen.
    pub chosen: usize,
    /// Milliseconds until the promotion; null: by command.
    pub promote_in_ms: Option<u64>,
    /// Faults beyond which it is taken back; null: by command.
    pub faults_max: Option<u64>,
    /// The build that serves.
    pub serving: CanaryColumn,
    /// The candidate.
    pub candidate: CanaryColumn,
    /// Interval of the candidate's batches that both builds run; 0: none.
    pub compare_every: u32,
    /// Batches that both builds have run.
    pub compared: u64,
    /// Of those, batches that they answered differently.
    pub differing: u64,
    /// Batches that could not be compared: the candidate's state does not come back without loss.
    pub no_way_back: u64,
}

/// A build of a canary, with what was counted since the canary began.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CanaryColumn {
    /// Generation.
    pub generation: u64,
    /// SHA-256 of the file.
    pub build: String,
    /// Sessions that run it.
    pub sessions: u64,
    /// Turns run, failed ones included.
    pub turns: u64,
    /// Of those, turns that failed.
    pub faults: u64,
    /// Of those, turns that the other build fails, too.
    pub shared_faults: u64,
    /// Mean time of a turn in nanoseconds; null: none was timed.
    pub mean_ns: Option<u64>,
    /// Time that 99 of 100 turns stay below, within a factor of two; null: none was timed.
    pub p99_ns: Option<u64>,
    /// Time of the longest turn.
    pub longest_ns: u64,
}
