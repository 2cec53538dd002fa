//! Sources: which files count, and which of them changed since the last build.
//!
//! Events of the system are only hints to look. A look takes the mark of each file and compares it
//! with the marks from before the last build began. So an editor that saves by renaming, a checkout
//! of a hundred files and an edit while a build runs are all one thing: files with other marks.

use crate::plugin::notices::Notices;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Modification time in seconds and nanoseconds, size, and inode.
type Mark = (i64, i64, u64, u64);
/// Marks of all files in the folders.
type Marks = BTreeMap<PathBuf, Mark>;

/// Watched files of a project.
pub(super) struct Sources {
    /// Folders that are looked through, without those of builds and hidden ones.
    folders: BTreeSet<PathBuf>,
    /// Single files beside them.
    files: Vec<PathBuf>,
    /// Files that the compiler has read, as it wrote down at the last build that succeeded.
    read: BTreeSet<PathBuf>,
    /// All files count: the last build failed, and may want one that it has not read.
    all: bool,
    /// Marks from before the last build.
    before: Marks,
    /// Events of the system.
    notices: Notices,
}

impl Sources {
    /// Begins with no file: a first look finds all of them changed.
    pub(super) fn new(folders: BTreeSet<PathBuf>, files: Vec<PathBuf>, notices: Notices) -> Sources {
        Sources { folders, files, read: BTreeSet::new(), all: true, before: Marks::new(), notices }
    }

    /// Takes other folders and files, once a manifest has changed.
    pub(super) fn move_to(&mut self, folders: BTreeSet<PathBuf>, files: Vec<PathBuf>) {
        (self.folders, self.files) = (folders, files);
    }

    /// Looks at all files. Returns those that count and have changed since the last build began,
    /// and takes them as seen. Costs a stat for each file.
    pub(super) fn changed(&mut self) -> Vec<PathBuf> {
        let (mut now, mut dirs) = (Marks::new(), BTreeSet::new());
        for folder in &self.folders {
            walk(folder, &mut now, &mut dirs);
        }
        for file in &self.files {
            dirs.extend(file.parent().map(Path::to_path_buf));
            now.extend(mark(file).map(|mark| (file.clone(), mark)));
        }
        // Without events a look finds the changes all the same, a little later.
        let _ = self.notices.follow(&dirs);
        let paths: BTreeSet<_> = now.keys().chain(self.before.keys()).collect();
        let changed = paths.into_iter().filter(|path| now.get(*path) != self.before.get(*path));
        let changed: Vec<_> = changed.filter(|path| self.counts(path)).cloned().collect();
        self.before = now;
        changed
    }

    /// Takes a file as it is now: the build itself has written it.
    pub(super) fn take(&mut self, file: &Path) {
        match mark(file) {
            Some(mark) => _ = self.before.insert(file.to_path_buf(), mark),
            None => _ = self.before.remove(file),
        }
    }

    /// Notes how a build ended. `libraries`: what it made; the compiler's list of what it read lies
    /// beside each.
    pub(super) fn built(&mut self, libraries: Option<&[PathBuf]>) {
        self.all = libraries.is_none();
        if let Some(libraries) = libraries {
            let lists = libraries.iter().filter_map(|l| fs::read_to_string(l.with_extension("d")).ok());
            self.read = lists.flat_map(|list| files_read(&list)).collect();
        }
    }

    /// Whether a change of this file asks for a build. A file that no compiler has read, such as a
    /// handler's own, does not.
    fn counts(&self, path: &Path) -> bool {
        let kind = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        self.read.contains(path)
            || self.files.iter().any(|file| file == path)
            || matches!(kind, "rs" | "toml" | "c" | "cc" | "cpp" | "h" | "hpp" | "mk")
            || matches!(name, "Makefile" | "Cargo.lock")
            || (self.all && !matches!(kind, "so" | "o" | "a" | "d" | "new"))
    }
}

/// Takes the marks of all files of a folder, but for hidden ones, those of builds, and those that
/// editors write for themselves.
fn walk(dir: &Path, marks: &mut Marks, dirs: &mut BTreeSet<PathBuf>) {
    dirs.insert(dir.to_path_buf());
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if name.starts_with(['.', '#']) || name.ends_with(['~', '#']) || name.ends_with(".swp") {
            continue;
        }
        match entry.file_type() {
            // Cargo and others mark folders that they can make again.
            Ok(kind) if kind.is_dir() => {
                if name != "target" && name != "node_modules" && !path.join("CACHEDIR.TAG").exists() {
                    walk(&path, marks, dirs);
                }
            }
            _ => marks.extend(mark(&path).map(|mark| (path, mark))),
        }
    }
}

/// Mark of a file; `None`: there is none.
fn mark(path: &Path) -> Option<Mark> {
    let m = fs::metadata(path).ok().filter(|m| m.is_file())?;
    Some((m.mtime(), m.mtime_nsec(), m.len(), m.ino()))
}

/// Files that a list of the compiler names: `library: file file`, with spaces escaped.
fn files_read(list: &str) -> Vec<PathBuf> {
    let files = list.lines().filter_map(|line| line.split_once(": ")).flat_map(|(_, files)| {
        let files = files.replace("\\ ", "\0");
        files.split_whitespace().map(|f| f.replace('\0', " ")).collect::<Vec<_>>()
    });
    files.map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn sources(dir: &Path) -> Sources {
        let (sender, _) = channel();
        Sources::new(BTreeSet::from([dir.to_path_buf()]), Vec::new(), Notices::new(sender))
    }

    /// Each look tells of a change once, whatever way the file was written.
    #[test]
    fn files_that_count_are_found_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        fs::create_dir_all(file("src")).unwrap();
        fs::create_dir_all(file("target/debug")).unwrap();
        for name in
            ["src/lib.rs", "target/debug/out.rs", "src/.lib.rs.swp", "src/lib.rs~", "page.html", "data.db"]
        {
            fs::write(file(name), "1").unwrap();
        }
        let mut sources = sources(dir.path());
        assert_eq!(sources.changed(), ["data.db", "page.html", "src/lib.rs"].map(file));
        assert!(sources.changed().is_empty());
        let list = format!("lib.so: {} {}\n", file("page.html").display(), file("src/lib.rs").display());
        fs::write(file("target/lib.d"), list).unwrap();
        sources.built(Some(&[file("target/lib.so")]));
        // Saved by a rename; read by the compiler; the handler's own; made new.
        fs::write(file("src/new"), "22").unwrap();
        fs::rename(file("src/new"), file("src/lib.rs")).unwrap();
        fs::write(file("page.html"), "22").unwrap();
        fs::write(file("data.db"), "22").unwrap();
        fs::write(file("src/more.rs"), "1").unwrap();
        assert_eq!(sources.changed(), ["page.html", "src/lib.rs", "src/more.rs"].map(file));
        // After a failed build any file may be the one that it wants.
        sources.built(None);
        fs::write(file("data.db"), "333").unwrap();
        fs::remove_file(file("src/more.rs")).unwrap();
        assert_eq!(sources.changed(), ["data.db", "src/more.rs"].map(file));
    }

    #[test]
    fn names_with_spaces_are_read() {
        assert_eq!(
            files_read("/t/lib.so: /a\\ b/lib.rs /c.rs\n"),
            ["/a b/lib.rs", "/c.rs"].map(PathBuf::from)
        );
    }
}
