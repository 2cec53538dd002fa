//! Section `[save]`: file of saved tables and ledger, and interval of saves.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Longest interval of saves: ten years, in seconds. A longer one could overflow a time.
const EVERY_S_MAX: u64 = 10 * 366 * 24 * 3600;

/// File of saved tables and ledger, and the interval of saves.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SaveConfig {
    /// The file, relative to the configuration's. None: `tables.saved` in the runtime directory,
    /// which a reboot may delete.
    pub file: Option<PathBuf>,
    /// Seconds between two saves; 0: only when the host is stopped.
    pub every_s: u64,
}

impl SaveConfig {
    /// Checks the interval. The error names the key.
    pub(super) fn check(&self) -> Result<(), String> {
        match self.every_s {
            ..=EVERY_S_MAX => Ok(()),
            s => Err(format!("save.every_s is {s}: it must be at most {EVERY_S_MAX}")),
        }
    }
}
