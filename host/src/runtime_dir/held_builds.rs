//! Builds in use, held by descriptor.
//!
//! A worker loads builds from private copies, by their paths. A path may be deleted while sessions
//! depend on the build. So the keeper holds a descriptor of each copy that the records name, and
//! writes a copy anew that is gone, is another file, or has another mode or owner. If a copy is
//! written to, its content is lost here, too: it comes from the watched path then, if that still
//! holds the same build, or the copy is named as missing.
//!
//! A copy costs one descriptor. A deleted one costs its space on disk until it is written anew.
//! Writing costs O(bytes).

use crate::runtime_dir::lock_file::names;
use crate::runtime_dir::make_anew;
use crate::sys::regular_file;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
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
    /// The content, as it was when it was opened. `None`: the copy was gone before that.
    content: Option<(File, Mark)>,
}

/// Properties of a file that do not change while nobody touches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    /// Length in bytes, and modification time in seconds and nanoseconds.
    content: (u64, i64, i64),
    /// Mode, user and group.
    access: (u32, u32, u32),
}

impl Mark {
    fn of(file: &File) -> io::Result<Mark> {
        let m = file.metadata()?;
        Ok(Mark { content: (m.len(), m.mtime(), m.mtime_nsec()), access: (m.mode(), m.uid(), m.gid()) })
    }
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
    /// already is not opened again. True: one is new, as a build has come.
    pub fn hold(&mut self, library: PathBuf, copies: Vec<PathBuf>) -> bool {
        let mut before = self.copies.remove(&library).unwrap_or_default();
        let mut is_new = false;
        let hold = |path: PathBuf| match before.iter().position(|held| held.path == path) {
            Some(at) => before.swap_remove(at),
            None => {
                is_new = true;
                HeldCopy { content: held(&path).ok(), path }
            }
        };
        let held = copies.into_iter().map(hold).collect();
        self.copies.insert(library, held);
        is_new
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
        let all =
            self.copies.iter_mut().flat_map(|(library, copies)| copies.iter_mut().map(move |c| (library, c)));
        for (library, copy) in all.filter(|(_, c)| these.contains(&c.path)) {
            if copy.is_in_place() {
                continue;
            }
            match copy.write_anew(library) {
                Ok(()) => restored.made.push(copy.path.clone()),
                Err(why) => restored.missing.push(why),
            }
        }
        restored
    }
}

impl HeldCopy {
    fn is_in_place(&self) -> bool {
        let as_before = |(file, mark): &(File, Mark)| Mark::of(file).is_ok_and(|now| now == *mark);
        self.content.as_ref().is_some_and(|held| names(&self.path, &held.0) && as_before(held))
    }

    /// Writes the copy beside its place, and renames it. So nobody opens half a copy, and a worker
    /// that has another file mapped there keeps that.
    fn write_anew(&mut self, library: &Path) -> Result<(), String> {
        let failed = |e: io::Error| format!("{}: {e}", self.path.display());
        let Some((content, mark)) = &mut self.content else {
            // It may be back by now, from whoever moved it.
            self.content = Some(held(&self.path).map_err(failed)?);
            return Ok(());
        };
        let watched;
        let from = match Mark::of(content).is_ok_and(|now| now.content == mark.content) {
            true => &*content,
            false => {
                watched = same_build(library, &self.path).ok_or_else(|| {
                    format!(
                        "{}: it was written to, and no successor can load it; put this build back at {}, or load                          another one",
                        self.path.display(),
                        library.display()
                    )
                })?;
                &watched
            }
        };
        let dir = self.path.parent().unwrap_or(Path::new("."));
        make_anew(dir).map_err(io::Error::other).map_err(failed)?;
        let beside = dir.join(name_beside(&self.path));
        // Left by an attempt that failed. No other process writes a file of this name.
        let _ = std::fs::remove_file(&beside);
        let again = write(from, &beside).and_then(|()| {
            let again = held(&beside)?;
            std::fs::rename(&beside, &self.path)?;
            Ok(again)
        });
        match again {
            Ok(again) => {
                (*content, *mark) = again;
                Ok(())
            }
            Err(e) => {
                let _ = std::fs::remove_file(&beside);
                Err(failed(e))
            }
        }
    }
}

/// Opens the watched file of a library, if it holds the build that a copy is named after. O(bytes).
fn same_build(library: &Path, copy: &Path) -> Option<File> {
    let mut file = open(library).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let hash: String = Sha256::digest(&bytes).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let named = copy.file_stem()?.to_str()?.rsplit('-').next()?;
    (named == hash).then_some(file)
}

/// Opens a copy to hold it, as it is now.
fn held(path: &Path) -> io::Result<(File, Mark)> {
    let file = open(path)?;
    let mark = Mark::of(&file)?;
    Ok((file, mark))
}

/// Opens a copy to hold it. Fails if it is anything but a file. Never blocks: a FIFO would.
fn open(path: &Path) -> io::Result<File> {
    regular_file::open_with(path, OpenOptions::new().read(true), rustix::fs::OFlags::NOFOLLOW)
        .map(|(file, _)| file)
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
    fn a_copy_that_is_written_to_comes_from_the_watched_path_or_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let (library, other) = (dir.path().join("liba.so"), dir.path().join("libb.so"));
        std::fs::write(&library, "build").unwrap();
        // The hash of "build".
        let copy = dir.path().join("a-7-0-44575cf5b285.so");
        let in_use = dir.path().join("b-7-1-44575cf5b285.so");
        let mut held = HeldBuilds::default();
        for (library, copy) in [(&library, &copy), (&other, &in_use)] {
            std::fs::write(copy, "build").unwrap();
            held.hold(library.clone(), vec![copy.clone()]);
        }
        assert!(held.missing().is_empty());
        std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o000)).unwrap();
        let restored = held.restore(&held.missing());
        assert_eq!(restored.made, std::slice::from_ref(&copy), "{restored:?}");
        for damaged in [&copy, &in_use] {
            std::fs::set_permissions(damaged, std::fs::Permissions::from_mode(0o700)).unwrap();
            std::fs::OpenOptions::new().write(true).open(damaged).unwrap().set_len(2).unwrap();
        }
        let restored = held.restore(&held.missing());
        assert_eq!(restored.made, std::slice::from_ref(&copy), "{restored:?}");
        assert_eq!(std::fs::read(&copy).unwrap(), b"build");
        assert!(restored.missing.len() == 1 && restored.missing[0].contains("libb.so"), "{restored:?}");
        assert_eq!(held.missing(), BTreeSet::from([in_use]));
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
