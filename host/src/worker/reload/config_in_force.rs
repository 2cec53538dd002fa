//! The configuration in force, and the one being committed.
//!
//! A configuration that replaced the first one is a record, so a successor goes on with it. The
//! keeper numbers configurations and remembers the last one that it was told is in force.
//!
//! | event | in force | proposed | record |
//! | --- | --- | --- | --- |
//! | start of the host | the keeper's | none | none |
//! | a change begins | as before | the new one | as before |
//! | its commit | the new one | the new one | the new one |
//! | its report | the new one | none | the new one |
//! | its refusal | as before | none | as before |
//!
//! *Invariant*: the record is written in the same epoch as the builds with the new settings. If the
//! worker dies before that epoch, the change has not happened. The proposal itself is not recorded.

use crate::admin::query::Answer;
use crate::config::file_contents::FileContents;
use crate::config::{Config, record};
use crate::worker::reload::held_files;
use greenroom_core::core::Core;
use greenroom_core::limits::host::Limits;
use greenroom_core::reload::request::Requester;
use greenroom_core::store::kind::Kind;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// A configuration that is being put in force: libraries are reloaded for it, if it affects any.
pub(in crate::worker) struct ProposedConfig {
    /// The keeper's number for the configuration.
    pub number: u64,
    /// The configuration.
    pub config: Arc<Config>,
    /// Requester.
    pub by: Requester,
    /// Destination of the report; `None`: a signal asked.
    pub reply: Option<Sender<Answer>>,
    /// Names of the values that differ, for log and ledger. If none does, names of the libraries.
    pub changes: String,
}

/// The record of the configuration in force. Fields that this version does not know are left out.
#[derive(Serialize, Deserialize)]
struct InForce {
    /// The keeper's number, by which a successor reports the configuration.
    number: u64,
    #[serde(deserialize_with = "record::without_unknown")]
    config: Config,
}

/// The configuration in force, and the one being committed.
pub(in crate::worker) struct ConfigInForce {
    /// The configuration in force. Threads and requests hold copies of the pointer.
    config: Arc<Config>,
    /// The configuration being committed; `None`: no change is under way.
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

    /// The configuration that is being put in force; `None`: no change is under way.
    pub(in crate::worker) fn proposed(&self) -> Option<&ProposedConfig> {
        self.proposed.as_ref()
    }

    /// Returns whether a change of configuration is under way. Other reloads wait meanwhile.
    pub(in crate::worker) fn is_changing(&self) -> bool {
        self.proposed.is_some()
    }

    /// Begins a change of configuration. The caller makes sure that none is under way.
    pub(in crate::worker) fn begin(&mut self, proposed: ProposedConfig) {
        self.proposed = Some(proposed);
    }

    /// Ends a change of configuration: it is committed, or refused.
    pub(in crate::worker) fn take_proposed(&mut self) -> Option<ProposedConfig> {
        self.proposed.take()
    }

    /// Puts the proposed configuration in force and records it for a successor. The change ends
    /// with [`ConfigInForce::take_proposed`], once the record is committed. If the store has no
    /// room, an error is logged, and the configuration is in force in this process alone.
    pub(in crate::worker) fn adopt(&mut self, core: &mut Core) {
        let Some(ProposedConfig { number, config, .. }) = &self.proposed else { return };
        held_files::hold(core, &config.files);
        let config_alone = Config { files: FileContents::default(), ..(**config).clone() };
        let record = InForce { number: *number, config: config_alone };
        if !core.put_host_record(Kind::Config, 0, &serde_json::to_vec(&record).unwrap_or_default()) {
            tracing::error!(
                "no room to record the configuration: a successor would go on with the previous one"
            );
        }
        self.config = config.clone();
    }
}

/// The configuration that a predecessor has put in force. `None`: there is no record, or none that
/// can be read. Then the keeper's configuration holds.
pub(in crate::worker) fn recorded(core: &Core) -> Option<Config> {
    let mut config = read(core)?.config;
    config.files = held_files::of(core, &config.settings(), &mut FileContents::default());
    Some(config)
}

/// The keeper's number for the recorded configuration.
pub(in crate::worker) fn recorded_number(core: &Core) -> Option<u64> {
    read(core).map(|r| r.number)
}

/// Reads the record. A record that cannot be read is logged, and counts as none.
fn read(core: &Core) -> Option<InForce> {
    let (_, json) = core.host_records_from(Kind::Config, 0, 1).pop()?;
    serde_json::from_slice(&json)
        .inspect_err(|e| {
            tracing::error!(
                "the record of the configuration cannot be read, so the initial configuration holds: {e}"
            )
        })
        .ok()
}
