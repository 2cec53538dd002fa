//! Binding of sockets: TCP ports, UDP ports, and files of Unix sockets.
//!
//! *Invariant*: every connection has its socket options from the first byte on, as it inherits them
//! from the listener. The kernel's byte counts rely on that ([`crate::sys::tcp`]).
//!
//! A Unix socket is a file. A file that a dead host has left is replaced, and one that somebody
//! listens at is not. The file of a socket is deleted with it, unless another one is there by then.
//!
//! | file at the path | bind |
//! | --- | --- |
//! | none | makes it, for its owner alone, then with the wanted mode and group |
//! | a socket that refuses connections | replaces it |
//! | a socket that takes connections, or is of another kind | refused |
//! | no socket | refused |

use crate::config::socket_file::SocketFile;
use crate::sys::user::group_number;
use greenroom_state::address::Address;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, chmod, chown, chownat, fchmod, fstat, lstat, stat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with, sockopt,
};
use std::fs::DirBuilder;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Connections that the kernel queues for one port, at most: `net.core.somaxconn` lowers it. The
/// queue must hold all clients that arrive while no worker serves.
const BACKLOG: i32 = 4096;
/// Bytes of datagrams that the kernel queues for one port.
const UDP_BUFFER_BYTES: usize = 4 << 20;
/// Flags of all sockets.
const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// Binds a TCP port and listens. `shares`: other sockets of this process may have the address, if
/// they share. Returns the address that the kernel gave, too.
pub(super) fn bind_tcp(addr: SocketAddr, shares: bool) -> io::Result<(OwnedFd, SocketAddr)> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, FLAGS, None)?;
    // Connections of an earlier host may still be in TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if addr.is_ipv6() {
        // A service may listen on 0.0.0.0 and on [::] with one port number.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    set_tcp_options(&socket)?;
    sockopt::set_socket_reuseport(&socket, shares)?;
    bind(&socket, &addr)?;
    listen(&socket, BACKLOG)?;
    let addr = rustix::net::getsockname(&socket)?.try_into()?;
    Ok((socket, addr))
}

/// Binds a UDP port. `shares`: as for [`bind_tcp`]. Returns the address that the kernel gave, too.
pub(super) fn bind_udp(addr: SocketAddr, shares: bool) -> io::Result<(OwnedFd, SocketAddr)> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::DGRAM, FLAGS, None)?;
    if addr.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    // Datagrams that come while no worker serves wait here. `net.core.rmem_max` lowers it.
    sockopt::set_socket_recv_buffer_size(&socket, UDP_BUFFER_BYTES)?;
    sockopt::set_socket_reuseport(&socket, shares)?;
    bind(&socket, &addr)?;
    let addr = rustix::net::getsockname(&socket)?.try_into()?;
    Ok((socket, addr))
}

/// Sets the options that connections inherit from their listener.
pub(super) fn set_tcp_options(socket: impl AsFd) -> io::Result<()> {
    let socket = socket.as_fd();
    // The output of a pass is sent at once, so there is nothing to wait for.
    sockopt::set_tcp_nodelay(socket, true)?;
    // Finds a peer that is gone without closing, after the times of `peer_watch`.
    sockopt::set_socket_keepalive(socket, true)?;
    // Urgent data (telnet's Synch) comes in order, and the kernel counts it as other bytes.
    sockopt::set_socket_oobinline(socket, true)?;
    Ok(())
}

/// Ports below this number are root's, unless `net.ipv4.ip_unprivileged_port_start` says otherwise.
const OWN_PORTS_FROM: u16 = 1024;

/// Reason why an address cannot be bound, with a way out if rights are missing.
pub(super) fn why_not(address: &Address, e: &io::Error) -> String {
    let lacks_rights = e.kind() == io::ErrorKind::PermissionDenied
        && address.socket_addr().is_some_and(|at| at.port() < OWN_PORTS_FROM);
    match lacks_rights {
        true => format!(
            "{e}; ports below {OWN_PORTS_FROM} need CAP_NET_BIND_SERVICE: start the host as root with process.user \
             in the configuration, or give the unit AmbientCapabilities=CAP_NET_BIND_SERVICE, or a socket of systemd"
        ),
        false => e.to_string(),
    }
}

/// File of a Unix socket that listens. Deletes the file with its own end, if the file is still the
/// one that it made.
#[derive(Debug)]
pub(super) struct BoundFile(MadeFile);

/// File as it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeFile {
    pub(super) path: Box<str>,
    /// Device and inode.
    inode: (u64, u64),
    /// Number of the group that it was made with.
    gid: u32,
    /// Mode, user and group of its directory.
    dir: (u32, u32, u32),
}

impl MadeFile {
    /// Makes its directory anew if that is gone, as it was, so that the same users get in.
    pub(super) fn make_dir(&self) -> io::Result<()> {
        let Some(dir) = Path::new(&*self.path).parent().filter(|dir| !dir.exists()) else { return Ok(()) };
        let (mode, uid, gid) = self.dir;
        DirBuilder::new().recursive(true).mode(mode & 0o777).create(dir)?;
        let made = stat(dir)?;
        if (made.st_uid, made.st_gid) != (uid, gid) {
            chown(dir, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        // The umask has taken bits away, and a change of the owner may have, too.
        Ok(chmod(dir, Mode::from_raw_mode(mode))?)
    }

    /// Whether the file is still at its path. Costs a stat.
    pub(super) fn is_in_place(&self) -> bool {
        lstat(&*self.path).is_ok_and(|there| (there.st_dev, there.st_ino) == self.inode)
    }
}

impl BoundFile {
    /// The file.
    pub(super) fn made(&self) -> &MadeFile {
        &self.0
    }

    /// Gives the file a mode, and a group: that which it was made with, if none is wanted. Leaves
    /// any other file at the path as it is. The error says what cannot be given.
    pub(super) fn allow(&self, file: &SocketFile) -> Result<(), String> {
        // A path may lead elsewhere by the next call; a descriptor does not.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(fd) = rustix::fs::open(&*self.0.path, flags, Mode::empty()) else { return Ok(()) };
        let stat = fstat(&fd).map_err(|e| e.to_string())?;
        if (stat.st_dev, stat.st_ino) != self.0.inode {
            return Ok(());
        }
        let gid = file.group.as_deref().map_or(Ok(self.0.gid), group_number)?;
        if gid != stat.st_gid {
            chownat(&fd, "", None, Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH).map_err(|e| {
                format!("its group {}: {e}", file.group.as_deref().unwrap_or("as it was made"))
            })?;
        }
        // Such a descriptor takes no mode by itself.
        chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), Mode::from_raw_mode(file.mode))
            .map_err(|e| format!("its mode {:04o}: {e}", file.mode))
    }
}

impl Drop for BoundFile {
    fn drop(&mut self) {
        if self.0.is_in_place() {
            let _ = std::fs::remove_file(&*self.0.path);
        }
    }
}

/// Binds a Unix socket at an absolute path, and listens. A file that a dead host has left is
/// replaced.
pub(super) fn bind_unix(path: &str) -> io::Result<(OwnedFd, BoundFile)> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)?;
    let address = SocketAddrUnix::new(path)?;
    // The file is made with the mode of its socket. Nobody gets in before the mode is the wanted
    // one: connects need the right to write.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    match bind(&socket, &address) {
        Err(Errno::ADDRINUSE) => {
            remove_if_dead(path, &address)?;
            bind(&socket, &address)?;
        }
        bound => bound?,
    }
    let made = lstat(path)?;
    let dir = stat(Path::new(path).parent().unwrap_or(Path::new("/")))?;
    let file = BoundFile(MadeFile {
        path: path.into(),
        inode: (made.st_dev, made.st_ino),
        gid: made.st_gid,
        dir: (dir.st_mode, dir.st_uid, dir.st_gid),
    });
    listen(&socket, BACKLOG)?;
    Ok((socket, file))
}

/// Removes the socket file that a dead process has left. Fails if somebody listens there, and if
/// the file is no socket.
fn remove_if_dead(path: &str, address: &SocketAddrUnix) -> io::Result<()> {
    let is_socket = rustix::fs::FileType::from_raw_mode(lstat(path)?.st_mode).is_socket();
    if !is_socket {
        return Err(io::Error::other("a file that is no socket is there; remove it or take another path"));
    }
    let probe = socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)?;
    match connect(&probe, address) {
        Err(Errno::CONNREFUSED) => Ok(std::fs::remove_file(path)?),
        // A full queue, or a socket of another type: it lives.
        _ => Err(io::Error::other("another process listens there")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixListener, UnixStream};

    /// The loop and the kernel's byte counts rely on these options from the first byte.
    #[test]
    fn connections_inherit_their_options() {
        let (socket, addr) = bind_tcp(([127, 0, 0, 1], 0).into(), false).unwrap();
        let _peer = std::net::TcpStream::connect(addr).unwrap();
        let fd = rustix::net::accept(&socket).unwrap();
        assert!(sockopt::tcp_nodelay(&fd).unwrap());
        assert!(sockopt::socket_keepalive(&fd).unwrap());
        assert!(sockopt::socket_oobinline(&fd).unwrap());
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock").to_str().unwrap().to_owned();
        drop(UnixListener::bind(&path).unwrap());
        let (_socket, file) = bind_unix(&path).unwrap();
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        file.allow(&SocketFile { mode: 0o660, group: None }).unwrap();
        assert_eq!(mode(), 0o660);
        let said = file.allow(&SocketFile { mode: 0o660, group: Some("no-such-group".into()) }).unwrap_err();
        assert_eq!(said, "there is no group no-such-group");
        UnixStream::connect(&path).unwrap();
        assert_eq!(bind_unix(&path).unwrap_err().to_string(), "another process listens there");
        // Somebody else's file stays, with its mode, behind a link, too.
        std::fs::remove_file(&path).unwrap();
        let other = dir.path().join("other");
        std::fs::write(&other, "").unwrap();
        std::fs::set_permissions(&other, PermissionsExt::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        file.allow(&SocketFile { mode: 0o666, group: None }).unwrap();
        assert_eq!(mode(), 0o600);
        std::fs::rename(&other, &path).unwrap();
        file.allow(&SocketFile { mode: 0o666, group: None }).unwrap();
        assert_eq!(mode(), 0o600);
        drop(file);
        assert!(bind_unix(&path).unwrap_err().to_string().contains("no socket is there"));
        std::fs::remove_file(&path).unwrap();
        drop(bind_unix(&path).unwrap());
        assert!(!std::fs::exists(&path).unwrap());
    }
}
