//! Place of the saved file: links to it, what may lie there, and what a save may replace.
//!
//! A save replaces a file of tables, or makes one. Anything else stays as it is: a device, a
//! directory, a file of another program. A link stays, and the file that it leads to is replaced.
//! The host that saves to a file holds a lock beside it.

use crate::sys::regular_file;
use rustix::fs::{Access, FlockOperation, access, flock};
use rustix::process::{Pid, getpid, getppid};
use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Beginning of every first line. A file without it is somebody else's.
const HEAD_OF_ANY: &[u8] = b"GREENROOM TABLES ";
/// Time for which a save waits for its lock. The keeper looks every two seconds.
const LOCK_WAIT: Duration = Duration::from_secs(4);
/// Links that lead to the file, at most.
const LINKS_MAX: usize = 40;

/// Deletes an unfinished file: on a full disk its room is what the next save needs.
pub fn discard(path: &Path, writer: &str) {
    let _ = std::fs::remove_file(with_suffix(&target(path), writer));
}

/// Puts a written file in the place of the previous one. Atomic: a reader sees either of them. The
/// file counts once [`sync_place`] has returned, too. Fails without a change if the unfinished file
/// is gone, or if a device, a directory or another program's file has come in the place.
pub fn put_in_place(path: &Path, writer: &str) -> io::Result<()> {
    let path = &target(path);
    if std::fs::symlink_metadata(path).is_ok_and(|there| !there.is_file()) {
        return Err(io::Error::other(format!("{} is not a file", path.display())));
    }
    if let Ok((file, _)) = regular_file::open(path) {
        let mut begin = Vec::new();
        file.take(HEAD_OF_ANY.len() as u64).read_to_end(&mut begin)?;
        if !is_of_tables(&begin) {
            return Err(io::Error::other(format!("another program's file lies at {}", path.display())));
        }
    }
    std::fs::rename(with_suffix(path, writer), path)
}

/// Keeps a written file that must not take the place, under a name that no save uses. Returns the
/// words that tell where.
pub fn keep_aside(path: &Path, writer: &str) -> String {
    let path = &target(path);
    let seconds = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs());
    let aside = with_suffix(path, &format!("kept-{}-{seconds}", std::process::id()));
    match std::fs::rename(with_suffix(path, writer), &aside) {
        Ok(()) => format!("they are kept as {}", aside.display()),
        Err(e) => format!("and they can't be kept as {}: {e}", aside.display()),
    }
}

/// Makes [`put_in_place`] durable. Blocks for the disk.
pub fn sync_place(path: &Path) -> io::Result<()> {
    let path = &target(path);
    let dir = path.parent().filter(|d| *d != Path::new("")).unwrap_or(Path::new("."));
    // A rename is durable once the directory is synced.
    File::open(dir)?.sync_all()
}

/// The file itself, where the path is a link to it, also if it is not there: the link stays.
pub fn target(path: &Path) -> PathBuf {
    let mut at = path.to_owned();
    for _ in 0..LINKS_MAX {
        let Ok(to) = std::fs::read_link(&at) else { break };
        at = at.parent().unwrap_or(Path::new("")).join(to);
    }
    at
}

/// Makes the directory of a file, and those above it. A runtime directory that was deleted must not
/// come back open to others.
pub fn make_dirs(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Checks that this process's host holds the lock beside the file: another host may save there by
/// now, or the disk be gone under its mount point. Waits up to 4 s for the keeper, which
/// makes a lock anew that was deleted.
pub fn check_lock(path: &Path) -> io::Result<()> {
    let give_up = Instant::now() + LOCK_WAIT;
    loop {
        match has_lock(path) {
            Err(_) if Instant::now() < give_up => std::thread::sleep(LOCK_WAIT / 20),
            checked => return checked.map_err(io::Error::other),
        }
    }
}

/// Checks once that this process or its parent, the keeper, holds the lock.
fn has_lock(file: &Path) -> Result<(), String> {
    let path = lock_path(file);
    let (mut lock, _) = regular_file::open(&path)
        .map_err(|e| format!("its lock {} can't be read, and may not be this host's: {e}", path.display()))?;
    let mut text = String::new();
    lock.read_to_string(&mut text).map_err(|e| format!("{}: {e}", path.display()))?;
    let holder = text.trim().parse().ok().and_then(Pid::from_raw);
    let is_free = flock(&lock, FlockOperation::NonBlockingLockShared).is_ok();
    let is_ours = holder == Some(getpid()) || (holder.is_some() && holder == getppid());
    match is_ours && !is_free {
        true => Ok(()),
        false => Err(format!("its lock {} is not this host's: another one may save there", path.display())),
    }
}

/// Path of the lock file of the host that saves to a file.
pub fn lock_path(file: &Path) -> PathBuf {
    with_suffix(&target(file), "lock")
}

/// Opens a saved file; `None`: there is none. The error tells what to do.
pub fn open(path: &Path) -> Result<Option<File>, String> {
    match regular_file::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            match std::fs::read_link(path) {
                Err(_) => Ok(None),
                // A disk that is not mounted would look like a first start.
                Ok(to) => Err(format!(
                    "{} is a link to {}, which is not there; mount its disk, or make the link anew",
                    path.display(),
                    to.display()
                )),
            }
        }
        Ok((file, _)) => Ok(Some(file)),
        Err(e) => Err(format!("{} can't be read: {e}", path.display())),
    }
}

/// Whether a file begins like one of tables, as far as it goes: a part of it may be lost, and some
/// of it be damaged.
pub fn is_of_tables(begin: &[u8]) -> bool {
    let same = begin.iter().zip(HEAD_OF_ANY).filter(|(is, was)| is == was).count();
    2 * same >= begin.len().min(HEAD_OF_ANY.len())
}

/// Checks that tables can be read from a file, and saved there. A host would find that out when it
/// stops, and lose them. Reads no table, and changes nothing: directories are made by the save.
pub fn check(path: &Path) -> Result<(), String> {
    if let Some(file) = open(path)? {
        let mut begin = Vec::new();
        let read = file.take(HEAD_OF_ANY.len() as u64).read_to_end(&mut begin);
        read.map_err(|e| format!("{} can't be read: {e}", path.display()))?;
        if !is_of_tables(&begin) {
            return Err(not_of_tables(path));
        }
    }
    let file = target(path);
    let Some(dir) = file.ancestors().skip(1).find(|dir| dir.exists()) else { return Ok(()) };
    access(dir, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|e| format!("{}: {} can't be written: {e}", path.display(), dir.display()))
}

/// Words for a file that is another program's.
pub fn not_of_tables(path: &Path) -> String {
    format!("{} is no file of saved tables; it stays as it is: name another file", path.display())
}

/// Path with a dot and a suffix appended to the file's name.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}
