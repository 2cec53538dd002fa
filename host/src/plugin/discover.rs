//! Handler libraries among the arguments of `serve`: named files, and directories in which
//! others may appear.
//!
//! A file that is named need not be a library, nor be there: the first reload says what is
//! wrong with it. A file in a directory counts only if it carries the note, as other libraries
//! may lie beside handlers. Called once, when the host starts. Later files of a directory are found
//! by the watcher.
//!
//! Paths stay as they are named: a link to the present release may be moved, and each reload looks
//! its path up anew. Paths are UTF-8: messages and records hold them as text, and another one would
//! keep every worker from starting. A file in a directory with another name is left out.

use crate::config::is_text;
use crate::plugin::inspect::has_note;
use crate::plugin::stage::BYTES_MAX;
use crate::protocol::found::Found;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Looks at files and directories. Paths are absolute; a directory's are sorted by name. A file
/// that two of them lead to is taken once. The error names the argument that is wrong. O(bytes of
/// the `.so` files in the directories).
///
/// Also returns the reasons why files of directories are left out.
pub fn look(sources: &[PathBuf]) -> Result<(Found, Vec<String>), String> {
    let (mut found, mut left_out) = (Found::default(), Vec::new());
    for source in sources {
        is_text(source)?;
        if source.is_dir() {
            let dir = named(source)?;
            let entries = std::fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
            let mut libraries: Vec<_> =
                entries.flatten().map(|e| e.path()).filter(|p| is_handler(p)).collect();
            libraries.sort();
            for path in libraries {
                match is_text(&path) {
                    Ok(()) => found.libraries.push((path, false)),
                    Err(why) => left_out.push(why),
                }
            }
            found.directories.push(dir);
        } else {
            let path = named(source)?;
            let real = in_real_dir(&path)?;
            // A file that is named beside its directory counts as named, and so must load.
            found.libraries.retain(|(p, _)| in_real_dir(p).is_ok_and(|p| p != real));
            found.libraries.push((path, true));
        }
    }
    let mut seen = BTreeSet::new();
    found.libraries.retain(|(path, _)| in_real_dir(path).is_ok_and(|real| seen.insert(real)));
    Ok((found, left_out))
}

/// Absolute path of an argument, without a slash at its end. Links in it stay: they may be moved.
fn named(path: &Path) -> Result<PathBuf, String> {
    let absolute = std::path::absolute(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let path: PathBuf = absolute.components().collect();
    is_text(&path)?;
    Ok(path)
}

/// Path with its directory resolved, which tells two names of one file apart from two files. The
/// file's own name is kept, as the file may be a link. Fails if the directory is not there.
fn in_real_dir(path: &Path) -> Result<PathBuf, String> {
    let name = path.file_name().ok_or_else(|| format!("{} names no file", path.display()))?;
    let dir = path.parent().unwrap_or(Path::new("/"));
    let dir = dir.canonicalize().map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(dir.join(name))
}

/// Whether a file carries the note of a handler library. Reads all of it, unless no library may be
/// so large, and runs none of it.
fn is_handler(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "so")
        && path.metadata().is_ok_and(|meta| meta.is_file() && meta.len() <= BYTES_MAX)
        && std::fs::read(path).is_ok_and(|bytes| has_note(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    /// A path that no message can hold is refused by name, as a file and as a directory.
    #[test]
    fn a_path_that_is_no_text_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join(OsStr::from_bytes(b"bad\xff"));
        std::fs::create_dir(&inside).unwrap();
        for path in [inside.clone(), inside.join("libx.so"), dir.path().join(OsStr::from_bytes(b"\xff.so"))] {
            let why = look(std::slice::from_ref(&path)).unwrap_err();
            assert!(why.ends_with("the path is not UTF-8; rename it"), "{why}");
        }
        assert!(look(&[dir.path().join("libx.so")]).is_ok());
    }

    #[test]
    fn a_path_through_a_link_stays_and_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("1")).unwrap();
        std::os::unix::fs::symlink("1", dir.path().join("current")).unwrap();
        let paths =
            ["current/libx.so", "1/libx.so", "current/../current/liby.so"].map(|p| dir.path().join(p));
        let (found, _) = look(&paths).unwrap();
        // The last one that is named counts.
        assert_eq!(found.libraries, [(paths[1].clone(), true), (paths[2].clone(), true)]);
        let (found, _) = look(&[dir.path().join("current/")]).unwrap();
        assert_eq!(found.directories, [dir.path().join("current")]);
    }
}
