//! Files of `/proc` that the host needs: its own binary, states of processes, and what it means if
//! they are missing.

use std::fs::File;
use std::io::{self, ErrorKind};

/// Opens the running binary, even if its file is replaced meanwhile. Fails if no descriptor is
/// left or /proc is not mounted.
pub fn own_binary() -> io::Result<File> {
    // Opened here: under valgrind the link leads to valgrind when it is executed, and to this
    // binary when it is opened.
    File::open("/proc/self/exe").map_err(explain)
}

/// State of a process or a thread, as its file `stat` names it. `None`: the text is none of such a
/// file.
pub fn state(stat: &str) -> Option<char> {
    // `NUMBER (NAME) STATE ...`; a name may have parentheses.
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next())
}

/// Says of an error what a missing file of `/proc/self` means: a container or a chroot without it.
/// Any other error stays as it is.
pub fn explain(e: io::Error) -> io::Error {
    if e.kind() != ErrorKind::NotFound {
        return e;
    }
    let why = "/proc does not show this process, and the host needs it: mount it (mount -t proc proc /proc)";
    io::Error::new(ErrorKind::NotFound, why)
}
