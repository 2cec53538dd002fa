//! Claim of a runtime directory's place, which deleted files do not end.
//!
//! A lock is lost with its file: a second host would make the file anew and lock that. So a host
//! also binds a name in the kernel's memory: an abstract Unix socket. The name is made of the user,
//! the parent directory's device and inode, and the directory's own name. The kernel drops it with
//! the process.
//!
//! The claim is a second guard behind the lock. Another user could bind the name first. Such a
//! claim is passed over, and the lock alone counts then. The same holds if the parent directory
//! was replaced, or if hosts have network namespaces of their own.

use crate::sys::peer;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept, bind, connect, listen, socket_with,
};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Hosts that may ask between two looks of the holder. Further ones see no holder.
const ASKERS_MAX: i32 = 64;

/// Place that this process has claimed.
#[derive(Debug)]
pub(super) struct Claim {
    /// Listens, so that a second host is told whose the name is.
    socket: OwnedFd,
}

/// Outcome of an attempt to claim a place.
pub(super) enum Claimed {
    /// The place is this process's.
    Ours(Claim),
    /// A host of this user holds the place: its pid.
    By(i32),
    /// The place has no name, or another user holds it. The lock alone counts.
    Unclaimed,
}

impl Claim {
    /// Claims the place of a directory, whose parent exists. Never blocks.
    pub(super) fn take(dir: &Path) -> Claimed {
        let Some(name) = name_of(dir) else { return Claimed::Unclaimed };
        let bound = SocketAddrUnix::new_abstract_name(name.as_bytes()).and_then(|addr| {
            let socket = stream()?;
            match bind(&socket, &addr) {
                Ok(()) => listen(&socket, ASKERS_MAX).map(|()| Claimed::Ours(Claim { socket })),
                Err(Errno::ADDRINUSE) => holder(&addr).map(Claimed::By),
                Err(e) => Err(e),
            }
        });
        bound.unwrap_or(Claimed::Unclaimed)
    }

    /// Closes the connections of hosts that asked whose the place is. The kernel has answered them.
    pub(super) fn dismiss_askers(&self) {
        while accept(&self.socket).is_ok() {}
    }
}

/// Name of a directory's place; `None`: its parent cannot be looked at, or it has no name. The
/// directory itself does not count: it may be deleted and made anew.
fn name_of(dir: &Path) -> Option<String> {
    let parent = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let meta = std::fs::metadata(parent).ok()?;
    let digest = Sha256::digest(dir.file_name()?.as_encoded_bytes());
    let me = rustix::process::geteuid().as_raw();
    let mut name = format!("greenroom-{me}-{:x}-{:x}-", meta.dev(), meta.ino());
    for byte in &digest[..8] {
        let _ = write!(name, "{byte:02x}");
    }
    Some(name)
}

/// A socket that blocks neither connect nor accept.
fn stream() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Pid of the process that holds a name; 0: it is in another pid namespace. Fails if it is another
/// user's.
fn holder(addr: &SocketAddrUnix) -> Result<i32, Errno> {
    let socket = stream()?;
    connect(&socket, addr)?;
    let who = peer::of(&socket).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    match who.uid == rustix::process::geteuid() {
        true => Ok(who.pid.map_or(0, |pid| pid.as_raw_nonzero().get())),
        false => Err(Errno::ACCESS),
    }
}
