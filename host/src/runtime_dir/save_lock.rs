//! Lock beside the saved file: it names the one host that saves there.
//!
//! The worker saves only while the lock is held by its host ([`crate::saved_place::check_lock`]).
//! So a host whose lock was deleted does not save over what a second one has saved.
//!
//! A lock that is gone is made anew, with its directory, but on the same disk alone. A mount point
//! whose disk is gone looks like an empty directory: what is saved there would be lost to the next
//! host, which finds the disk mounted again.

use super::RuntimeLook;
use super::lock_file::{LockFile, NotLocked};
use crate::saved_place::{lock_path, make_dirs};
use std::fs::metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Lock of the host that saves to a file. Dropping it gives the lock back.
#[derive(Debug)]
pub struct SaveLock {
    /// The saved file. It may be a link, which may be led elsewhere while the host lives.
    file: PathBuf,
    lock: LockFile,
    /// Device of the lock's directory.
    device: u64,
}

impl SaveLock {
    /// Keeps other hosts from saving to this host's file as well, which would lose the tables of
    /// one of them. Makes the file's directory, as a save does, and a lock file beside it.
    pub fn take(file: &Path) -> Result<SaveLock, String> {
        let path = lock_path(file);
        let dir = dir_of(&path);
        make_dirs(dir).map_err(|e| format!("save.file: {} can't be made: {e}", dir.display()))?;
        let lock = LockFile::take(path.clone()).map_err(|e| match e {
            NotLocked::Held(pid) => format!(
                "save.file: {} is used by the host with pid {pid}, which would overwrite it; name another file",
                file.display()
            ),
            NotLocked::Failed(why) => format!("save.file: {}: {why}", path.display()),
        })?;
        let device = metadata(dir).map_err(|e| format!("save.file: {}: {e}", dir.display()))?.dev();
        Ok(SaveLock { file: file.to_owned(), lock, device })
    }

    /// Looks whether the lock is in place, and makes it anew if it is gone. If the file is a link
    /// that leads elsewhere by now, the lock there is taken instead. Costs a stat for each part of
    /// a link, and two more.
    pub fn look(&mut self) -> RuntimeLook {
        let mut looked = RuntimeLook::default();
        let path = lock_path(&self.file);
        if path != self.lock.path() {
            match SaveLock::take(&self.file) {
                Ok(moved) => {
                    looked.made.push(path);
                    *self = moved;
                }
                Err(why) => looked.missing.push(why),
            }
            return looked;
        }
        let (dir, device) = (dir_of(&path), self.device);
        looked.look_at(&mut self.lock, || {
            on_device(dir, device)?;
            make_dirs(dir).map_err(|e| format!("{}: can't be made anew: {e}", dir.display()))
        });
        looked
    }
}

/// Directory of a lock's path, which has a name.
fn dir_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Checks that a directory, or the one above in which it would be made, lies on this device.
fn on_device(dir: &Path, device: u64) -> Result<(), String> {
    let there = dir.ancestors().find_map(|dir| Some((dir, metadata(dir).ok()?)));
    match there {
        Some((at, meta)) if meta.dev() != device => Err(format!(
            "its disk is not mounted: {} is on another one; no save can be made until it is there again",
            at.display()
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_made_anew_on_its_own_disk_alone() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("saved");
        let lock = dir.join("tables.lock");
        let mut held = SaveLock::take(&dir.join("tables")).unwrap();
        assert!(SaveLock::take(&dir.join("tables")).unwrap_err().contains("is used by the host with pid"));
        assert_eq!((held.look().made.len(), lock.exists()), (0, true));
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(held.look().made, std::slice::from_ref(&lock));

        // The directory is on another disk than before.
        held.device += 1;
        std::fs::remove_dir_all(&dir).unwrap();
        let looked = held.look();
        assert!(looked.missing[0].contains("its disk is not mounted"), "{looked:?}");
        assert!(!dir.exists());
    }

    #[test]
    fn a_lock_follows_a_link_that_is_led_elsewhere() {
        let base = tempfile::tempdir().unwrap();
        let link = base.path().join("tables");
        std::os::unix::fs::symlink("one", &link).unwrap();
        let mut held = SaveLock::take(&link).unwrap();
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink("two", &link).unwrap();
        assert_eq!(held.look().made, [base.path().join("two.lock")]);
        assert!(held.look().made.is_empty());
        drop(SaveLock::take(&base.path().join("one")).unwrap());
    }
}
