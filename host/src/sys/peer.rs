//! The process at the other end of a Unix socket.
//!
//! The kernel gives the process id as the asking process sees it, and 0 for a process of another
//! pid namespace. rustix has no value for that, so the kernel is asked here.

use rustix::process::{Pid, Uid};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Groups that are asked for at first. Few processes have more.
const GROUPS_MIN: usize = 32;

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
    credentials(socket).map(peer)
}

/// Asks the kernel for the groups of the process at the other end of a Unix socket: its own one,
/// and all further ones. Fails for other sockets. O(groups).
pub fn groups_of(socket: impl AsFd) -> io::Result<Vec<u32>> {
    let fd = socket.as_fd().as_raw_fd();
    let mut found = vec![0 as libc::gid_t; GROUPS_MIN];
    loop {
        let mut len = (found.len() * size_of::<libc::gid_t>()) as libc::socklen_t;
        // SAFETY: the option's value is a list of numbers; the kernel writes at most `len` bytes.
        let status = unsafe {
            libc::getsockopt(
                fd,
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                found.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        let count = len as usize / size_of::<libc::gid_t>();
        if status == 0 {
            found.truncate(count);
            found.push(credentials(socket)?.gid);
            return Ok(found);
        }
        // The kernel says how many there are.
        match io::Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::ERANGE) && count > found.len() => found.resize(count, 0),
            e => return Err(e),
        }
    }
}

/// Asks the kernel for the numbers of the process at the other end.
fn credentials(socket: impl AsFd) -> io::Result<libc::ucred> {
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
    Ok(found)
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
        let groups = groups_of(&a).unwrap();
        assert!(groups.contains(&rustix::process::getegid().as_raw()));
        let all = nix::unistd::getgroups().unwrap();
        assert!(all.iter().all(|gid| groups.contains(&gid.as_raw())), "{groups:?}");
    }
}
