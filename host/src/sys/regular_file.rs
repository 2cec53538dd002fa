//! Regular files, opened without waiting.
//!
//! An operator may name anything: a FIFO waits for its other end, and a device may have no end.
//! Both would hold up a process that others wait for.

use rustix::fs::OFlags;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a file to read it. Fails as [`open_with`] does.
pub fn open(path: &Path) -> io::Result<(File, Metadata)> {
    open_with(path, OpenOptions::new().read(true), OFlags::empty())
}

/// Opens a file with these options and flags. Fails if that fails, or if it is no regular file.
pub fn open_with(path: &Path, options: &mut OpenOptions, flags: OFlags) -> io::Result<(File, Metadata)> {
    let flags = flags | OFlags::NONBLOCK;
    let file = options.custom_flags(flags.bits() as i32).open(path)?;
    let meta = file.metadata()?;
    match meta.is_file() {
        true => Ok((file, meta)),
        false => Err(io::Error::other("it is not a file")),
    }
}
