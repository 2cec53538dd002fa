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

impl HostNumbers {
    /// The numbers in the order of their fields, 8 bytes each.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let HostNumbers { sessions, service_sessions, turns, faults, generation, .. } = self;
        let HostNumbers { uptime_ns, store_bytes, store_bytes_max, .. } = self;
        let first = [sessions, service_sessions, turns, faults, generation];
        let all = first.into_iter().chain([uptime_ns, store_bytes, store_bytes_max]);
        all.flat_map(u64::to_le_bytes).collect()
    }

    /// Reverse of [`HostNumbers::to_bytes`]. A number that is missing is 0.
    pub(crate) fn of_bytes(bytes: &[u8]) -> HostNumbers {
        let mut all = bytes.chunks_exact(8).map(|b| b.try_into().map_or(0, u64::from_le_bytes));
        let mut next = || all.next().unwrap_or(0);
        HostNumbers {
            sessions: next(),
            service_sessions: next(),
            turns: next(),
            faults: next(),
            generation: next(),
            uptime_ns: next(),
            store_bytes: next(),
            store_bytes_max: next(),
        }
    }
}
