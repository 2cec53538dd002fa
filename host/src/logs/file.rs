//! File of the log: it is opened to append, and opened again when it was rotated.

use std::fs::{File, Metadata};
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Mode of a file that is made: its group may read it.
const MODE: u32 = 0o640;

/// Path of the file that standard error is. `None`: it is something else, such as a terminal, or
/// its path cannot be found out.
pub fn of_standard_error() -> Option<PathBuf> {
    let at = rustix::fs::fstat(io::stderr()).ok()?;
    let path = std::fs::read_link("/proc/self/fd/2").ok()?;
    // A file that was deleted, or lies in another mount namespace, is another one at its path.
    let found = rustix::fs::stat(&path).ok()?;
    let is_file = rustix::fs::FileType::from_raw_mode(at.st_mode).is_file();
    (is_file && (at.st_dev, at.st_ino) == (found.st_dev, found.st_ino)).then_some(path)
}

/// Checks that a path can be the log's, without making a file. The error names the path.
pub fn check(path: &Path) -> Result<(), String> {
    let failed = |e: io::Error| format!("{}: {e}", path.display());
    match std::fs::metadata(path) {
        Ok(there) => {
            is_of_use(&there).map_err(failed)?;
            // Opened as the log opens it.
            append().open(path).map(|_| ()).map_err(failed)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let is_dir = std::fs::metadata(dir).is_ok_and(|at| at.is_dir());
            let why = |e: io::Error| format!("{}: its directory: {e}", path.display());
            if !is_dir {
                return Err(why(io::Error::from(io::ErrorKind::NotFound)));
            }
            use rustix::fs::{Access, access};
            access(dir, Access::WRITE_OK | Access::EXEC_OK).map_err(|e| why(e.into()))
        }
        Err(e) => Err(failed(e)),
    }
}

/// Refuses what is no file, and no device such as `/dev/null`: a FIFO would wait for its reader.
fn is_of_use(at: &Metadata) -> io::Result<()> {
    if at.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    match at.is_file() || at.file_type().is_char_device() {
        true => Ok(()),
        false => Err(io::Error::other("it is neither a file nor a device")),
    }
}

/// Options that a log's file is opened with.
fn append() -> std::fs::OpenOptions {
    let mut options = File::options();
    // A terminal must not become this process's own.
    options.append(true).custom_flags(rustix::fs::OFlags::NOCTTY.bits() as i32);
    options
}

/// Whether a path names this very file. True also of a device, and of a path that cannot be looked
/// at for now.
pub(super) fn is_at(path: &Path, file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (std::fs::metadata(path), file.metadata()) {
        (Ok(there), Ok(held)) => !held.is_file() || (there.dev(), there.ino()) == (held.dev(), held.ino()),
        (Err(e), Ok(held)) => !held.is_file() || e.kind() != io::ErrorKind::NotFound,
        _ => true,
    }
}

/// Opens the log's file to append. Makes it with mode 0640, or with the mode of the file `before`,
/// if it is not there. The error names the path.
pub(super) fn open(path: &Path, before: Option<&File>) -> Result<File, String> {
    let failed = |e: io::Error| format!("{}: {e}", path.display());
    let before = before.filter(|file| !file.is_terminal());
    let mode = before.and_then(|f| f.metadata().ok()).filter(|at| at.is_file());
    let mode = mode.map_or(MODE, |at| at.permissions().mode() & 0o777);
    if let Ok(there) = std::fs::metadata(path) {
        is_of_use(&there).map_err(failed)?;
    }
    let fresh = append().create_new(true).mode(mode).open(path);
    match fresh {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => append().open(path).map_err(failed),
        // The mask of new files is stricter than a log's reader may like.
        Ok(file) => {
            let _ = rustix::fs::fchmod(file.as_fd(), rustix::fs::Mode::from_raw_mode(mode));
            Ok(file)
        }
        Err(e) => Err(failed(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_made_for_its_group_and_kept_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        check(&path).unwrap();
        assert!(!path.exists());
        let file = open(&path, None).unwrap();
        assert_eq!(mode(&path), 0o640);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::rename(&path, dir.path().join("log.1")).unwrap();
        open(&path, Some(&file)).unwrap();
        assert_eq!(mode(&path), 0o600);
        open(&path, None).unwrap();
        assert_eq!(mode(&path), 0o600);
        for (bad, says) in [
            (dir.path().to_path_buf(), "directory"),
            (dir.path().join("none/log"), "its directory: entity not found"),
            (path.join("log"), "Not a directory"),
        ] {
            let said = check(&bad).unwrap_err();
            assert!(said.contains(says) && said.contains(bad.to_str().unwrap()), "{said}");
            assert!(open(&bad, None).is_err());
        }
        check(Path::new("/dev/null")).unwrap();
    }
}
