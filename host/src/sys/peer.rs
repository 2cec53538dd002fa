//! The process at the other end of a Unix socket.
//!
//! The kernel gives the process id as the asking process sees it, and 0 for a process of another
//! pid namespace. rustix has no value for that, so the kernel is asked here.

use rustix::process::{Pid, Uid};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Process at the other end, as it was when the connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerProcess {
    /// User of the process.
    pub uid: Uid,
    /// Process id. `None`: the process is in another pid namespace.
    pub pid: Option<Pid>,
}

/// Asks the kernel for the process at the other end of a Unix socket. Fails for other sockets.
pub fn of(socket: impl AsFd) -> io::Result<PeerProcess> {
    let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the option's value is this struct, and the kernel writes at most `len` bytes.
    let status = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &raw mut len,
        )
    };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(peer(found))
}

/// Reads the kernel's answer.
fn peer(found: libc::ucred) -> PeerProcess {
    PeerProcess { uid: Uid::from_raw(found.uid), pid: Pid::from_raw(found.pid) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_end_is_named_also_from_another_pid_namespace() {
        let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
        let own = PeerProcess { uid: rustix::process::getuid(), pid: Some(rustix::process::getpid()) };
        assert_eq!(of(&a).unwrap(), own);
        assert_eq!(peer(libc::ucred { pid: 0, uid: 7, gid: 7 }).pid, None);
    }
}
