//! Memory files of one worker: records, input, counters.
//!
//! The keeper makes the files and holds their descriptors, so their contents outlive a process. The
//! keeper itself maps none of them: it reads and resets the board with system calls, and leaves the
//! others alone. The files live in memory. When the host ends, they are gone.

use crate::memory::records::memory_file;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Memory files that outlive a worker's process.
pub(super) struct MemoryFiles {
    /// All state of the host ([`crate::memory::records`]).
    records: OwnedFd,
    /// Input that was read and not committed ([`crate::memory::input`]).
    input: OwnedFd,
    /// Counters ([`crate::memory::board`]).
    board: OwnedFd,
}

impl MemoryFiles {
    /// Makes empty files. A worker grows them. Fails if the limit of open files is reached.
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

    /// Descriptors of the first message, in the order of
    /// [`crate::protocol::keeper::ToWorker::Hello`]: `hello` last.
    pub(super) fn with<'a>(&'a self, hello: &'a OwnedFd) -> [BorrowedFd<'a>; 4] {
        [self.records.as_fd(), self.input.as_fd(), self.board.as_fd(), hello.as_fd()]
    }
}
