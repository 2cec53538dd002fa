//! Handler libraries and directories that the arguments of `serve` name.
//!
//! The host finds them once, before the keeper starts, and every worker gets the same ones in its
//! first message. The keeper's process watches their directories.

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
    /// The libraries that are links, by their targets. Reads the file system; a path that cannot be
    /// resolved is left out.
    pub fn links(&self) -> BTreeMap<PathBuf, PathBuf> {
        let paths = self.libraries.iter().map(|(path, _)| path);
        let targets = paths.filter_map(|path| Some((path.canonicalize().ok()?, path.clone())));
        targets.filter(|(target, path)| target != path).collect()
    }

    /// The directories in which something may change: of the libraries, of the targets of links,
    /// and those named. Sorted, without doubles. A directory and not a file is watched, since a new
    /// build often replaces the file.
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
