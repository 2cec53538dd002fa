//! Limits that one service overrides.

use super::host::Limits;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What one service has otherwise than the host: `[service.NAME.limits]`. What isn't said is the
/// host's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceLimits {
    /// See [`Limits::sessions_max`]; the host's counts beside it.
    pub sessions_max: Option<usize>,
    /// See [`Limits::turns_at_once_max`].
    pub turns_at_once_max: Option<usize>,
    /// See [`Limits::frame_bytes_max`].
    pub frame_bytes_max: Option<u32>,
    /// See [`Limits::state_bytes_max`].
    pub state_bytes_max: Option<usize>,
    /// See [`Limits::output_bytes_pause`].
    pub output_bytes_pause: Option<usize>,
    /// See [`Limits::output_bytes_max`].
    pub output_bytes_max: Option<usize>,
    /// See [`Limits::turn_bytes_max`].
    pub turn_bytes_max: Option<usize>,
    /// See [`Limits::actions_pending_max`].
    pub actions_pending_max: Option<usize>,
    /// See [`Limits::actions_pending_bytes_max`].
    pub actions_pending_bytes_max: Option<usize>,
    /// See [`Limits::timers_per_session_max`].
    pub timers_per_session_max: Option<usize>,
    /// See [`Limits::timers_per_service_max`].
    pub timers_per_service_max: Option<usize>,
    /// See [`Limits::jobs_per_session_max`].
    pub jobs_per_session_max: Option<usize>,
    /// See [`Limits::first_byte_ms`].
    pub first_byte_ms: Option<u64>,
    /// See [`Limits::idle_ms`].
    pub idle_ms: Option<u64>,
    /// See [`Limits::frame_ms`].
    pub frame_ms: Option<u64>,
}

impl ServiceLimits {
    /// The limits of a service, under a host's.
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
            actions_pending_max,
            actions_pending_bytes_max,
            timers_per_session_max,
            timers_per_service_max,
            jobs_per_session_max,
            first_byte_ms,
            idle_ms,
            frame_ms
        );
        l
    }
}

/// A host's limits, and what single services have otherwise, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllLimits {
    /// The host's.
    pub host: Limits,
    /// By service.
    pub services: BTreeMap<String, ServiceLimits>,
}

impl From<Limits> for AllLimits {
    fn from(host: Limits) -> AllLimits {
        AllLimits { host, services: BTreeMap::new() }
    }
}

impl AllLimits {
    /// A service's.
    pub fn of(&self, service: &str) -> Limits {
        self.services.get(service).map_or_else(|| self.host.clone(), |own| own.under(&self.host))
    }

    /// Refuses values that contradict each other.
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
