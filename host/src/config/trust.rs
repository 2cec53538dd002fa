//! File trust: owner, mode and hash of a library.
//!
//! The code of a library runs with the host's rights, so only trusted users may be able to
//! write the file. Checked each time that a file is staged, not only at the start.
//!
//! | check | closes |
//! | --- | --- |
//! | owner and mode of the open file | a user who writes into the file |
//! | owner and mode of its directory | a user who puts another file in its place |
//! | the same of each link's directory | a user who moves the link to another file |
//! | hash, if hashes are configured | a build that nobody has approved |
//!
//! The metadata is that of the descriptor that is read. A file that is swapped after the check
//! is not the one that is loaded. Directories above the file's own are not checked.

use serde::{Deserialize, Serialize};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Section `[trust]` of the configuration. The default trusts the host's user and root.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trust {
    /// Accept libraries that their group may write or replace.
    pub group_writable: bool,
    /// User ids whose libraries are accepted, beside the host's own and root.
    pub owners: Vec<u32>,
    /// SHA-256 of the builds that may be loaded, in hexadecimal, in upper or lower case. Empty:
    /// any.
    pub hashes: Vec<String>,
}

/// Hexadecimal digits of a SHA-256.
const SHA256_DIGITS: usize = 64;

/// Mode bit of a sticky directory, such as /tmp.
const STICKY: u32 = 0o1000;

impl Trust {
    /// Checks that each hash is a SHA-256. Another text would allow no build, and refuse all. The
    /// error names key and place.
    pub(super) fn check(&self) -> Result<(), String> {
        let is_sha256 = |h: &str| h.len() == SHA256_DIGITS && h.bytes().all(|b| b.is_ascii_hexdigit());
        match self.hashes.iter().enumerate().find(|(_, hash)| !is_sha256(hash)) {
            Some((at, bad)) => Err(format!(
                "trust.hashes.{at}: {bad:?} is no SHA-256, which has {SHA256_DIGITS} hexadecimal digits; \
                 `sha256sum FILE` prints it"
            )),
            None => Ok(()),
        }
    }

    /// Checks owner and mode of a library file and of its directory.
    ///
    /// `file` is the metadata of the open descriptor that the library is read through. The
    /// error names file or directory, and says what would help.
    pub fn check_file(&self, path: &Path, file: &Metadata) -> Result<(), String> {
        self.check_mode(path, file)?;
        // The directory that holds the file itself, not a link to it.
        let real = path.canonicalize().map_err(|e| format!("{}: {e}", path.display()))?;
        self.check_dir(real.parent().unwrap_or(Path::new("/")))
    }

    /// Checks owner and mode of a directory that holds a library, or a link that leads to one.
    pub fn check_dir(&self, dir: &Path) -> Result<(), String> {
        let meta = dir.metadata().map_err(|e| format!("{}: {e}", dir.display()))?;
        // In a sticky directory nobody but its owner can replace the files of others.
        let checked = match meta.mode() & STICKY {
            0 => self.check_mode(dir, &meta),
            _ => self.check_owner(dir, &meta),
        };
        checked.map_err(|why| format!("{why}: whoever can, can put another file in its place"))
    }

    /// Checks a build's hash, in hexadecimal. Called with the hash of the bytes that were read.
    pub fn check_hash(&self, hash: &str) -> Result<(), String> {
        if self.hashes.is_empty() || self.hashes.iter().any(|h| h.eq_ignore_ascii_case(hash)) {
            return Ok(());
        }
        Err(format!("build {hash} is not among trust.hashes of the configuration"))
    }

    /// Checks the owner of a file or a directory. `path` is only for the error.
    fn check_owner(&self, path: &Path, meta: &Metadata) -> Result<(), String> {
        let at = path.display();
        let me = rustix::process::geteuid().as_raw();
        let owner = meta.uid();
        if owner != me && owner != 0 && !self.owners.contains(&owner) {
            return Err(format!(
                "{at} belongs to user {owner}, not to {me} or root; name that user in trust.owners of the configuration to trust it"
            ));
        }
        Ok(())
    }

    /// Checks owner and mode of a file or a directory. `path` is only for the error.
    fn check_mode(&self, path: &Path, meta: &Metadata) -> Result<(), String> {
        self.check_owner(path, meta)?;
        let (at, mode) = (path.display(), meta.mode() & 0o7777);
        // Refused even for a trusted owner: the bytes may be anybody's.
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
    fn what_is_no_sha256_is_refused_with_its_place() {
        let good = "0123456789abcdefABCDEF".to_owned() + &"0".repeat(42);
        let read = |hash: &str| {
            crate::config::tests::read(&format!("[trust]\nhashes = [\"{good}\", \"{hash}\"]\n")).map(drop)
        };
        assert_eq!(read(&good), Ok(()));
        for bad in ["abc", "", &good[1..], &good.replace('0', "g"), &format!("{good} "), &"ä".repeat(32)] {
            let said = read(bad).unwrap_err();
            assert!(said.contains(&format!("trust.hashes.1: {bad:?} is no SHA-256")), "{said}");
        }
    }

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
        assert!(check(&strict, 0o755, 0o775).unwrap_err().contains("put another file in its place"));
        let loose = Trust { group_writable: true, ..Trust::default() };
        assert_eq!(check(&loose, 0o775, 0o775), Ok(()));
        assert!(check(&loose, 0o777, 0o755).is_err());
        let some = Trust { hashes: vec!["AB".into()], ..Trust::default() };
        assert!(some.check_hash("ab").is_ok() && some.check_hash("cd").unwrap_err().contains("trust.hashes"));
        assert!(strict.check_hash("cd").is_ok());
    }
}
