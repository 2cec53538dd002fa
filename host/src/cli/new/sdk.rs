//! SDK that comes with this binary: the sources, laid down where crates can name them by path, and
//! the book about them.
//!
//! A copy is named by the version and a hash of all its files, so host and SDK always fit, and
//! crates of an older SDK keep theirs. It is written beside its place and renamed: two commands may
//! do so at once, and a reader never finds half of it. A copy that is damaged is replaced whole.

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// Files of the SDK: their paths, and what they hold. `build.rs` writes the table.
const FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/sdk.rs"));

/// Lays the SDK down for this user, unless it is there, and returns its folder. Reads each file of
/// a copy that is there. An error says which folder cannot be written, and what to do.
pub(in crate::cli) fn lay_down() -> Result<PathBuf, String> {
    let home = |name: &str| std::env::var_os(name).filter(|value| Path::new(value).is_absolute());
    lay_down_in(&folder(home("XDG_DATA_HOME"), home("HOME"))?)
}

/// Folder of all copies, from the absolute paths that the environment names.
fn folder(data: Option<OsString>, home: Option<OsString>) -> Result<PathBuf, String> {
    let data = data.map(PathBuf::from);
    let data = data.or_else(|| home.map(|home| Path::new(&home).join(".local/share")));
    let data = data.ok_or("the SDK has no place: set HOME or XDG_DATA_HOME to an absolute path")?;
    Ok(data.join("greenroom/sdk"))
}

/// Name of the copy: the version, and a hash of all files.
fn copy_name() -> String {
    let mut hash = Sha256::new();
    for (name, bytes) in FILES {
        hash.update(format!("{name}\0{}\0", bytes.len()));
        hash.update(bytes);
    }
    let digits: String = hash.finalize().iter().take(6).map(|b| format!("{b:02x}")).collect();
    format!("{}-{digits}", env!("CARGO_PKG_VERSION"))
}

/// Lays the SDK down in a folder of copies.
fn lay_down_in(copies: &Path) -> Result<PathBuf, String> {
    let name = copy_name();
    let place = copies.join(&name);
    if is_whole(&place) {
        return Ok(place);
    }
    let unfinished = copies.join(format!(".{name}.new-{}", std::process::id()));
    let laid = write(&unfinished).and_then(|()| put(&unfinished, &place));
    // What stood in the place before, or what another command was faster with.
    remove(&unfinished);
    match laid {
        Ok(()) => Ok(place),
        Err(e) => Err(format!(
            "the SDK can't be laid down in {}: {e}; set XDG_DATA_HOME to a folder that you may write",
            place.display()
        )),
    }
}

/// Whether a copy holds each file as it should be.
fn is_whole(place: &Path) -> bool {
    FILES.iter().all(|(name, bytes)| fs::read(place.join(name)).is_ok_and(|read| read == *bytes))
}

/// Removes a folder with all that is in it, or a file, if there is one.
fn remove(path: &Path) {
    let _ = fs::remove_dir_all(path).or_else(|_| fs::remove_file(path));
}

/// Writes all files below a folder. What an ended process of the same number left there goes first.
fn write(dir: &Path) -> std::io::Result<()> {
    remove(dir);
    for (name, bytes) in FILES {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap_or(dir))?;
        fs::write(&path, bytes)?;
    }
    Ok(())
}

/// Moves a whole copy into its place. One that is there changes places with it, in one step: no
/// build that runs meanwhile finds the folder missing.
fn put(unfinished: &Path, place: &Path) -> std::io::Result<()> {
    let rename = |flags| renameat_with(CWD, unfinished, CWD, place, flags);
    match rename(RenameFlags::NOREPLACE) {
        Err(Errno::EXIST | Errno::NOTEMPTY) if is_whole(place) => Ok(()),
        Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(rename(RenameFlags::EXCHANGE)?),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sdk_is_laid_down_whole_and_mended() {
        let dir = tempfile::tempdir().unwrap();
        let place = lay_down_in(dir.path()).unwrap();
        assert!(place.join("handlers/sdk/src/lib.rs").is_file());
        assert!(place.join("state-schema/include/greenroom.h").is_file());
        // A damaged copy, one that lacks a file, and one that is a file.
        fs::write(place.join("handlers/sdk/src/lib.rs"), "half of").unwrap();
        assert_eq!(lay_down_in(dir.path()).unwrap(), place);
        assert!(is_whole(&place));
        fs::remove_file(place.join("state-schema/Cargo.toml")).unwrap();
        lay_down_in(dir.path()).unwrap();
        assert!(is_whole(&place));
        fs::remove_dir_all(&place).unwrap();
        fs::write(&place, "").unwrap();
        lay_down_in(dir.path()).unwrap();
        assert!(is_whole(&place));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing half made is left");
    }

    /// Outside the repository nothing can be inherited from its workspace.
    #[test]
    fn a_laid_down_manifest_stands_alone() {
        for (name, bytes) in FILES.iter().filter(|(name, _)| name.ends_with("Cargo.toml")) {
            let text = std::str::from_utf8(bytes).unwrap();
            text.parse::<toml::Table>().unwrap();
            assert!(!text.contains("workspace"), "{name}: {text}");
        }
    }

    /// Pages of the copy link to what is in the copy.
    #[test]
    fn a_laid_down_page_leads_nowhere_else() {
        let mut links = 0;
        for (name, bytes) in FILES.iter().filter(|(name, _)| name.ends_with(".md")) {
            let text = std::str::from_utf8(bytes).unwrap();
            let targets = text.split("](").skip(1).filter_map(|behind| behind.split(')').next());
            for target in targets.filter(|target| !target.starts_with("https://")) {
                let path = target.split('#').next().unwrap_or_default();
                let mut place: Vec<_> = name.split('/').collect();
                if !path.is_empty() {
                    place.pop();
                }
                for part in path.split('/').filter(|part| !part.is_empty()) {
                    match part {
                        ".." => _ = place.pop(),
                        part => place.push(part),
                    }
                }
                links += 1;
                assert!(FILES.iter().any(|(file, _)| *file == place.join("/")), "{name}: {target}");
            }
        }
        assert!(links > 20, "{links} links");
        let book = FILES.iter().find(|(name, _)| *name == "handlers/book/README.md").unwrap();
        assert!(
            std::str::from_utf8(book.1).unwrap().contains("Operating a host (`host/OPERATING.md` of the")
        );
    }

    #[test]
    fn commands_that_lay_it_down_at_once_all_find_it_whole() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join(copy_name());
        let copy = |n: u32| {
            let unfinished = dir.path().join(format!("new-{n}"));
            write(&unfinished).unwrap();
            put(&unfinished, &place).unwrap();
            assert!(is_whole(&place));
        };
        std::thread::scope(|all| (0..4).for_each(|n| _ = all.spawn(move || copy(n))));
    }

    #[test]
    fn a_user_without_a_place_is_told_what_to_set() {
        assert!(folder(None, None).unwrap_err().contains("set HOME or XDG_DATA_HOME"));
        let home = Some("/home/ann".into());
        assert_eq!(folder(None, home.clone()).unwrap(), Path::new("/home/ann/.local/share/greenroom/sdk"));
        assert_eq!(folder(Some("/data".into()), home).unwrap(), Path::new("/data/greenroom/sdk"));
        // A file is no folder, also for root.
        let file = tempfile::NamedTempFile::new().unwrap();
        let why = lay_down_in(file.path()).unwrap_err();
        assert!(why.contains("set XDG_DATA_HOME"), "{why}");
    }
}
