//! The answer to `greenroom metrics`: all figures that operators collect.
//!
//! The keeper puts them together from its own counts and the board, also while no worker serves.
//! Times are in nanoseconds. Counters never go back while the host lives, also over takeovers.

use crate::memory::histogram::Histogram;
use crate::protocol::status::Status;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `greenroom metrics --json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Metrics {
    /// Host and services, of the same moment.
    pub status: Status,
    /// Time when the host started, in milliseconds since 1970.
    pub started_ms: u64,
    /// Resident memory of the worker's process in bytes; 0: none lives.
    pub worker_resident_bytes: u64,
    /// Connections accepted.
    pub accepts: u64,
    /// Takeovers by cause: `handover`, `crash`, `kill` or `stall`.
    pub takeovers: BTreeMap<String, u64>,
    /// Times from the end of a worker until another one served.
    pub takeover_times: Histogram,
    /// Times of the loop's passes. Whoever comes in a pass waits for its end.
    pub passes: Histogram,
    /// Times that the loop stood still for a reload, a restore or a configuration.
    pub pauses: Histogram,
    /// Times of rehearsals.
    pub rehearsals: Histogram,
    /// Lines that the ledger got, by outcome.
    pub reloads: BTreeMap<String, u64>,
    /// Builds kept by library.
    pub builds: BTreeMap<String, u64>,
    /// Timers that are not due.
    pub timers: u64,
    /// Bytes of the store.
    pub store_bytes: u64,
    /// Limit of those (`store_bytes_max`).
    pub store_bytes_max: u64,
    /// Bytes of the store by kind of record; kinds without records are left out.
    pub store_bytes_by_kind: BTreeMap<String, u64>,
    /// Traffic of the services.
    pub traffic: Vec<ServiceTraffic>,
    /// Turns of the generations that ran last.
    pub turns: Vec<GenerationTurns>,
}

/// Traffic of a service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceTraffic {
    /// Name of the service.
    pub service: String,
    /// Sessions opened.
    pub opened: u64,
    /// Bytes taken from peers.
    pub bytes_in: u64,
    /// Bytes that the kernel took for peers.
    pub bytes_out: u64,
}

/// Turns of one generation of a service. A turn that was run again counts each time.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct GenerationTurns {
    /// Name of the service; empty: services and generations beyond the 255 that are told apart.
    pub service: String,
    /// The generation; 0: those without a name.
    pub generation: u64,
    /// Turns that failed.
    pub faults: u64,
    /// Times of the turns. Turns of one call share its time equally.
    pub times: Histogram,
    /// Turns by kind of action.
    pub actions: BTreeMap<String, u64>,
    /// Times of those, in nanoseconds. A worker of an earlier version notes none.
    #[serde(default)]
    pub action_ns: BTreeMap<String, u64>,
}
