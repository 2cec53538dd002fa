//! Builds in use, held by descriptor.
//!
//! A worker loads builds from private copies, by their paths. A path may be deleted while sessions
//! depend on the build. So the keeper holds a descriptor of each copy that the records name, and
//! writes a copy anew that is gone or is another file.
//!
//! A copy costs one descriptor. A deleted one costs its space on disk until it is written anew.
//! Writing costs O(bytes).

use crate::runtime_dir::lock_file::names;
use crate::runtime_dir::make_anew;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Private copies that are held, by the watched path of their library.
#[derive(Debug, Default)]
pub struct HeldBuilds {
    copies: BTreeMap<PathBuf, Vec<HeldCopy>>,
}

/// A private copy.
#[derive(Debug)]
struct HeldCopy {
    path: PathBuf,
    /// The content. `None`: the copy was gone before it could be opened.
    content: Option<File>,
}

/// Outcome of a restoration.
#[derive(Debug, Default)]
pub struct Restored {
    /// Copies that are written anew.
    pub made: Vec<PathBuf>,
    /// Copies that are gone, each with the reason why it cannot be written.
    pub missing: Vec<String>,
}

impl HeldBuilds {
    /// Holds exactly these copies of a library, and lets go of its others. A copy that is held
    /// already is not opened again.
    pub fn hold(&mut self, library: PathBuf, copies: Vec<PathBuf>) {
        let mut before = self.copies.remove(&library).unwrap_or_default();
        let hold = |path: PathBuf| match before.iter().position(|held| held.path == path) {
            Some(at) => before.swap_remove(at),
            None => HeldCopy { content: open(&path).ok(), path },
        };
        let held = copies.into_iter().map(hold).collect();
        self.copies.insert(library, held);
    }

    /// Libraries by their watched paths, with the number of their copies.
    pub fn held(&self) -> impl Iterator<Item = (&Path, usize)> {
        self.copies.iter().map(|(path, copies)| (path.as_path(), copies.len()))
    }

    /// Paths that no longer name the copy that is held. Costs two stats for each copy.
    pub fn missing(&self) -> BTreeSet<PathBuf> {
        self.copies.values().flatten().filter(|c| !c.is_in_place()).map(|c| c.path.clone()).collect()
    }

    /// Writes these copies anew, those of them that are missing still. A directory that is gone is
    /// made first.
    pub fn restore(&mut self, these: &BTreeSet<PathBuf>) -> Restored {
        let mut restored = Restored::default();
        for copy in self.copies.values_mut().flatten().filter(|c| these.contains(&c.path)) {
            if copy.is_in_place() {
                continue;
            }
            match copy.write_anew() {
                Ok(()) => restored.made.push(copy.path.clone()),
                Err(why) => restored.missing.push(why),
            }
        }
        restored
    }
}

impl HeldCopy {
    fn is_in_place(&self) -> bool {
        self.content.as_ref().is_some_and(|file| names(&self.path, file))
    }

    /// Writes the copy beside its place, and renames it. So nobody opens half a copy, and a worker
    /// that has another file mapped there keeps that.
    fn write_anew(&mut self) -> Result<(), String> {
        let failed = |e: io::Error| format!("{}: {e}", self.path.display());
        let Some(content) = &mut self.content else {
            // It may be back by now, from whoever moved it.
            self.content = Some(open(&self.path).map_err(failed)?);
            return Ok(());
        };
        let dir = self.path.parent().unwrap_or(Path::new("."));
        make_anew(dir).map_err(io::Error::other).map_err(failed)?;
        let beside = dir.join(name_beside(&self.path));
        // Left by an attempt that failed. No other process writes a file of this name.
        let _ = std::fs::remove_file(&beside);
        let again = write(content, &beside).and_then(|()| {
            let again = open(&beside)?;
            std::fs::rename(&beside, &self.path)?;
            Ok(again)
        });
        match again {
            Ok(again) => {
                *content = again;
                Ok(())
            }
            Err(e) => {
                let _ = std::fs::remove_file(&beside);
                Err(failed(e))
            }
        }
    }
}

/// Opens a copy to hold it. Fails if it is anything but a file. Never blocks: a FIFO would.
fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a file")),
    }
}

/// Writes a held content to a path that does not exist, with a private copy's mode.
fn write(mut content: &File, path: &Path) -> io::Result<()> {
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o500).open(path)?;
    content.rewind()?;
    let bytes = io::copy(&mut content, &mut out)?;
    match bytes == content.metadata()?.len() {
        true => Ok(()),
        false => Err(io::Error::other("it was cut off while it was copied")),
    }
}

/// Name of an unfinished copy: the copy's own with another library, so that it is removed like any
/// copy that nobody needs.
fn name_beside(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut parts: Vec<_> = name.rsplitn(4, '-').take(3).collect();
    parts.push("unfinished");
    parts.reverse();
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime_dir::copies_lock::copied_by;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_held_copy_that_is_deleted_or_replaced_is_written_anew() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("run/copies");
        std::fs::create_dir_all(&dir).unwrap();
        let copies = ["a-7-0-0123456789ab.so", "a-7-1-0123456789ab.so"].map(|name| dir.join(name));
        copies.iter().for_each(|c| std::fs::write(c, c.to_str().unwrap()).unwrap());
        let mut held = HeldBuilds::default();
        held.hold("liba.so".into(), copies.to_vec());
        assert_eq!(held.missing(), BTreeSet::new());

        std::fs::remove_dir_all(base.path().join("run")).unwrap();
        let missing = held.missing();
        assert_eq!(missing, BTreeSet::from(copies.clone()));
        assert_eq!(held.restore(&missing).made, copies);
        let content = |c: &PathBuf| std::fs::read_to_string(c).unwrap();
        assert!(copies.iter().all(|c| content(c) == c.to_str().unwrap()));
        let mode = |p: &Path| p.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!([&base.path().join("run"), &dir, &copies[0]].map(|p| mode(p)), [0o700, 0o700, 0o500]);

        // Again, from what was written; and a file in the place of a copy.
        std::fs::remove_file(&copies[0]).unwrap();
        std::fs::write(&copies[0], "other").unwrap();
        assert_eq!(held.restore(&held.missing()).made, copies[..1]);
        assert_eq!(content(&copies[0]), copies[0].to_str().unwrap());

        // Whatever nobody needs any more stays gone.
        held.hold("liba.so".into(), copies[1..].to_vec());
        std::fs::remove_file(&copies[0]).unwrap();
        assert!(held.missing().is_empty());
    }

    #[test]
    fn a_copy_that_cannot_be_written_is_named() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("copies");
        std::fs::create_dir(&dir).unwrap();
        let copies = ["a-7-0-0123456789ab.so", "a-7-1-0123456789ab.so"].map(|name| dir.join(name));
        std::fs::write(&copies[0], "x").unwrap();
        let mut held = HeldBuilds::default();
        held.hold("liba.so".into(), copies.to_vec());
        std::fs::remove_dir_all(&dir).unwrap();
        std::fs::write(&dir, "in the way").unwrap();
        let restored = held.restore(&held.missing());
        assert!(restored.made.is_empty() && restored.missing.len() == 2, "{restored:?}");
        assert!(restored.missing[0].contains("copies"), "{restored:?}");
    }

    #[test]
    fn an_unfinished_copy_has_a_copys_name() {
        let name = name_beside(Path::new("/x/my-echo-12-3-0123456789ab.so"));
        assert_eq!((name.as_str(), copied_by(&name)), ("unfinished-12-3-0123456789ab.so", Some(12)));
    }
}
