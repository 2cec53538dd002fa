//! Data of sessions and tables in answers to operators. The names of fields are those of `--json`,
//! so fields are only added.

use greenroom_state::dump::DumpedSession;
use greenroom_state::sets::Sets;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Outcome of a command to several sessions, as `--json` prints it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// Sessions that it was carried out for.
    pub done: usize,
    /// Sessions that it could not be carried out for, each with the reason, at most 20.
    pub refused: BTreeMap<u64, String>,
    /// Number of those sessions.
    pub refused_count: usize,
}

/// Entries of a table that an operator asks for. Keys are as in a dump.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EntryQuery {
    /// Name of the table.
    pub table: String,
    /// Only the entry under this key.
    pub key: Option<Value>,
    /// Only entries at and behind this key.
    pub from: Option<Value>,
    /// Only entries whose keys begin so.
    pub prefix: Option<Value>,
    /// Most entries.
    pub limit: Option<usize>,
    /// Conditions on the values, as [`greenroom_state::condition`] reads them.
    pub conditions: Vec<String>,
    /// Integers beyond 2^53 are written as strings in a tag.
    pub strings: bool,
}

/// A session with its state, `greenroom state show --json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Shown {
    /// The session, as in a dump.
    #[serde(flatten)]
    pub session: DumpedSession,
    /// Version that its service writes.
    pub serving_version: u32,
    /// State as the build that serves reads it; null: it keeps none.
    pub as_read: Value,
    /// Why the build that serves can't read it; null: it can.
    pub unreadable: Option<String>,
    /// Digest of what is stored, for a change that must not overwrite another one.
    pub digest: String,
    /// Places of the sets in the state: their order says nothing.
    #[serde(default, skip_serializing_if = "Sets::is_empty")]
    pub sets: Sets,
}

/// A line of `greenroom table ls --json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TableLine {
    /// Name of the table.
    pub name: String,
    /// Service that owns it; null: none.
    pub owner: Option<String>,
    /// Version of the values that its owner writes; null: nobody owns it.
    pub version: Option<u32>,
    /// Entries.
    pub entries: usize,
    /// Bytes of keys, values and deadlines.
    pub bytes: usize,
    /// Entries by the version of their values.
    pub versions: BTreeMap<u32, u64>,
}
