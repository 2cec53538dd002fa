//! Limits that one service overrides.
//!
//! The overrides are `[service.NAME.limits]` of the configuration. A limit is here if the core
//! applies it to sessions of one service; limits of processes, builds and the store are the
//! host's alone.

use super::host::Limits;
use super::trusted::TrustedProxies;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Overrides of one service. A limit that is `None` is the host's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceLimits {
    /// Overrides [`Limits::sessions_max`]; the host's counts beside it.
    pub sessions_max: Option<usize>,
    /// Overrides [`Limits::turns_at_once_max`].
    pub turns_at_once_max: Option<usize>,
    /// Overrides [`Limits::frame_bytes_max`].
    pub frame_bytes_max: Option<u32>,
    /// Overrides [`Limits::state_bytes_max`].
    pub state_bytes_max: Option<usize>,
    /// Overrides [`Limits::output_bytes_pause`].
    pub output_bytes_pause: Option<usize>,
    /// Overrides [`Limits::output_bytes_max`].
    pub output_bytes_max: Option<usize>,
    /// Overrides [`Limits::turn_bytes_max`].
    pub turn_bytes_max: Option<usize>,
    /// Overrides [`Limits::turn_recipients_max`].
    pub turn_recipients_max: Option<usize>,
    /// Overrides [`Limits::actions_pending_max`].
    pub actions_pending_max: Option<usize>,
    /// Overrides [`Limits::actions_pending_bytes_max`].
    pub actions_pending_bytes_max: Option<usize>,
    /// Overrides [`Limits::timers_per_session_max`].
    pub timers_per_session_max: Option<usize>,
    /// Overrides [`Limits::timers_per_service_max`].
    pub timers_per_service_max: Option<usize>,
    /// Overrides [`Limits::names_per_session_max`].
    pub names_per_session_max: Option<usize>,
    /// Overrides [`Limits::topics_per_session_max`].
    pub topics_per_session_max: Option<usize>,
    /// Overrides [`Limits::table_bytes_max`].
    pub table_bytes_max: Option<usize>,
    /// Overrides [`Limits::jobs_per_session_max`].
    pub jobs_per_session_max: Option<usize>,
    /// Overrides [`Limits::first_byte_ms`].
    pub first_byte_ms: Option<u64>,
    /// Overrides [`Limits::idle_ms`].
    pub idle_ms: Option<u64>,
    /// Overrides [`Limits::frame_ms`].
    pub frame_ms: Option<u64>,
    /// Overrides [`Limits::output_ms`].
    pub output_ms: Option<u64>,
    /// Overrides [`Limits::ping_ms`].
    pub ping_ms: Option<u64>,
    /// Overrides [`Limits::datagram_amplification_max`].
    pub datagram_amplification_max: Option<u64>,
    /// Overrides [`Limits::proxy_header_ms`].
    pub proxy_header_ms: Option<u64>,
}

impl ServiceLimits {
    /// Returns all limits of a service: its overrides over the host's. Checks nothing.
    pub fn under(&self, host: &Limits) -> Limits {
        let mut l = host.clone();
        macro_rules! put {
            ($($name:ident),*) => { $(if let Some(n) = self.$name { l.$name = n; })* };
        }
        put!(
            sessions_max,
            turns_at_once_max,
            frame_bytes_max,
            state_bytes_max,
            output_bytes_pause,
            output_bytes_max,
            turn_bytes_max,
            turn_recipients_max,
            actions_pending_max,
            actions_pending_bytes_max,
            timers_per_session_max,
            timers_per_service_max,
            names_per_session_max,
            topics_per_session_max,
            table_bytes_max,
            jobs_per_session_max,
            first_byte_ms,
            idle_ms,
            frame_ms,
            output_ms,
            ping_ms,
            datagram_amplification_max,
            proxy_header_ms
        );
        l
    }
}

/// Limits of a host, and the overrides of single services by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllLimits {
    /// Limits of the host.
    pub host: Limits,
    /// Overrides by service, also of services that no library offers yet.
    pub services: BTreeMap<String, ServiceLimits>,
    /// Origins whose pages may open WebSocket sessions, by service. None: the host of the request.
    pub origins: BTreeMap<String, Vec<String>>,
    /// Proxies whose headers are believed, by service.
    pub proxies: BTreeMap<String, TrustedProxies>,
}

impl From<Limits> for AllLimits {
    fn from(host: Limits) -> AllLimits {
        AllLimits { host, ..AllLimits::default() }
    }
}

impl AllLimits {
    /// Returns the limits of a service by name.
    pub fn of(&self, service: &str) -> Limits {
        self.services.get(service).map_or_else(|| self.host.clone(), |own| own.under(&self.host))
    }

    /// Checks the host's limits, then those of each service as they would be merged. Fails if
    /// values contradict each other; the error names the first key with its section.
    pub fn check(&self) -> Result<(), String> {
        self.host.check()?;
        for (name, own) in &self.services {
            own.under(&self.host)
                .check()
                .map_err(|e| e.replacen("limits.", &format!("service.{name}.limits."), 1))?;
        }
        Ok(())
    }
}
