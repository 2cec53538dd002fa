//! Section `[log]`: format, file and level of the host's log.

use crate::logs::format::{LogFormat, LogTo};
use crate::logs::journal;
use crate::logs::levels::LogLevel;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Log of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Format. `None`: `journald` if standard error goes to the journal and no file is named, else
    /// `text`. Only a start of the host reads it.
    pub format: Option<LogFormat>,
    /// File, relative to the configuration's. `None`: standard error. Only a start of the host
    /// reads it.
    pub file: Option<PathBuf>,
    /// The most detailed level that is logged. `None`: `info`.
    pub level: Option<LogLevel>,
}

impl LogConfig {
    /// Checks the values. The error names the key.
    pub(super) fn check(&self) -> Result<(), String> {
        let Some(file) = &self.file else { return Ok(()) };
        if self.format == Some(LogFormat::Journald) {
            return Err(
                "log.file: the journal takes no file; leave it out, or choose `text` or `json`".into()
            );
        }
        match file.as_os_str().is_empty() || file.as_os_str().as_encoded_bytes().contains(&0) {
            true => Err(format!("log.file: {file:?} names no file")),
            false => Ok(()),
        }
    }

    /// Resolves the relative path against a directory.
    pub(super) fn resolve(&mut self, base: &Path) {
        if let Some(path) = &mut self.file {
            *path = base.join(&*path);
        }
    }

    /// Level of what has none of its own.
    pub fn level(&self) -> LogLevel {
        self.level.unwrap_or_default()
    }

    /// Place and format of the log of a process that starts a host.
    pub fn to(&self) -> LogTo {
        let goes_to_journal =
            || self.file.is_none() && journal::is_standard_error() && journal::check().is_ok();
        let by_itself = || if goes_to_journal() { LogFormat::Journald } else { LogFormat::Text };
        let format = self.format.unwrap_or_else(by_itself);
        LogTo { format: format.name().into(), file: self.file.clone() }
    }

    /// Checks that the log can go where it shall, without making a file. The error names the key.
    pub fn check_place(&self) -> Result<(), String> {
        let file = self.file.as_deref().map_or(Ok(()), crate::logs::file::check);
        file.map_err(|e| format!("log.file: {e}"))?;
        let journal = self.format.filter(|format| *format == LogFormat::Journald);
        journal.map_or(Ok(()), |_| journal::check()).map_err(|e| format!("log.format: {e}"))
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::read;
    use crate::logs::format::LogFormat;
    use crate::logs::levels::LogLevel;

    #[test]
    fn the_section_is_checked_by_key() {
        let good = read("[log]\nformat = \"json\"\nfile = \"host.log\"\nlevel = \"debug\"\n").unwrap().log;
        assert_eq!((good.format, good.level()), (Some(LogFormat::Json), LogLevel::Debug));
        assert!(good.file.unwrap().is_absolute());
        assert_eq!(read("").unwrap().log.level(), LogLevel::Info);
        for (lines, says) in [
            ("format = \"journald\"\nfile = \"a\"", "log.file: the journal takes no file"),
            ("file = \"\"", "log.file: \"\" names no file"),
            ("format = \"syslog\"", "line 2"),
            ("level = \"loud\"", "line 2"),
            ("to = \"x\"", "line 2"),
        ] {
            let said = read(&format!("[log]\n{lines}\n")).unwrap_err();
            assert!(said.contains(says), "{said}");
        }
        let here = read("[log]\nfile = \"none/log\"\n").unwrap().log;
        assert!(here.check_place().unwrap_err().contains("log.file: "));
    }
}
