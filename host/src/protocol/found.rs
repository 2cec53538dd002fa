//! Handler libraries and directories that the arguments of `serve` name.
//!
//! The host finds them once, before the keeper starts, and every worker gets the same ones in its
//! first message. Paths are absolute and otherwise as they were given: a link in one of them may be
//! moved, and leads to other files then.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Libraries and directories that were found. [`crate::plugin::discover::look`] finds them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Found {
    /// Path of each library, and whether it was named itself: one that was must load.
    pub libraries: Vec<(PathBuf, bool)>,
    /// Directories from which libraries are taken as they appear.
    pub directories: Vec<PathBuf>,
}
