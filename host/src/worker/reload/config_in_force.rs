//! The configuration in force, and the one being committed.
//!
//! A configuration that replaced the first one is a record, so a successor goes on with it. The
//! keeper numbers configurations and remembers the last one that it was told is in force.

use crate::admin::query::Answer;
use crate::config::{Config, record};
use greenroom_core::core::Core;
use greenroom_core::limits::host::Limits;
use greenroom_core::reload::request::Requester;
use greenroom_core::store::kind::Kind;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// A configuration that libraries are being reloaded for.
pub(in crate::worker) struct ProposedConfig {
    /// The keeper's number for it.
    pub number: u64,
    /// The configuration.
    pub config: Arc<Config>,
    /// Requester.
    pub by: Requester,
    /// Destination of the report.
    pub reply: Option<Sender<Answer>>,
    /// The changes, in words.
    pub changes: String,
}

/// The record of the configuration in force. Fields that this version does not know are left out.
#[derive(Serialize, Deserialize)]
struct InForce {
    number: u64,
    #[serde(deserialize_with = "record::without_unknown")]
    config: Config,
}

/// The configuration in force, and the one being committed.
pub(in crate::worker) struct ConfigInForce {
    config: Arc<Config>,
    proposed: Option<ProposedConfig>,
}

impl ConfigInForce {
    /// Goes on with a configuration that is in force.
    pub(in crate::worker) fn new(config: Arc<Config>) -> ConfigInForce {
        ConfigInForce { config, proposed: None }
    }

    /// The configuration in force.
    pub(in crate::worker) fn get(&self) -> &Arc<Config> {
        &self.config
    }

    /// The host's limits in force.
    pub(in crate::worker) fn limits(&self) -> &Limits {
        &self.config.limits
    }

    /// The configuration that libraries are being reloaded for.
    pub(in crate::worker) fn proposed(&self) -> Option<&ProposedConfig> {
        self.proposed.as_ref()
    }

    /// Returns whether libraries are being reloaded for another configuration.
    pub(in crate::worker) fn is_changing(&self) -> bool {
        self.proposed.is_some()
    }

    /// Begins a change of configuration.
    pub(in crate::worker) fn begin(&mut self, proposed: ProposedConfig) {
        self.proposed = Some(proposed);
    }

    /// Ends a change of configuration: it is committed, or refused.
    pub(in crate::worker) fn take_proposed(&mut self) -> Option<ProposedConfig> {
        self.proposed.take()
    }

    /// Puts the proposed configuration in force and records it for a successor. The change ends
    /// with [`ConfigInForce::take_proposed`], once the record is committed.
    pub(in crate::worker) fn adopt(&mut self, core: &mut Core) {
        let Some(ProposedConfig { number, config, .. }) = &self.proposed else { return };
        let record = InForce { number: *number, config: (**config).clone() };
        if !core.put_host_record(Kind::Config, 0, &serde_json::to_vec(&record).unwrap_or_default()) {
            tracing::error!(
                "no room to record the configuration: a successor would go on with the previous one"
            );
        }
        self.config = config.clone();
    }
}

/// The configuration that a predecessor has put in force; `None`: the one that the host was started
/// with.
pub(in crate::worker) fn recorded(core: &Core) -> Option<Config> {
    read(core).map(|r| r.config)
}

/// The keeper's number for the recorded configuration.
pub(in crate::worker) fn recorded_number(core: &Core) -> Option<u64> {
    read(core).map(|r| r.number)
}

fn read(core: &Core) -> Option<InForce> {
    let (_, json) = core.host_records(Kind::Config).into_iter().next()?;
    serde_json::from_slice(&json)
        .inspect_err(|e| {
            tracing::error!(
                "the record of the configuration cannot be read, so the initial configuration holds: {e}"
            )
        })
        .ok()
}
