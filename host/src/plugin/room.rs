//! Room for private copies on their file system.
//!
//! A copy that a worker has loaded keeps its space until that worker ends, also once the copy is
//! deleted. Such copies are *retired*. No directory lists them, so they are counted here. The loop
//! asks for a fresh worker before the next copy finds no room.

use rustix::fs::statvfs;
use std::path::{Path, PathBuf};

/// Room as the loop is told of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoomLeft {
    /// Bytes of retired copies.
    pub retired_bytes: u64,
    /// There may be no room for another copy, and retired ones take some.
    pub is_short: bool,
}

/// Account of the copies of one worker.
pub(super) struct Room {
    /// Directory of the copies.
    dir: PathBuf,
    /// Bytes of retired copies.
    retired: u64,
    /// Size of the largest copy that was written or removed, in bytes.
    largest: u64,
}

impl Room {
    /// Begins an account: nothing is retired yet.
    pub(super) fn new(dir: PathBuf) -> Room {
        Room { dir, retired: 0, largest: 0 }
    }

    /// Removes a copy. If this process has it mapped, it is retired. O(mappings of the process).
    pub(super) fn remove(&mut self, copy: &Path) {
        let (bytes, is_mapped) = (std::fs::metadata(copy).map_or(0, |m| m.len()), is_mapped(copy));
        if std::fs::remove_file(copy).is_ok() && is_mapped {
            self.retired += bytes;
        }
        self.expect(bytes);
    }

    /// Notes that copies of this size are written.
    pub(super) fn expect(&mut self, bytes: u64) {
        self.largest = self.largest.max(bytes);
    }

    /// Room that is left, for a copy as large as the largest one so far. One system call.
    pub(super) fn left(&self) -> RoomLeft {
        let is_short = self.retired > 0 && !self.holds(self.largest);
        RoomLeft { retired_bytes: self.retired, is_short }
    }

    /// Whether the file system has room for so many bytes. If it can't be asked, a write will tell.
    fn holds(&self, bytes: u64) -> bool {
        statvfs(&self.dir).map_or(true, |s| s.f_bavail.saturating_mul(s.f_frsize) >= bytes)
    }

    /// Reason why a copy of so many bytes could not be written, with the holders of the space if
    /// that was it. `kept`: number and bytes of the copies that are listed.
    pub(super) fn explain(&self, why: String, bytes: u64, kept: (usize, u64)) -> String {
        if self.holds(bytes) {
            return why;
        }
        let ((n, kept), retired) = (kept, self.retired);
        format!(
            "{why}: it has {bytes} bytes; {n} copies of builds that serve or can be returned to take {kept} (limit builds_kept), and builds that this worker has left behind take {retired}"
        )
    }
}

/// Whether this process has a file mapped. A path with a line end is shown otherwise, and is not
/// found.
fn is_mapped(path: &Path) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    path.to_str().is_some_and(|path| maps.lines().any(|line| line.ends_with(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_copies_that_are_mapped_are_retired() {
        let dir = tempfile::tempdir().unwrap();
        let mut room = Room::new(dir.path().into());
        let copy = dir.path().join("a.so");
        std::fs::write(&copy, "abc").unwrap();
        room.remove(&copy);
        assert_eq!((copy.exists(), room.left()), (false, RoomLeft::default()));
        assert!(is_mapped(&std::env::current_exe().unwrap()));
        room.retired = 3;
        room.expect(u64::MAX);
        assert_eq!(room.left(), RoomLeft { retired_bytes: 3, is_short: true });
        let said = room.explain("full".into(), u64::MAX, (2, 9));
        assert!(said.contains("2 copies") && said.contains("left behind take 3"), "{said}");
        assert_eq!(room.explain("no".into(), 0, (0, 0)), "no");
    }
}
