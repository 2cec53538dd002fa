//! Names of private copies, and the lock that says whose they are.
//!
//! A copy is `LIBRARY-HOST-N-HASH.so`. Hosts may share a directory of copies. Each takes a random
//! number, which names its copies and its lock file `host-HOST.lock`. A pid would not do: two hosts
//! in pid namespaces of their own may have the same one.
//!
//! Copies are removed only if their host's lock can be taken. Hosts of earlier versions have no
//! lock file, and their number is a pid. Their copies are removed if no process has that pid.

use crate::runtime_dir::lock_file::{LockFile, NotLocked};
use rustix::fs::{FlockOperation, flock};
use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Numbers that are tried before a host gives up.
const TRIES_MAX: u32 = 16;

/// A host's number in a directory of copies, which no other live host has.
#[derive(Debug)]
pub(super) struct CopiesLock {
    number: u32,
    file: LockFile,
}

impl CopiesLock {
    /// Takes a number. The directory exists.
    pub(super) fn take(dir: &Path) -> Result<CopiesLock, String> {
        let mut tries = 0;
        loop {
            // Random keys, and no file of random bytes that a start would depend on.
            let number = RandomState::new().build_hasher().finish() as u32;
            match LockFile::take(path_of(dir, number)) {
                Ok(file) => return Ok(CopiesLock { number, file }),
                Err(NotLocked::Held(_)) if tries < TRIES_MAX => tries += 1,
                Err(why) => return Err(format!("{}: {why}", path_of(dir, number).display())),
            }
        }
    }

    /// The host's number.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// The lock file, to be taken anew once it is gone.
    pub(super) fn file_mut(&mut self) -> &mut LockFile {
        &mut self.file
    }
}

/// Path of a host's lock file.
fn path_of(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("host-{number}.lock"))
}

/// Number of the host in the name of a private copy, as [`crate::plugin::stage::Copies`] names
/// them. `None`: another file. The directory may be shared, so only whole matches count.
pub(crate) fn copied_by(name: &str) -> Option<u32> {
    // LIBRARY may contain dashes, so the name is taken apart from its end.
    let mut parts = name.strip_suffix(".so")?.rsplitn(4, '-');
    let hash = parts.next()?;
    let _count: u64 = parts.next()?.parse().ok()?;
    let number = parts.next()?.parse().ok()?;
    (hash.len() == 12 && hash.bytes().all(|b| b.is_ascii_hexdigit()) && parts.next().is_some())
        .then_some(number)
}

/// A host, as its lock tells.
enum Fate {
    /// The host lives, or its lock cannot be looked at.
    Lives,
    /// The host is dead, and left no lock file.
    Gone,
    /// The host is dead. The lock is held until its files are removed.
    Dead {
        /// Holds the lock.
        _lock: File,
    },
}

/// Removes the copies and the lock files of hosts that are dead. O(files in the directory).
///
/// A host makes its lock before its first copy. So the lock is looked for once a copy is seen, and
/// not before: a host that starts meanwhile is found alive.
pub(super) fn remove_of_dead_hosts(dir: &Path) {
    let mut fates = HashMap::new();
    let files = || std::fs::read_dir(dir).into_iter().flatten().flatten();
    for copy in files() {
        let Some(number) = copy.file_name().to_str().and_then(copied_by) else { continue };
        let fate = fates.entry(number).or_insert_with(|| fate_of(dir, number));
        if !matches!(fate, Fate::Lives) {
            let _ = std::fs::remove_file(copy.path());
        }
    }
    for lock in files() {
        let name = lock.file_name();
        let number = name.to_str().and_then(|n| n.strip_prefix("host-")?.strip_suffix(".lock")?.parse().ok());
        let Some(number) = number else { continue };
        if let Fate::Dead { .. } = fates.entry(number).or_insert_with(|| fate_of(dir, number)) {
            let _ = std::fs::remove_file(lock.path());
        }
    }
}

/// Finds out whether the host of this number lives.
fn fate_of(dir: &Path, number: u32) -> Fate {
    match File::open(path_of(dir, number)) {
        Ok(file) => match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Fate::Dead { _lock: file },
            Err(_) => Fate::Lives,
        },
        Err(e) if e.kind() == ErrorKind::NotFound && !Path::new(&format!("/proc/{number}")).exists() => {
            Fate::Gone
        }
        Err(_) => Fate::Lives,
    }
}
