//! Section `[process]`: rights of the host's processes.

use serde::{Deserialize, Serialize};

/// Rights of the host's processes. Only a start of the host reads them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessConfig {
    /// User, by name or number, that a host goes on as which root has started. `None`: the one that
    /// has started it.
    pub user: Option<String>,
}
