//! The clocks: monotonic time for the core, and the time of day for records.

use std::time::SystemTime;

/// Nanoseconds on CLOCK_MONOTONIC. The reading holds across processes until the machine
/// restarts, so deadlines in records stay valid for a successor. Cannot fail.
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Nanoseconds since 1970, UTC; 0 if the machine's clock is set to an earlier time.
pub fn unix_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}

/// Milliseconds since 1970, UTC; 0 if the machine's clock is set to an earlier time.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
