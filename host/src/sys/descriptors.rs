//! Table of open files of this process: its limit, its next number, and files that keep places.
//!
//! The kernel gives the lowest number that is free. So the number of a fresh descriptor says, in
//! one system call, that at least so many are in use.

use crate::sys::proc;
use rustix::process::{Resource, getrlimit};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Limit of open files of this process. It may be changed from outside at any time.
pub fn limit() -> usize {
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |n| n as usize)
}

/// Number that the next descriptor gets. Fails if the table is full.
pub fn next_number() -> io::Result<usize> {
    let probe = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 0)?;
    Ok(probe.as_raw_fd() as usize)
}

/// Number of descriptors in use. O(descriptors). Fails if /proc cannot be read.
pub fn in_use() -> io::Result<usize> {
    // One of them is the directory that is read.
    Ok(std::fs::read_dir("/proc/self/fd").map_err(proc::explain)?.count().saturating_sub(1))
}

/// Whether an error says that descriptors are used up, of this process or of the system.
pub fn are_used_up(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Places in the table that are kept free for one purpose.
pub struct KeptPlaces {
    /// Number of places.
    wanted: usize,
    /// A descriptor in each place.
    files: Vec<OwnedFd>,
}

impl KeptPlaces {
    /// Keeps so many places. Fails if there are not as many.
    pub fn new(wanted: usize) -> io::Result<KeptPlaces> {
        let mut places = KeptPlaces { wanted, files: Vec::with_capacity(wanted) };
        places.keep()?;
        Ok(places)
    }

    /// Gives the places away, to be used at once. Other threads may take some of them.
    pub fn give(&mut self) {
        self.files.clear();
    }

    /// Keeps the places again, as many as are free. Fails if those are too few.
    pub fn keep(&mut self) -> io::Result<()> {
        while self.files.len() < self.wanted {
            self.files.push(File::open("/dev/null")?.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other tests of this process open files meanwhile, so numbers are compared with care.
    #[test]
    fn places_are_kept_and_given() {
        let before = next_number().unwrap();
        assert!(before > 2 && before < limit() && in_use().unwrap() > 2);
        let mut places = KeptPlaces::new(100).unwrap();
        assert_eq!(places.files.len(), 100);
        places.give();
        assert!(places.files.is_empty());
        places.keep().unwrap();
        assert!(places.files.iter().all(|f| f.as_raw_fd() > 2) && in_use().unwrap() > 100);
    }
}
