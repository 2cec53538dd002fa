//! Runtime directory: one host's lock, admin socket and private copies of libraries.
//!
//! | entry | holds |
//! | --- | --- |
//! | `lock` | the host's pid; locked while the host lives |
//! | `admin.sock` | the admin socket, mode 0600 |
//! | `copies` | private copies of libraries, unless another directory is given |
//! | `tables.saved` | saved tables and ledger, unless the configuration names another file |
//!
//! The directory has mode 0700 and belongs to the host's user. A directory that exists and is
//! open to others is refused, not repaired: somebody may have put files there already. The
//! lock, not the pid file's text, decides whether a host lives: the kernel drops it with the
//! process. The keeper's process holds the [`Runtime`]; workers get paths and no lock.

use rustix::fs::{FlockOperation, StatVfsMountFlags, flock, statvfs};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Default path of the runtime directory: `$XDG_RUNTIME_DIR/greenroom`, else `/run/greenroom`
/// for root, else `/tmp/greenroom-UID`. Commands and host compute the same path, so commands
/// find their host.
pub fn default_dir() -> PathBuf {
    let uid = rustix::process::geteuid();
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if !dir.is_empty() => Path::new(&dir).join("greenroom"),
        _ if uid.is_root() => "/run/greenroom".into(),
        _ => format!("/tmp/greenroom-{}", uid.as_raw()).into(),
    }
}

/// Path of the admin socket.
pub fn socket_path(dir: &Path) -> PathBuf {
    dir.join("admin.sock")
}

/// Runtime directory that this process holds. Dropping it removes the admin socket and then
/// gives the lock back.
#[derive(Debug)]
pub struct Runtime {
    /// Path of the directory.
    dir: PathBuf,
    /// Directory of private copies, which other hosts may share.
    copies: PathBuf,
    /// Held while the host lives. The kernel releases it however the host ends.
    _lock: File,
}

impl Runtime {
    /// Creates the directory, takes its lock, and clears what a dead host has left there.
    ///
    /// A second host is refused, with the first one's pid. Also refused are a directory that is
    /// open to others and a directory of copies on a noexec mount. A refusal leaves a live
    /// host's files alone: all deletions come after the lock. Copies of dead hosts are deleted.
    /// O(files in `copies`).
    pub fn take(dir: &Path, copies: Option<&Path>) -> Result<Runtime, String> {
        make_private_dir(dir)?;
        let lock_path = dir.join("lock");
        let failed = |what: &str, e: &dyn std::fmt::Display| format!("{}: {what}: {e}", lock_path.display());
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|e| failed("can't be opened", &e))?;
        // Not blocking: an operator who starts a second host wants an answer, not a queue.
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            // The pid is only for the message. A host that has just taken the lock may not have
            // written it.
            let mut pid = String::new();
            let _ = lock.read_to_string(&mut pid);
            return Err(format!(
                "{} is in use by the greenroom host with pid {}; stop it, or give this one another directory with --runtime",
                dir.display(),
                pid.trim()
            ));
        }
        // Truncated only under the lock: before that, the pid may be a live host's.
        let write = lock.set_len(0).and_then(|()| write!(lock, "{}", std::process::id()));
        write.map_err(|e| failed("can't be written", &e))?;

        let copies = copies.map_or_else(|| dir.join("copies"), Path::to_path_buf);
        make_private_dir(&copies)?;
        check_exec(&copies)?;
        for old in std::fs::read_dir(&copies).into_iter().flatten().flatten() {
            let name = old.file_name();
            if name
                .to_str()
                .and_then(copied_by)
                // An earlier host may have had our own pid, in a container for example.
                .is_some_and(|pid| pid == std::process::id() || !Path::new(&format!("/proc/{pid}")).exists())
            {
                let _ = std::fs::remove_file(old.path());
            }
        }
        // A killed host leaves its socket, and a path that exists can't be bound. The lock is
        // held, so the socket is nobody's.
        let _ = std::fs::remove_file(socket_path(dir));
        Ok(Runtime { dir: dir.into(), copies, _lock: lock })
    }

    /// Directory of private copies.
    pub fn copies(&self) -> &Path {
        &self.copies
    }

    /// Default file of saved tables and ledger. On a tmpfs, as below /run, a reboot deletes it.
    pub fn save(&self) -> PathBuf {
        self.dir.join("tables.saved")
    }

    /// The admin socket's path.
    pub fn socket(&self) -> PathBuf {
        socket_path(&self.dir)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // The lock is a field, so it is released after this: no successor's socket is deleted.
        let _ = std::fs::remove_file(self.socket());
    }
}

/// Process id in the name of a private copy: NAME-PID-N-HASH.so, as
/// [`crate::plugin::stage::Copies`] names them. `None`: another file. The directory may be
/// shared, so only whole matches count.
pub(crate) fn copied_by(name: &str) -> Option<u32> {
    // NAME may contain dashes, so the name is taken apart from its end.
    let mut parts = name.strip_suffix(".so")?.rsplitn(4, '-');
    let hash = parts.next()?;
    let _count: u64 = parts.next()?.parse().ok()?;
    let pid = parts.next()?.parse().ok()?;
    (hash.len() == 12 && hash.bytes().all(|b| b.is_ascii_hexdigit()) && parts.next().is_some()).then_some(pid)
}

/// Creates a directory of mode 0700, and its parents with the usual mode. An existing one must
/// be a directory of this user that nobody else may enter; a symbolic link is refused.
fn make_private_dir(dir: &Path) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: can't be made: {e}", dir.display());
    if let Some(parent) = dir.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(e)),
        _ => {}
    }
    // An existing directory may be a trap: in /tmp anybody can make this path first.
    let meta = std::fs::symlink_metadata(dir).map_err(failed)?;
    let me = rustix::process::geteuid().as_raw();
    let what = if !meta.is_dir() {
        "is not a directory".to_owned()
    } else if meta.uid() != me {
        format!("belongs to user {}, not to {me}", meta.uid())
    } else if meta.mode() & 0o077 != 0 {
        format!("is open to others (mode {:o}); chmod 700 it", meta.mode() & 0o777)
    } else {
        return Ok(());
    };
    Err(format!("{}: {what}", dir.display()))
}

/// Refuses a directory from which no library could be loaded, before the first library is
/// staged.
fn check_exec(copies: &Path) -> Result<(), String> {
    let stat = statvfs(copies).map_err(|e| format!("{}: {e}", copies.display()))?;
    if stat.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        return Err(format!(
            "{} is on a file system mounted noexec, so no library can be loaded from it; give another directory with --copies",
            copies.display()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_copies_of_dead_hosts_are_removed() {
        let base = tempfile::tempdir().unwrap();
        let copies = base.path().join("copies");
        make_private_dir(&copies).unwrap();
        let names = ["libmine.so", "echo-1-0-0123456789ab.so", "echo-x-0-0123456789ab.so", "a-b-c-d.so"];
        for name in names {
            std::fs::write(copies.join(name), "x").unwrap();
        }
        let gone = "my-echo-3999999999-12-0123456789ab.so";
        std::fs::write(copies.join(gone), "x").unwrap();
        let _held = Runtime::take(&base.path().join("run"), Some(&copies)).unwrap();
        assert!(names.iter().all(|name| copies.join(name).exists()) && !copies.join(gone).exists());
    }

    #[test]
    fn a_second_host_and_an_open_directory_are_refused() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("run");
        let first = Runtime::take(&dir, None).unwrap();
        assert_eq!(dir.metadata().unwrap().mode() & 0o777, 0o700);
        let err = Runtime::take(&dir, None).unwrap_err();
        assert!(err.contains(&format!("pid {}", std::process::id())), "{err}");
        drop(first);
        Runtime::take(&dir, None).unwrap();
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).unwrap();
        assert!(Runtime::take(&dir, None).unwrap_err().contains("mode 755"));
        assert!(Runtime::take(Path::new("/proc/nowhere"), None).is_err());
    }
}
