//! A build that runs or ran: the file and the settings that a process loads it from.

use crate::config::Config;
use crate::config::file_contents::FileContents;
use crate::memory::board::Board;
use crate::plugin::ffi::library::Library;
use greenroom_core::service::offer::{Build, Serving};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A build, and the file and settings that it is loaded from. A process with these loads the same
/// generation again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::worker) struct RunningBuild {
    /// Name of the library.
    pub library: String,
    /// Generation of the build.
    pub generation: u64,
    /// SHA-256 of the file, in hexadecimal.
    pub hash: String,
    /// The private copy. Its content never changes.
    pub copy: PathBuf,
    /// The entry that the file's note names.
    pub entry: String,
    /// Settings of the services, as JSON, from which the instances are built. Other settings are
    /// another generation. `None`: an older host's record, with one configuration for all.
    #[serde(default)]
    pub settings: Option<BTreeMap<String, String>>,
    /// Contents of the files that the settings name. Held as records of their own.
    #[serde(skip)]
    pub files: FileContents,
    /// Bytes of initial-exec thread-local storage that each process takes for it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub static_tls: u64,
    /// Generation that it replaced when it was committed; 0: none, or an older host's record.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub replaced: u64,
}

/// Whether a number is left out of a record.
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl RunningBuild {
    /// Records a build of the core with the file and settings that it was loaded from.
    pub(in crate::worker) fn of(
        build: &Build,
        copy: PathBuf,
        entry: String,
        settings: BTreeMap<String, String>,
        files: FileContents,
    ) -> RunningBuild {
        let Build { library, generation, hash } = build.clone();
        let settings = Some(settings);
        RunningBuild { library, generation, hash, copy, entry, settings, files, static_tls: 0, replaced: 0 }
    }

    /// The build, as the core names it: library, generation and hash.
    pub(in crate::worker) fn build(&self) -> Build {
        let RunningBuild { library, generation, hash, .. } = self.clone();
        Build { library, generation, hash }
    }

    /// Settings with the contents of their files, in the form that handlers get. `config` has the
    /// settings of a record without its own.
    pub(in crate::worker) fn settings_for_handlers(&self, config: &Config) -> BTreeMap<String, String> {
        match &self.settings {
            Some(settings) => self.files.filled_in(settings),
            None => config.files.filled_in(&config.settings()),
        }
    }

    /// Loads the build into this process. `config` has the settings of a record without its own.
    ///
    /// Runs the library's initializers on the calling thread, so only a process that does not serve
    /// yet calls it. Code once loaded is never unloaded. An error names build and file.
    pub(in crate::worker) fn load(&self, config: &Config, board: Board) -> Result<Serving, String> {
        Library::load(&self.copy, &self.entry)
            .and_then(|library| library.create(&self.settings_for_handlers(config), board))
            .map_err(|e| {
                format!("{}, generation {}, from {}: {e}", self.library, self.generation, self.copy.display())
            })
    }
}
