//! Numbers of the host that a turn may show.

/// Numbers of the host, for handlers that show them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostNumbers {
    /// Sessions of the host, closing ones included.
    pub sessions: u64,
    /// Sessions of the service, closing ones included.
    pub service_sessions: u64,
    /// Turns that the service has run, failed ones included.
    pub turns: u64,
    /// Turns of the service that failed.
    pub faults: u64,
    /// Generation of the build that runs.
    pub generation: u64,
    /// Nanoseconds since the host began.
    pub uptime_ns: u64,
    /// Bytes of the store, and its limit.
    pub store_bytes: u64,
    /// Limit `store_bytes_max`.
    pub store_bytes_max: u64,
}
