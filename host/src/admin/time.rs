//! Times in the form of RFC 3339.

use std::time::{Duration, SystemTime};

/// Prints a time in UTC, with milliseconds: `2026-01-31T08:05:09.012Z`. All times have the same
/// length, so their texts sort as the times do. [`crate::admin::client`] relies on that.
pub fn rfc3339(unix_ms: u64) -> String {
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + Duration::from_millis(unix_ms)).to_string()
}
