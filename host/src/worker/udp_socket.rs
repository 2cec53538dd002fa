//! UDP socket of a port: datagrams in and out, up to [`AT_ONCE`] by one system call.
//!
//! A port at all addresses (0.0.0.0, `[::]`) learns from the kernel which address a datagram was
//! sent to, and has its answers leave from there: a peer knows no other, and drops them. A port at
//! one address asks for nothing, and pays for nothing.
//!
//! | port | headers of receives | headers of sends |
//! | --- | --- | --- |
//! | at one address | made once | made once |
//! | at all addresses | made for each call: the kernel shortens their room | made once |
//!
//! Datagrams of a later turn, or of another one, answer none. Each leaves from the address that
//! its receiver last sent to, among the last [`RECENT_MAX`] senders. A successor of the worker
//! knows none of them. Sessions have their address in a record.
//!
//! The kernel gives the address of a broadcast's interface, which can answer. A multicast of IPv6
//! has none: the kernel chooses the address of its answers.

use nix::cmsg_space;
use nix::libc;
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrStorage, recvmmsg,
    sendmmsg, setsockopt,
};
use std::collections::HashMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Datagrams of one system call.
pub(super) const AT_ONCE: usize = 64;
/// Senders whose addresses at the host a port knows, at least; at most twice as many. About 100
/// bytes each.
const RECENT_MAX: usize = 1024;

/// Datagram that was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeardDatagram {
    /// Address that it came from; `None`: of no known family.
    pub(super) from: Option<SocketAddr>,
    /// Address that it was sent to; `None`: the port's own, or one that can't answer.
    pub(super) to: Option<IpAddr>,
    /// Length in bytes.
    pub(super) len: usize,
}

/// Datagram to send.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outgoing<'a> {
    /// Address of the host to send it from; `None`: the port's own, or the one that its receiver
    /// last sent to.
    pub(super) from: Option<IpAddr>,
    /// Address to send it to.
    pub(super) to: SocketAddr,
    /// Bytes of the datagram.
    pub(super) bytes: &'a [u8],
}

/// Addresses of the host that senders have sent to, of the last ones.
#[derive(Default)]
struct RecentSenders {
    young: HashMap<SocketAddr, IpAddr>,
    /// Those before: they are dropped when the young ones are as many.
    old: HashMap<SocketAddr, IpAddr>,
}

impl RecentSenders {
    /// Notes where a sender sent to.
    fn note(&mut self, sender: SocketAddr, to: IpAddr) {
        if self.young.len() >= RECENT_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(sender, to);
    }

    /// Where a sender last sent to, if it is known.
    fn get(&self, sender: SocketAddr) -> Option<IpAddr> {
        self.young.get(&sender).or_else(|| self.old.get(&sender)).copied()
    }
}

/// Part of a socket at all addresses.
struct AtAllAddresses {
    /// Headers of sends that name their address at the host.
    sends: MultiHeaders<SockaddrStorage>,
    recent: RecentSenders,
}

/// UDP socket.
pub(super) struct UdpSocket {
    socket: OwnedFd,
    is_v4: bool,
    /// Headers of receives. They are no port's else, as the kernel writes the length of addresses
    /// into them; and of no sends, which let them point at other addresses.
    receives: MultiHeaders<SockaddrStorage>,
    /// Headers of sends.
    sends: MultiHeaders<SockaddrStorage>,
    /// `None`: it is at one address.
    at_all: Option<AtAllAddresses>,
}

impl UdpSocket {
    /// Takes a bound socket. One at all addresses is told which address a datagram is sent to.
    pub(super) fn new(socket: OwnedFd) -> io::Result<UdpSocket> {
        let local: SocketAddr = rustix::net::getsockname(&socket)?.try_into()?;
        let is_v4 = local.is_ipv4();
        let mut at_all = None;
        if local.ip().is_unspecified() {
            match is_v4 {
                true => setsockopt(&socket, Ipv4PacketInfo, &true)?,
                false => setsockopt(&socket, Ipv6RecvPacketInfo, &true)?,
            }
            at_all =
                Some(AtAllAddresses { sends: headers_with_address(is_v4), recent: RecentSenders::default() });
        }
        let headers = || MultiHeaders::preallocate(AT_ONCE, None);
        Ok(UdpSocket { socket, is_v4, receives: headers(), sends: headers(), at_all })
    }

    /// Whether its addresses are of IPv4.
    pub(super) fn is_v4(&self) -> bool {
        self.is_v4
    }

    /// Receives datagrams into places, as far as there are any, and appends what they are. Fails if
    /// there is none.
    pub(super) fn receive<'a>(
        &mut self,
        places: impl Iterator<Item = &'a mut [u8]>,
        heard: &mut Vec<HeardDatagram>,
    ) -> nix::Result<()> {
        let mut slices: Vec<_> = places.map(|place| [IoSliceMut::new(place)]).collect();
        let fd = self.as_raw_fd();
        let Some(at_all) = &mut self.at_all else {
            let all = recvmmsg(fd, &mut self.receives, &mut slices, MsgFlags::MSG_DONTWAIT, None)?;
            heard.extend(all.map(|m| HeardDatagram { from: address(m.address), to: None, len: m.bytes }));
            return Ok(());
        };
        let mut headers = headers_with_address(self.is_v4);
        for m in recvmmsg(fd, &mut headers, &mut slices, MsgFlags::MSG_DONTWAIT, None)? {
            let (from, to) = (address(m.address), sent_to(&m));
            if let (Some(from), Some(to)) = (from, to) {
                at_all.recent.note(from, to);
            }
            heard.push(HeardDatagram { from, to, len: m.bytes });
        }
        Ok(())
    }

    /// Sends datagrams, as far as the kernel takes them at once. One that it refuses costs no
    /// other.
    pub(super) fn send(&mut self, datagrams: &[Outgoing<'_>]) {
        let mut rest = datagrams;
        while let Some(first) = rest.first() {
            // A call has one address of the host for all that it sends.
            let from = self.address_for(first);
            let alike = rest.iter().take(AT_ONCE).take_while(|d| self.address_for(d) == from).count();
            let (mut batch, behind) = rest.split_at(alike);
            rest = behind;
            while !batch.is_empty() {
                match self.send_some(from, batch) {
                    Ok(n) => batch = &batch[n.clamp(1, batch.len())..],
                    Err(nix::Error::EINTR) => {}
                    // No room: datagrams that come later have none either.
                    Err(nix::Error::EAGAIN | nix::Error::ENOBUFS) => return,
                    Err(e) => {
                        tracing::debug!(to = %batch[0].to, "a datagram cannot be sent: {e}");
                        batch = &batch[1..];
                    }
                }
            }
        }
    }

    /// Address of the host to send a datagram from; `None`: the kernel chooses.
    fn address_for(&self, datagram: &Outgoing<'_>) -> Option<IpAddr> {
        let at_all = self.at_all.as_ref()?;
        datagram.from.or_else(|| at_all.recent.get(datagram.to))
    }

    /// Sends datagrams from one address of the host by one call. Returns how many the kernel took.
    fn send_some(&mut self, from: Option<IpAddr>, datagrams: &[Outgoing<'_>]) -> nix::Result<usize> {
        let slices: Vec<_> = datagrams.iter().map(|d| [IoSlice::new(d.bytes)]).collect();
        let to: Vec<_> = datagrams.iter().map(|d| Some(SockaddrStorage::from(d.to))).collect();
        let (fd, flags) = (self.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
        let (Some(from), Some(at_all)) = (from, &mut self.at_all) else {
            return sendmmsg(fd, &mut self.sends, &slices, &to, [], flags).map(Iterator::count);
        };
        // Interface 0: the route decides, or the scope of the peer's address.
        let (v4, v6);
        let from = match from {
            IpAddr::V4(ip) if self.is_v4 => {
                let ipi_spec_dst = libc::in_addr { s_addr: u32::from(ip).to_be() };
                v4 = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst, ipi_addr: libc::in_addr { s_addr: 0 } };
                ControlMessage::Ipv4PacketInfo(&v4)
            }
            ip => {
                let ip = match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                let ipi6_addr = libc::in6_addr { s6_addr: ip.octets() };
                v6 = libc::in6_pktinfo { ipi6_addr, ipi6_ifindex: 0 };
                ControlMessage::Ipv6PacketInfo(&v6)
            }
        };
        sendmmsg(fd, &mut at_all.sends, &slices, &to, [from], flags).map(Iterator::count)
    }
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Headers with room for one address of the host each.
fn headers_with_address(is_v4: bool) -> MultiHeaders<SockaddrStorage> {
    let room = match is_v4 {
        true => cmsg_space!(libc::in_pktinfo),
        false => cmsg_space!(libc::in6_pktinfo),
    };
    MultiHeaders::preallocate(AT_ONCE, Some(room))
}

/// Address of the host that a datagram was sent to. `None`: nothing can be sent from it.
fn sent_to(datagram: &RecvMsg<'_, '_, SockaddrStorage>) -> Option<IpAddr> {
    let v4 = |a: libc::in_addr| Ipv4Addr::from(u32::from_be(a.s_addr));
    datagram.cmsgs().ok()?.find_map(|told| match told {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            // A datagram that came before the socket asked has its header's address alone.
            let ip = Some(v4(info.ipi_spec_dst)).filter(|ip| !ip.is_unspecified());
            ip.or(Some(v4(info.ipi_addr)).filter(|ip| !ip.is_multicast() && !ip.is_broadcast()))
                .map(IpAddr::V4)
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
            (!ip.is_multicast() && !ip.is_unspecified()).then_some(IpAddr::V6(ip))
        }
        _ => None,
    })
}

/// Address of a sender; `None`: of no known family.
fn address(from: Option<SockaddrStorage>) -> Option<SocketAddr> {
    let from = from?;
    let v4 = from.as_sockaddr_in().map(|a| SocketAddr::from((a.ip(), a.port())));
    v4.or_else(|| from.as_sockaddr_in6().map(|a| std::net::SocketAddrV6::from(*a).into()))
}
