//! Turns that an operator watches or records, as they cross the admin socket.
//!
//! Fields of [`TracedTurn`] are those of a line of `greenroom trace --json`; [`RecordHead`] and
//! [`RecordedTurn`] are the lines of a recording. They are only added, with a default.

use greenroom_core::limits::host::Limits;
use greenroom_core::limits::per_service::ServiceLimits;
use greenroom_core::turn::effect_record::EffectRecord;
use greenroom_core::turn::fault::{Fault, LogLine};
use greenroom_core::turn::turn_record::{ActionRecord, TurnRecord};
use greenroom_core::watch::subject::Subject;
use greenroom_state::value_change::ValueChange;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Version of the form of a recording.
pub const RECORDING: u32 = 1;

/// Wish for a recording.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RecordOrder {
    /// Names of fields whose values are replaced before they leave the host.
    pub redact: Vec<String>,
}

/// First line of a recording.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RecordHead {
    /// Version of the form: [`RECORDING`].
    pub greenroom_recording: u32,
    /// Version of the host.
    pub host: String,
    /// Time of the beginning, RFC 3339.
    pub at: String,
    /// Sessions that were recorded.
    pub subject: Subject,
    /// Names of fields whose values were replaced.
    #[serde(default)]
    pub redacted: Vec<String>,
    /// Limits of the host.
    pub limits: Limits,
    /// Limits that single services override.
    #[serde(default)]
    pub service_limits: BTreeMap<String, ServiceLimits>,
}

/// A line of a recording behind the first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordedTurn {
    /// Turns that were left out before this one.
    #[serde(default)]
    pub left_out: u64,
    /// Whether values of it were replaced.
    #[serde(default)]
    pub redacted: bool,
    /// The turn.
    #[serde(flatten)]
    pub turn: TurnRecord,
}

/// A line of `greenroom trace --json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TracedTurn {
    /// Time of the pass, RFC 3339.
    pub at: String,
    /// Number of the session; 0: the service itself.
    pub session: u64,
    /// Service of the session.
    pub service: String,
    /// Address of the peer; empty: the service itself.
    pub peer: String,
    /// Number of the turn in its session.
    pub turn: u64,
    /// Generation of the build that ran it.
    pub generation: u64,
    /// Hash of that build's file.
    pub build: String,
    /// Action of the turn.
    pub action: ActionRecord,
    /// Fields of the state that it changed.
    pub changes: Vec<ValueChange>,
    /// Version of the state before, if it had another one than the build writes.
    pub migrated_from: Option<u32>,
    /// Effects that it asked for.
    pub effects: Vec<EffectRecord>,
    /// Whether it closed its session.
    pub closes: bool,
    /// Code and words of that close.
    pub close_words: Option<(u16, String)>,
    /// Lines that it logged.
    pub log: Vec<LogLine>,
    /// Time that its call took, in microseconds; null: it was not measured.
    pub took_us: Option<f64>,
    /// `applied`, `failed`, `asked-before` (the previous build is asked), `refused`, `quarantined`.
    pub outcome: String,
    /// Reason of a refusal.
    pub reason: Option<String>,
    /// Fault of the code.
    pub fault: Option<Fault>,
    /// State behind the turn, if it is not MessagePack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<Value>,
}
