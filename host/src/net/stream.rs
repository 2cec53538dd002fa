//! Connected stream sockets, TCP and Unix alike.
//!
//! A read, a write and a shutdown are the same system calls for both. What differs is asked here:
//! who the peer is, and whether the kernel counts the bytes ([`Stream::is_unix`]).
//!
//! Nothing blocks: the sockets were made nonblocking by the keeper.

use greenroom_state::address::{Credentials, Peer};
use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketAddrAny, sockopt,
};
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Connected stream socket.
#[derive(Debug)]
pub struct Stream(OwnedFd);

impl Stream {
    /// Returns the peer: the address, or the credentials of the process that connected. Fails if
    /// the peer is gone, and for a socket of another kind.
    pub fn peer(&self) -> io::Result<Peer> {
        if self.is_unix() {
            let of = sockopt::socket_peercred(&self.0)?;
            let pid = of.pid.as_raw_nonzero().get() as u32;
            return Ok(Peer::Unix(Credentials { pid, uid: of.uid.as_raw(), gid: of.gid.as_raw() }));
        }
        socket_addr(rustix::net::getpeername(&self.0)?.ok_or(io::ErrorKind::NotConnected)?).map(Peer::Tcp)
    }

    /// Returns the local address. `None`: a Unix socket, whose connections have none of their own.
    pub fn local(&self) -> io::Result<Option<SocketAddr>> {
        match self.is_unix() {
            true => Ok(None),
            false => socket_addr(rustix::net::getsockname(&self.0)?).map(Some),
        }
    }

    /// Returns whether this is a Unix socket. The kernel does not count its bytes.
    pub fn is_unix(&self) -> bool {
        is_unix(&self.0)
    }

    /// Reads bytes into `place`. 0: the peer has ended its side.
    #[inline]
    pub fn read(&self, place: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::net::recv(&self.0, place, RecvFlags::empty())?.0)
    }

    /// Writes bytes, as many as the kernel takes.
    #[inline]
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(&self.0, bytes, SendFlags::NOSIGNAL)?)
    }

    /// Writes pieces one behind the other, with one system call, as many bytes as the kernel takes.
    pub fn write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut nothing = SendAncillaryBuffer::default();
        Ok(rustix::net::sendmsg(&self.0, pieces, &mut nothing, SendFlags::NOSIGNAL)?)
    }

    /// Sets the time in which the peer must acknowledge what was sent, in milliseconds; 0: the
    /// kernel's. A Unix socket has none, as its peer can't be gone.
    pub fn acknowledge_within(&self, ms: u64) {
        let _ = sockopt::set_tcp_user_timeout(&self.0, u32::try_from(ms).unwrap_or(u32::MAX));
    }

    /// Ends the outgoing direction.
    pub fn shut_down(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(&self.0, Shutdown::Write)?)
    }
}

/// Returns whether a socket is a Unix socket. Costs a system call.
pub fn is_unix(socket: impl AsFd) -> bool {
    sockopt::socket_domain(socket).is_ok_and(|domain| domain == AddressFamily::UNIX)
}

/// Address of an IP socket. A peer that came by IPv4 has its IPv4 address also on a socket of both
/// stacks.
fn socket_addr(any: SocketAddrAny) -> io::Result<SocketAddr> {
    let addr = SocketAddr::try_from(any)?;
    Ok(match addr.ip() {
        IpAddr::V6(ip) if let Some(v4) = ip.to_ipv4_mapped() => (v4, addr.port()).into(),
        _ => addr,
    })
}

impl From<OwnedFd> for Stream {
    fn from(fd: OwnedFd) -> Stream {
        Stream(fd)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Source for Stream {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.0.as_raw_fd()).register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.0.as_raw_fd()).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        SourceFd(&self.0.as_raw_fd()).deregister(registry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    #[test]
    fn both_kinds_are_read_and_written_alike() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let tcp: (Stream, Stream) =
            (OwnedFd::from(listener.accept().unwrap().0).into(), OwnedFd::from(there).into());
        let (a, b) = UnixStream::pair().unwrap();
        let unix = (OwnedFd::from(a).into(), OwnedFd::from(b).into());
        for (here, there) in [tcp, unix] {
            assert_eq!(there.write(b"one ").unwrap(), 4);
            assert_eq!(there.write_vectored(&[IoSlice::new(b"t"), IoSlice::new(b"wo")]).unwrap(), 3);
            there.shut_down().unwrap();
            let (mut got, mut place) = (Vec::<u8>::new(), [0; 3]);
            while let n @ 1.. = here.read(&mut place).unwrap() {
                got.extend(&place[..n]);
            }
            assert_eq!(got, b"one two");
            match here.peer().unwrap() {
                Peer::Tcp(addr) => assert_eq!(there.local().unwrap(), Some(addr)),
                Peer::Unix(who) => {
                    assert_eq!((who.pid, here.local().unwrap()), (std::process::id(), None));
                }
                other => panic!("{other}"),
            }
        }
    }
}
