//! Memory files of one worker: records, input, counters.

use crate::memory::records::memory_file;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Memory files that outlive a worker's process.
pub(super) struct MemoryFiles {
    records: OwnedFd,
    input: OwnedFd,
    board: OwnedFd,
}

impl MemoryFiles {
    /// Makes empty files.
    pub(super) fn new() -> io::Result<MemoryFiles> {
        Ok(MemoryFiles {
            records: memory_file("greenroom-records")?,
            input: memory_file("greenroom-input")?,
            board: memory_file("greenroom-board")?,
        })
    }

    /// The board's file.
    pub(super) fn board(&self) -> BorrowedFd<'_> {
        self.board.as_fd()
    }

    /// Descriptors of the first message, `hello` last.
    pub(super) fn with<'a>(&'a self, hello: &'a OwnedFd) -> [BorrowedFd<'a>; 4] {
        [self.records.as_fd(), self.input.as_fd(), self.board.as_fd(), hello.as_fd()]
    }
}
