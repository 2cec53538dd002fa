//! File trust: owner, mode and hash of a library. Its code runs with the host's rights, so nobody
//! but trusted users may be able to write it.

use serde::{Deserialize, Serialize};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// `[trust]` of the configuration.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trust {
    /// Accept libraries that their group may write or replace.
    pub group_writable: bool,
    /// Users whose libraries are accepted, beside the host's own and root.
    pub owners: Vec<u32>,
    /// SHA-256 of the builds that may be loaded. Empty: any.
    pub hashes: Vec<String>,
}

const STICKY: u32 = 0o1000;

impl Trust {
    /// Checks owner and mode of a library file and of its directory. `file` is the metadata of the
    /// open descriptor that the library is read through.
    pub fn check_file(&self, path: &Path, file: &Metadata) -> Result<(), String> {
        self.check_mode(path, file)?;
        // The directory that holds the file itself, not a link to it.
        let real = path.canonicalize().map_err(|e| format!("{}: {e}", path.display()))?;
        let dir = real.parent().unwrap_or(Path::new("/"));
        let meta = dir.metadata().map_err(|e| format!("{}: {e}", dir.display()))?;
        // In a sticky directory only the file's owner may replace it.
        if meta.mode() & STICKY != 0 {
            return Ok(());
        }
        self.check_mode(dir, &meta)
            .map_err(|why| format!("{why}: whoever can, can put another library in its place"))
    }

    /// Checks a build's hash.
    pub fn check_hash(&self, hash: &str) -> Result<(), String> {
        if self.hashes.is_empty() || self.hashes.iter().any(|h| h.eq_ignore_ascii_case(hash)) {
            return Ok(());
        }
        Err(format!("build {hash} is not among trust.hashes of the configuration"))
    }

    fn check_mode(&self, path: &Path, meta: &Metadata) -> Result<(), String> {
        let (at, mode) = (path.display(), meta.mode() & 0o7777);
        let me = rustix::process::geteuid().as_raw();
        let owner = meta.uid();
        if owner != me && owner != 0 && !self.owners.contains(&owner) {
            return Err(format!(
                "{at} belongs to user {owner}, not to {me} or root; name that user in trust.owners of the configuration to trust it"
            ));
        }
        if mode & 0o002 != 0 {
            return Err(format!("{at} may be written by everybody (mode {mode:o}); chmod o-w it"));
        }
        if mode & 0o020 != 0 && !self.group_writable {
            return Err(format!(
                "{at} may be written by its group (mode {mode:o}); chmod g-w it, or set trust.group_writable in the configuration"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn who_may_write_a_library_is_trusted_or_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("lib.so");
        std::fs::write(&file, "x").unwrap();
        let check = |trust: &Trust, file_mode: u32, dir_mode: u32| {
            std::fs::set_permissions(&file, PermissionsExt::from_mode(file_mode)).unwrap();
            std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(dir_mode)).unwrap();
            trust.check_file(&file, &file.metadata().unwrap())
        };
        let strict = Trust::default();
        assert_eq!(check(&strict, 0o755, 0o755), Ok(()));
        assert_eq!(check(&strict, 0o755, 0o1777), Ok(()), "sticky");
        let said = check(&strict, 0o775, 0o755).unwrap_err();
        assert!(said.contains("lib.so may be written by its group (mode 775)"), "{said}");
        assert!(check(&strict, 0o777, 0o755).unwrap_err().contains("by everybody"));
        assert!(check(&strict, 0o755, 0o775).unwrap_err().contains("put another library in its place"));
        let loose = Trust { group_writable: true, ..Trust::default() };
        assert_eq!(check(&loose, 0o775, 0o775), Ok(()));
        assert!(check(&loose, 0o777, 0o755).is_err());
        let some = Trust { hashes: vec!["AB".into()], ..Trust::default() };
        assert!(some.check_hash("ab").is_ok() && some.check_hash("cd").unwrap_err().contains("trust.hashes"));
        assert!(strict.check_hash("cd").is_ok());
    }
}
