//! Levels of the log, as operators set and see them: `greenroom log`.

use crate::logs::levels::LogLevel;
use serde::{Deserialize, Serialize};

/// Change of levels that an operator wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LevelWish {
    /// The level; `None`: back to that of the configuration.
    pub level: Option<LogLevel>,
    /// Name of the service; `None`: the level of all that have none of their own. Without a level,
    /// those of services go, too.
    pub service: Option<String>,
    /// Milliseconds until the level ends; `None`: it stays until the host ends.
    pub for_ms: Option<u64>,
}

/// `greenroom log --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogReport {
    /// Level of the configuration, or of the command line.
    pub configured: LogLevel,
    /// Levels in force: that of all first, then those of services.
    pub levels: Vec<LevelLine>,
}

/// A level in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LevelLine {
    /// Name of the service; null: all that have none of their own.
    pub service: Option<String>,
    /// The level.
    pub level: LogLevel,
    /// Whether an operator has set it; else it is the configured one.
    pub is_set: bool,
    /// Milliseconds until it ends; null: it stays.
    pub left_ms: Option<u64>,
}
