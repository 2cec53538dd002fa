//! Effects of a turn as somebody who watches it sees them: whole, by name, without the arena.
//!
//! Deadlines are told as the time that is left, so that the same turn at another time has the same
//! effects. `effect_telling` makes the records.

use greenroom_state::byte_text::ByteText;
use serde::{Deserialize, Serialize};

/// Effect that a turn asked for. Fields that an effect does not have are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectRecord {
    /// Name of the effect.
    pub effect: String,
    /// Session that it is for, if it is another one than the turn's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
    /// Service of a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Topics of a message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<ByteText>,
    /// Name of a topic, a timer, a job, or one that a session holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<ByteText>,
    /// Table of an entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<ByteText>,
    /// Key of an entry, or the prefix of keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<ByteText>,
    /// Bytes that are sent, written or given along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<ByteText>,
    /// Address of a connection or a datagram.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Number of a job, a connection or a bucket; bytes of a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// Time until it is due, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_ns: Option<u64>,
    /// Deadline of an entry, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// Ways to do it: `others`, `drop-if-slow`, `of-service`, `once`, `on`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub how: Vec<String>,
}
