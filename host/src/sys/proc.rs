//! Files of `/proc` that the host needs.

use std::io::{self, ErrorKind};

/// Says of an error what a missing file of `/proc/self` means: a container or a chroot without it. Any
/// other error stays as it is.
pub fn explain(e: io::Error) -> io::Error {
    if e.kind() != ErrorKind::NotFound {
        return e;
    }
    let why = "/proc does not show this process, and the host needs it: mount it (mount -t proc proc /proc)";
    io::Error::new(ErrorKind::NotFound, why)
}
