//! Runtime directory: one host's lock, admin socket and private copies of libraries.
//!
//! | entry | holds |
//! | --- | --- |
//! | `lock` | the host's pid; locked while the host lives |
//! | `admin.sock` | the admin socket, mode 0600; 0666 if others than the host's user have a role |
//! | `console.token` | the token of the console, mode 0600, if the console is on |
//! | `copies` | private copies of libraries, unless another directory is given |
//! | `tables.saved` | saved tables and ledger, unless the configuration names another file |
//!
//! The directory belongs to the host's user and has mode 0700, or 0711 if others have a role: then
//! they may cross it to the socket, and see no name. A directory that exists and that others may
//! read or write is refused, not repaired: somebody may have put files there already. The
//! lock, not the pid file's text, decides whether a host lives: the kernel drops it with the
//! process. The host's first process holds the [`Runtime`]; workers get paths and no lock.
//!
//! Files can be deleted while a host lives: by an operator, or by a service that cleans up. So
//! the host also claims the place by a name in the kernel's memory (`claim`), holds the builds in
//! use by descriptor ([`held_builds`]), and makes anew what is gone ([`Runtime::look`]).

mod claim;
pub mod copies_lock;
pub mod held_builds;
mod lock_file;
pub mod save_lock;

use claim::{Claim, Claimed};
use copies_lock::CopiesLock;
use lock_file::{LockFile, NotLocked};
use rustix::fs::{StatVfsMountFlags, statvfs};
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
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

/// Path of the runtime directory that a command without `--runtime` means: the first of the default
/// ones that has an admin socket, else the default of [`default_dir`]. So root finds the system's
/// host from a login with an `$XDG_RUNTIME_DIR` of its own.
pub fn dir_of_commands() -> PathBuf {
    let default = default_dir();
    let all = [default.as_path(), Path::new("/run/greenroom")];
    let found = all.into_iter().find(|dir| socket_path(dir).exists()).map(Path::to_path_buf);
    found.unwrap_or(default)
}

/// Path of the admin socket.
pub fn socket_path(dir: &Path) -> PathBuf {
    dir.join("admin.sock")
}

/// Path of the console's token.
pub fn token_path(dir: &Path) -> PathBuf {
    dir.join("console.token")
}

/// Runtime directory that this process holds. Dropping it gives the locks back.
#[derive(Debug)]
pub struct Runtime {
    /// Path of the directory.
    dir: PathBuf,
    /// Directory of private copies, which other hosts may share.
    copies: PathBuf,
    /// Claim of the directory's place. `None`: the kernel gave no name.
    claim: Option<Claim>,
    /// Held while the host lives. The kernel releases it however the host ends.
    lock: LockFile,
    /// Names this host among those that share the directory of copies.
    copies_lock: CopiesLock,
}

/// Outcome of a look at the files of a runtime directory.
#[derive(Debug, Default)]
pub struct RuntimeLook {
    /// Files that were gone and are made anew.
    pub made: Vec<PathBuf>,
    /// Files that are gone, each with the reason why it cannot be made anew.
    pub missing: Vec<String>,
}

impl RuntimeLook {
    /// Looks whether a lock is in place, and takes it anew. `make_dir` makes its directory first.
    fn look_at(&mut self, lock: &mut LockFile, make_dir: impl FnOnce() -> Result<(), String>) {
        if lock.is_in_place() {
            return;
        }
        match make_dir().and_then(|()| LockFile::take(lock.path().into()).map_err(|e| e.to_string())) {
            Ok(again) => {
                *lock = again;
                self.made.push(lock.path().into());
            }
            Err(why) => self.missing.push(format!("{}: {why}", lock.path().display())),
        }
    }
}

impl Runtime {
    /// Creates the directory, takes its lock, and clears what a dead host has left there.
    ///
    /// A second host is refused, with the first one's pid, also if the first one's files are gone.
    /// Also refused are a directory that is open to others and a directory of copies on a noexec
    /// mount. A refusal leaves a live host's files alone: all changes come after claim and lock.
    /// Copies of dead hosts are deleted. O(files in `copies`).
    pub fn take(dir: &Path, copies: Option<&Path>) -> Result<Runtime, String> {
        make_private_dir(dir)?;
        let in_use = |pid: &str| {
            format!(
                "{} is in use by the greenroom host with pid {pid}; stop it, or give this one another directory with --runtime",
                dir.display()
            )
        };
        // Before the lock: a lock file that a live host misses must not be made by another one.
        let claim = match Claim::take(dir) {
            Claimed::Ours(claim) => Some(claim),
            Claimed::Unclaimed => None,
            Claimed::By(pid) => return Err(in_use(&pid.to_string())),
        };
        let lock = LockFile::take(dir.join("lock")).map_err(|e| match e {
            NotLocked::Held(pid) => in_use(&pid),
            NotLocked::Failed(why) => format!("{}: {why}", dir.join("lock").display()),
        })?;
        let copies = copies.map_or_else(|| dir.join("copies"), Path::to_path_buf);
        make_private_dir(&copies)?;
        check_exec(&copies)?;
        let copies_lock = CopiesLock::take(&copies)?;
        copies_lock::remove_of_dead_hosts(&copies);
        // A killed host leaves its socket, and a path that exists can't be bound. The lock is
        // held, so the socket is nobody's.
        let _ = std::fs::remove_file(socket_path(dir));
        Ok(Runtime { dir: dir.into(), copies, claim, lock, copies_lock })
    }

    /// Directory of private copies.
    pub fn copies(&self) -> &Path {
        &self.copies
    }

    /// Number that names this host in the directory of copies.
    pub fn host_number(&self) -> u32 {
        self.copies_lock.number()
    }

    /// Default file of saved tables and ledger. On a tmpfs, as below /run, a reboot deletes it.
    pub fn save(&self) -> PathBuf {
        self.dir.join("tables.saved")
    }

    /// The admin socket's path.
    pub fn socket(&self) -> PathBuf {
        socket_path(&self.dir)
    }

    /// Looks whether directories and locks are in place, and makes anew what is gone.
    ///
    /// Costs one stat for each lock file. A lock that another host has taken meanwhile, or a
    /// directory that is open to others, is reported as missing.
    pub fn look(&mut self) -> RuntimeLook {
        if let Some(claim) = &self.claim {
            claim.dismiss_askers();
        }
        let mut looked = RuntimeLook::default();
        for (dir, lock) in [(&self.dir, &mut self.lock), (&self.copies, self.copies_lock.file_mut())] {
            looked.look_at(lock, || make_anew(dir));
        }
        looked
    }

    /// Whether the lock is in place: the directory is still this host's.
    pub fn is_ours(&self) -> bool {
        self.lock.is_in_place()
    }
}

/// Creates a directory of mode 0700, and its parents with the usual mode. An existing one must
/// be a directory of this user that nobody else may read or write; a symbolic link is refused.
fn make_private_dir(dir: &Path) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: can't be made: {e}", dir.display());
    if let Some(parent) = dir.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(e)),
        _ => {}
    }
    check_private(dir)
}

/// Makes a directory again that was deleted under a live host, with mode 0700, and its parents with
/// the same mode: one of them may be the runtime directory. O(depth of the path).
pub fn make_anew(dir: &Path) -> Result<(), String> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|e| format!("{}: can't be made anew: {e}", dir.display()))?;
    check_private(dir)
}

/// Refuses a path that is no directory of this user, or that others may read or write. Who may only
/// cross it has put nothing there.
fn check_private(dir: &Path) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", dir.display());
    // An existing directory may be a trap: in /tmp anybody can make this path first.
    let meta = std::fs::symlink_metadata(dir).map_err(failed)?;
    let me = rustix::process::geteuid().as_raw();
    let what = if !meta.is_dir() {
        "is not a directory".to_owned()
    } else if meta.uid() != me {
        format!("belongs to user {}, not to {me}", meta.uid())
    } else if meta.mode() & 0o066 != 0 {
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

    /// Two hosts of one process have one pid, like two that are pid 1 in namespaces of their own.
    #[test]
    fn copies_of_a_live_host_of_the_same_pid_stay() {
        let base = tempfile::tempdir().unwrap();
        let copies = base.path().join("copies");
        let take = |dir: &str| Runtime::take(&base.path().join(dir), Some(&copies)).unwrap();
        let files = || std::fs::read_dir(&copies).unwrap().count();
        let first = take("one");
        let copy = copies.join(format!("a-{}-0-0123456789ab.so", first.host_number()));
        std::fs::write(&copy, "x").unwrap();
        let second = take("two");
        assert!(copy.exists());
        drop(second);
        drop(take("three"));
        assert!(copy.exists());
        assert_eq!(files(), 3, "the copy, its host's lock, and that of the last host");
        drop(first);
        let _last = take("four");
        assert_eq!(files(), 1, "the lock of the host that lives");
    }

    #[test]
    fn locks_that_are_deleted_are_taken_anew() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("run");
        let mut runtime = Runtime::take(&dir, None).unwrap();
        let looked = runtime.look();
        assert!(looked.made.is_empty() && looked.missing.is_empty() && runtime.is_ours(), "{looked:?}");

        std::fs::remove_dir_all(&dir).unwrap();
        assert!(!runtime.is_ours());
        let looked = runtime.look();
        assert_eq!((looked.made.len(), looked.missing), (2, vec![]));
        assert!(runtime.is_ours() && runtime.look().made.is_empty());
        assert!([&dir, &dir.join("copies")].iter().all(|d| d.metadata().unwrap().mode() & 0o777 == 0o700));

        // Another host, which sees no claim, has taken the place.
        std::fs::remove_file(dir.join("lock")).unwrap();
        let other = LockFile::take(dir.join("lock")).unwrap();
        let looked = runtime.look();
        assert!(looked.missing[0].contains("another host") && !runtime.is_ours(), "{looked:?}");
        drop(other);
        assert_eq!(runtime.look().made, [dir.join("lock")]);
    }

    #[test]
    fn a_second_host_and_an_open_directory_are_refused() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("run");
        let first = Runtime::take(&dir, None).unwrap();
        assert_eq!(dir.metadata().unwrap().mode() & 0o777, 0o700);
        let err = Runtime::take(&dir, None).unwrap_err();
        assert!(err.contains(&format!("pid {}", std::process::id())), "{err}");
        // Its files are gone, and it lives.
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(Runtime::take(&dir, None).unwrap_err(), err);
        drop(first);
        Runtime::take(&dir, None).unwrap();
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).unwrap();
        assert!(Runtime::take(&dir, None).unwrap_err().contains("mode 755"));
        assert!(Runtime::take(Path::new("/proc/nowhere"), None).is_err());
    }
}
