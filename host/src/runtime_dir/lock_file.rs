//! Lock files: a file whose lock says that its host lives.
//!
//! The kernel drops the lock with the process, so a lock that can be taken belongs to nobody. The
//! text is a pid, for messages alone.
//!
//! A lock counts only while its path names the locked file: a file that was deleted keeps its lock,
//! and a second host would lock another file of the same name.

use crate::sys::regular_file;
use rustix::fs::{FlockOperation, OFlags, flock};
use std::fmt::{self, Display, Formatter};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Times that a lock is taken anew because its file was deleted in between.
const TRIES_MAX: u32 = 8;

/// A lock file that this process has locked.
#[derive(Debug)]
pub(super) struct LockFile {
    path: PathBuf,
    /// Holds the lock until it is closed.
    file: File,
}

/// Reason why a lock file is not locked.
#[derive(Debug)]
pub(super) enum NotLocked {
    /// Another process holds it: the text of its file, a pid. Empty: not written yet.
    Held(String),
    /// The file cannot be used, for this reason.
    Failed(String),
}

impl Display for NotLocked {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            NotLocked::Held(pid) => write!(f, "another host, with pid {pid}, has taken its place"),
            NotLocked::Failed(why) => f.write_str(why),
        }
    }
}

impl LockFile {
    /// Creates or opens a file with mode 0600, locks it, and writes this process's pid into it.
    /// Never waits for another holder.
    pub(super) fn take(path: PathBuf) -> Result<LockFile, NotLocked> {
        let failed = |what: &str, e: &dyn Display| NotLocked::Failed(format!("{what}: {e}"));
        for _ in 0..TRIES_MAX {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            // A link's target is another's file.
            let (mut file, _) = match regular_file::open_with(&path, &mut options, OFlags::NOFOLLOW) {
                Err(e) if std::fs::symlink_metadata(&path).is_ok_and(|at| at.is_symlink()) => {
                    return Err(failed("can't be opened: it is a link, which is not followed", &e));
                }
                opened => opened.map_err(|e| failed("can't be opened", &e))?,
            };
            // Not blocking: an operator who starts a second host wants an answer, not a queue.
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                // The pid is only for the message. A host that has just taken the lock may not have
                // written it.
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                return Err(NotLocked::Held(pid.trim().to_owned()));
            }
            // Truncated only under the lock: before that, the pid may be a live host's.
            let write = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
            write.map_err(|e| failed("can't be written", &e))?;
            let lock = LockFile { path: path.clone(), file };
            // The file may have been deleted between its opening and its lock.
            if lock.is_in_place() {
                return Ok(lock);
            }
        }
        Err(failed("can't be locked", &"it is deleted again and again"))
    }

    /// Path of the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the path still names the locked file. Costs a stat of the path, and one of the
    /// descriptor.
    pub(super) fn is_in_place(&self) -> bool {
        names(&self.path, &self.file)
    }
}

/// Whether a path names this very file. False also if the path cannot be looked at.
pub(super) fn names(path: &Path, file: &File) -> bool {
    let place = |m: std::fs::Metadata| (m.dev(), m.ino());
    match (std::fs::symlink_metadata(path), file.metadata()) {
        (Ok(there), Ok(held)) => place(there) == place(held),
        _ => false,
    }
}
