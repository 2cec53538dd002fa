//! Directory entries that decide which file a path names.
//!
//! A path may lead through links, and its directory may be renamed away. The kernel looks the path
//! up anew at each open. So a watch on the path must cover each link on the way, the last
//! directory's own entry, and the file's. Directories further up are left to the slow look.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// Links that are followed. The kernel follows as many.
const LINKS_MAX: usize = 40;

/// Entries that decide what an absolute path names, as paths without links: each link on the way,
/// the last directory, and the file itself. Parts that do not exist are taken as they are named.
/// Costs a system call for each part.
pub(super) fn deciding_entries(path: &Path) -> Vec<PathBuf> {
    let (mut entries, real) = follow(path);
    entries.extend(real.parent().filter(|dir| dir.parent().is_some()).map(Path::to_path_buf));
    entries.push(real);
    entries
}

/// Links on the way of an absolute path, as paths without links themselves.
pub(super) fn links_on_the_way(path: &Path) -> Vec<PathBuf> {
    follow(path).0
}

/// Follows a path: the links on the way, and the path that they lead to. A loop of links leads to
/// where it was given up.
fn follow(path: &Path) -> (Vec<PathBuf>, PathBuf) {
    let mut links = Vec::new();
    let mut at = PathBuf::from("/");
    let mut rest = parts_backwards(path);
    while let Some(part) = rest.pop() {
        if part == ".." {
            at.pop();
            continue;
        }
        let entry = at.join(part);
        let Ok(to) = std::fs::read_link(&entry) else {
            at = entry;
            continue;
        };
        links.push(entry);
        if links.len() > LINKS_MAX {
            break;
        }
        if to.is_absolute() {
            at = PathBuf::from("/");
        }
        rest.extend(parts_backwards(&to));
    }
    (links, at)
}

/// Parts of a path, the last one first.
fn parts_backwards(path: &Path) -> Vec<OsString> {
    let parts = path.components().filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir));
    parts.rev().map(|c| c.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_and_the_last_two_entries_decide() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().canonicalize().unwrap();
        std::fs::create_dir_all(dir.join("releases/1")).unwrap();
        symlink("releases/1", dir.join("current")).unwrap();
        symlink(dir.join("current/../1/a.so"), dir.join("link.so")).unwrap();
        let paths = |names: &[&str]| names.iter().map(|n| dir.join(n)).collect::<Vec<_>>();
        assert_eq!(
            deciding_entries(&dir.join("current/a.so")),
            paths(&["current", "releases/1", "releases/1/a.so"])
        );
        assert_eq!(
            deciding_entries(&dir.join("link.so")),
            paths(&["link.so", "current", "releases/1", "releases/1/a.so"])
        );
        assert_eq!(links_on_the_way(&dir.join("link.so")), paths(&["link.so", "current"]));
        symlink("loop", dir.join("loop")).unwrap();
        assert!(deciding_entries(&dir.join("loop")).contains(&dir.join("loop")));
    }
}
