//! Content of a library file that is finished, and the private copy that is loaded.
//!
//! The file is read once. The same bytes are hashed, inspected, copied and loaded, so a file
//! that changes meanwhile cannot pass the checks with other content. Owner and mode are checked
//! on the open descriptor.
//!
//! The loader knows a library by its path and inode, and returns the old code for a path that
//! it has seen. A file that is overwritten under a mapping crashes the process. So the loader
//! always gets a copy, under a name never used before. The watched file itself is never mapped.
//!
//! Reading costs O(bytes) of time and memory, up to 1 GiB. It waits for a writer, and runs on
//! the prepare thread.

use crate::config::trust::Trust;
use crate::plugin::lookups::links_on_the_way;
use crate::runtime_dir::copies_lock::copied_by;
use crate::runtime_dir::make_anew;
use crate::sys::regular_file;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Time without a write after which a file counts as finished. The watcher waits as long before
/// it reports a path.
pub const QUIET: Duration = Duration::from_millis(150);
/// Time after which a file that is written without a pause is given up. The prepare thread does
/// nothing else meanwhile.
const QUIET_WAIT_MAX: Duration = Duration::from_secs(10);
/// Size of the largest library, in bytes.
pub(super) const BYTES_MAX: u64 = 1 << 30;

/// Words of a refusal, if a private copy has no room.
pub const NOT_WRITTEN: &str = "can't be written";

/// Content of a library file.
#[derive(Debug, Clone)]
pub struct Content {
    /// Bytes of the file.
    pub bytes: Vec<u8>,
    /// SHA-256, in hexadecimal.
    pub hash: String,
}

/// Reads a file once it is finished. Blocks for at most 10 s, and the time of the read. An
/// error says what is wrong with the file, or with those who may write it.
pub fn read(path: &Path, trust: &Trust) -> Result<Content, String> {
    let give_up = Instant::now() + QUIET_WAIT_MAX;
    loop {
        match read_now(path, trust)? {
            Some(content) => return Ok(content),
            None if Instant::now() > give_up => {
                return Err(format!(
                    "{} has been written to for {} s",
                    path.display(),
                    QUIET_WAIT_MAX.as_secs()
                ));
            }
            None => std::thread::sleep(QUIET / 3),
        }
    }
}

/// Hash of what a file holds now, as [`Content::hash`]. Reads in pieces, and waits for nobody. An
/// error says why it can't be read, without the path.
pub fn hash_of(path: &Path) -> Result<String, String> {
    let (mut file, meta) = regular_file::open(path).map_err(|e| e.to_string())?;
    if meta.len() > BYTES_MAX {
        return Err(format!("it has {} bytes; the largest library is {BYTES_MAX}", meta.len()));
    }
    let (mut hash, mut piece) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(hex(&hash.finalize())),
            Ok(n) => hash.update(&piece[..n]),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e.to_string()),
        }
    }
}

/// Opens a file to read it. Opening a FIFO does not block.
fn open(path: &Path) -> std::io::Result<File> {
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    OpenOptions::new().read(true).custom_flags(nonblock).open(path)
}

/// Bytes in hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Reads a file, if nobody is writing it. `None`: the file is younger than [`QUIET`], or
/// changed while it was read.
fn read_now(path: &Path, trust: &Trust) -> Result<Option<Content>, String> {
    let at = path.display();
    let mut file = open(path).map_err(|e| match e.kind() {
        ErrorKind::NotFound => format!("{at} does not exist"),
        _ => format!("{at} can't be opened: {e}"),
    })?;
    let stat = |f: &File| f.metadata().map_err(|e| format!("{at}: {e}"));
    let before = stat(&file)?;
    let kind = before.file_type();
    if !kind.is_file() {
        let what = match kind {
            k if k.is_dir() => "a directory",
            k if k.is_fifo() => "a FIFO",
            k if k.is_socket() => "a socket",
            _ => "a device",
        };
        return Err(format!("{at} is {what}, not a library file"));
    }
    // Checked before the content is read: a file that others may write is none of ours,
    // whatever is in it.
    trust.check_file(path, &before)?;
    // A link may be moved to another file.
    links_on_the_way(path)
        .iter()
        .filter_map(|link| link.parent())
        .try_for_each(|dir| trust.check_dir(dir))?;
    if before.len() > BYTES_MAX {
        return Err(format!("{at} has {} bytes; the largest library is {BYTES_MAX}", before.len()));
    }
    // A time stamp in the future tells nothing, so it counts as old.
    let age = before.modified().ok().and_then(|t| SystemTime::now().duration_since(t).ok());
    if age.is_some_and(|age| age < QUIET) {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(before.len() as usize);
    file.read_to_end(&mut bytes).map_err(|e| format!("{at} can't be read: {e}"))?;
    let after = stat(&file)?;
    let mark = |m: &std::fs::Metadata| (m.len(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
    // A rename or another hard link changes the ctime, too. Then the same content is read once
    // more.
    if mark(&before) != mark(&after) || bytes.len() as u64 != after.len() {
        return Ok(None);
    }
    let hash = hex(&Sha256::digest(&bytes));
    Ok(Some(Content { bytes, hash }))
}

/// Directory of private copies. Names are `LIBRARY-HOST-N-HASH.so`, and
/// `runtime_dir/copies_lock.rs` reads them.
#[derive(Debug)]
pub struct Copies {
    /// Directory, which other hosts may use too.
    dir: PathBuf,
    /// Number of the host, which outlives the workers that write and load copies.
    host: u32,
    /// Number of the next copy. The upper half is the writer's, so two workers of a host never
    /// use the same name.
    next: u64,
}

impl Copies {
    /// Copies of one writer. The number `writer` tells the processes of one host apart.
    pub fn new(dir: PathBuf, host: u32, writer: u64) -> Copies {
        Copies { dir, host, next: writer << 32 }
    }

    /// Writes a private copy, under a name that none had before. If it cannot be written,
    /// nothing is left of it. The mode lets nobody write the copy, and nobody but the owner
    /// read it. A directory that was deleted is made anew.
    pub fn write(&mut self, content: &Content, library: &str) -> Result<PathBuf, String> {
        let (host, n) = (self.host, self.next);
        self.next += 1;
        let path = self.dir.join(format!("{library}-{host}-{n}-{}.so", &content.hash[..12]));
        let failed = |e: std::io::Error| format!("the private copy {} {NOT_WRITTEN}: {e}", path.display());
        // An existing file is never overwritten: a process may have it mapped.
        let create = || OpenOptions::new().write(true).create_new(true).mode(0o500).open(&path);
        let created = match create() {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                make_anew(&self.dir)?;
                create()
            }
            other => other,
        };
        let mut file = created.map_err(failed)?;
        if let Err(e) = file.write_all(&content.bytes) {
            let _ = std::fs::remove_file(&path);
            return Err(failed(e));
        }
        Ok(path)
    }

    /// Number and bytes of the copies of this host that are there. O(files in the directory).
    pub fn kept(&self) -> (usize, u64) {
        let (mut number, mut bytes) = (0, 0);
        for file in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if file.file_name().to_str().and_then(copied_by) == Some(self.host) {
                (number, bytes) = (number + 1, bytes + file.metadata().map_or(0, |m| m.len()));
            }
        }
        (number, bytes)
    }

    /// Directory of the copies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Removes the copies of this host, except `needed`. O(files in the directory). A copy that
    /// cannot be removed stays until the next worker tries.
    pub fn remove_others(&self, needed: &BTreeSet<PathBuf>) {
        let needed: BTreeSet<_> = needed.iter().filter_map(|copy| copy.file_name()).collect();
        for file in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = file.file_name();
            let own = name.to_str().and_then(copied_by) == Some(self.host);
            if own && !needed.contains(name.as_os_str()) {
                let _ = std::fs::remove_file(file.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_this_host_are_removed_if_nobody_needs_them() {
        let dir = tempfile::tempdir().unwrap();
        let content = Content { bytes: b"x".to_vec(), hash: "0123456789abcdef".into() };
        let mut own = Copies::new(dir.path().into(), 77, 1);
        let needed = own.write(&content, "a").unwrap();
        let left = own.write(&content, "a").unwrap();
        let other = Copies::new(dir.path().into(), 78, 1).write(&content, "a").unwrap();
        let foreign = dir.path().join("liba.so");
        std::fs::write(&foreign, "x").unwrap();
        Copies::new(dir.path().into(), 77, 2).remove_others(&BTreeSet::from([needed.clone()]));
        assert_eq!([needed, left, other, foreign].map(|p| p.exists()), [true, false, true, true]);
    }

    #[test]
    fn a_link_that_others_may_move_is_refused() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let base = tempfile::tempdir().unwrap();
        let (file, links) = (base.path().join("a.so"), base.path().join("links"));
        std::fs::write(&file, "x").unwrap();
        std::fs::create_dir(&links).unwrap();
        symlink(&file, links.join("a.so")).unwrap();
        let read = |mode| {
            std::fs::set_permissions(&links, PermissionsExt::from_mode(mode)).unwrap();
            read(&links.join("a.so"), &Trust::default()).map(|content| content.bytes)
        };
        assert_eq!(read(0o755), Ok(b"x".to_vec()));
        let said = read(0o777).unwrap_err();
        assert!(said.contains("links may be written by everybody"), "{said}");
    }

    #[test]
    fn a_copy_is_written_although_its_directory_was_deleted() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("run/copies");
        let content = Content { bytes: b"x".to_vec(), hash: "0123456789abcdef".into() };
        let copy = Copies::new(dir.clone(), 77, 1).write(&content, "a").unwrap();
        assert_eq!(std::fs::read(copy).unwrap(), b"x");
        for dir in [&dir, &base.path().join("run")] {
            assert_eq!(dir.metadata().unwrap().mode() & 0o777, 0o700, "{}", dir.display());
        }
    }
}
