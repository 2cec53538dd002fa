//! Handler libraries among the arguments of `serve`: named files, and directories in which
//! others may appear.
//!
//! A file that is named need not be a library, nor be there: the first reload says what is
//! wrong with it. A file in a directory counts only if it carries the note, as other libraries
//! may lie beside handlers. Paths are UTF-8: messages and records hold them as text, and another
//! one would keep every worker from starting. Called once, when the host starts. Later files of a
//! directory are found by the watcher.

use crate::plugin::inspect::has_note;
use crate::protocol::found::Found;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Looks at files and directories. Paths are absolute, each once; a directory's are sorted by
/// name. The error names the argument that is wrong. O(bytes of the `.so` files in the
/// directories).
pub fn look(sources: &[PathBuf]) -> Result<Found, String> {
    let mut found = Found::default();
    for source in sources {
        if source.is_dir() {
            let dir = source.canonicalize().map_err(|e| format!("{}: {e}", source.display()))?;
            is_text(&dir)?;
            let entries = std::fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
            let mut libraries: Vec<_> =
                entries.flatten().map(|e| e.path()).filter(|p| is_handler(p)).collect();
            libraries.sort();
            libraries.iter().try_for_each(|path| is_text(path))?;
            found.libraries.extend(libraries.into_iter().map(|path| (path, false)));
            found.directories.push(dir);
        } else {
            let path = in_real_dir(source)?;
            // A file that is named beside its directory counts as named, and so must load.
            found.libraries.retain(|(p, _)| *p != path);
            found.libraries.push((path, true));
        }
    }
    let mut seen = BTreeSet::new();
    found.libraries.retain(|(path, _)| seen.insert(path.clone()));
    Ok(found)
}

/// Path as the watcher reports it: the directory resolved, the file's own name kept, as the
/// file may be a link. Fails if the directory is not there.
fn in_real_dir(path: &Path) -> Result<PathBuf, String> {
    let dir = match path.parent() {
        Some(p) if p != Path::new("") => p,
        _ => Path::new("."),
    };
    let dir = dir.canonicalize().map_err(|e| format!("{}: {e}", path.display()))?;
    let name = path.file_name().ok_or_else(|| format!("{} names no file", path.display()))?;
    let path = dir.join(name);
    is_text(&path)?;
    Ok(path)
}

/// Refuses a path that is not UTF-8.
pub fn is_text(path: &Path) -> Result<(), String> {
    match path.to_str() {
        Some(_) => Ok(()),
        None => Err(format!("{}: the path is not UTF-8; rename it", path.display())),
    }
}

/// Whether a file carries the note of a handler library. Reads all of it, and runs none of it.
fn is_handler(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "so")
        && path.is_file()
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
}
