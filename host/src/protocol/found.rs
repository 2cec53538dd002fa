//! Handler libraries and directories that the arguments of `serve` name.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Libraries and directories that were found. [`crate::plugin::discover::look`] finds them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Found {
    /// Path of each library, and whether it was named itself: one that was must load.
    pub libraries: Vec<(PathBuf, bool)>,
    /// Directories from which libraries are taken as they appear.
    pub directories: Vec<PathBuf>,
}

impl Found {
    /// The libraries that are links, by what they lead to.
    pub fn links(&self) -> BTreeMap<PathBuf, PathBuf> {
        let paths = self.libraries.iter().map(|(path, _)| path);
        let targets = paths.filter_map(|path| Some((path.canonicalize().ok()?, path.clone())));
        targets.filter(|(target, path)| target != path).collect()
    }

    /// The directories in which something may change.
    pub fn watched(&self) -> Vec<PathBuf> {
        let links = self.links();
        let files = self.libraries.iter().map(|(path, _)| path).chain(links.keys());
        let all: BTreeSet<_> = files
            .filter_map(|path| path.parent())
            .chain(self.directories.iter().map(PathBuf::as_path))
            .collect();
        all.into_iter().map(Path::to_path_buf).collect()
    }
}
