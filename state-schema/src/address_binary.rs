//! Binary form of addresses, for records: version, kind, then the fields of the kind.
//!
//! A socket address is its family, its port and its IP address; an IPv6 address has its scope
//! behind it. Numbers are little-endian.
//!
//! | kind | of | fields behind the kind |
//! | --- | --- | --- |
//! | 1, 2 | TCP, UDP | socket address |
//! | 3, in an [`Address`] | Unix socket | path, to the end |
//! | 3, in a [`Peer`] | Unix socket | process, user, group: four bytes each |
//! | 4, 5 | relayed over TCP, over a Unix socket | client's socket address, fields of the relay |
//!
//! Records outlive the binary that wrote them, so a number never changes its meaning, and new
//! kinds get new numbers. Decoding believes nothing: bytes that are too short, too long or of
//! no known kind give `None`, and the caller treats the record as damaged.

use crate::address::{Address, Credentials, Peer, Relay};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Version of the binary form, in its first byte.
const VERSION: u8 = 1;

// Kinds in the second byte of both binary forms. A number never changes its meaning.
const KIND_TCP: u8 = 1;
const KIND_UDP: u8 = 2;
const KIND_UNIX: u8 = 3;
const KIND_RELAYED_BY_TCP: u8 = 4;
const KIND_RELAYED_BY_UNIX: u8 = 5;

impl Address {
    /// Appends the binary form, at most [`crate::address::ADDRESS_BYTES_MAX`] bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Address::Tcp(addr) => {
                out.extend([VERSION, KIND_TCP]);
                put_socket_addr(*addr, out);
            }
            Address::Udp(addr) => {
                out.extend([VERSION, KIND_UDP]);
                put_socket_addr(*addr, out);
            }
            Address::Unix(path) => {
                out.extend([VERSION, KIND_UNIX]);
                out.extend(path.as_bytes());
            }
        }
    }

    /// Reads the bytes that [`Address::encode`] wrote, all of them. `None`: other bytes, or a
    /// version or kind that this build does not know. A path is checked as [`Address::unix`]
    /// does.
    pub fn decode(bytes: &[u8]) -> Option<Address> {
        let (head, mut rest) = bytes.split_first_chunk()?;
        let address = match head {
            [VERSION, KIND_TCP] => Address::Tcp(take_socket_addr(&mut rest)?),
            [VERSION, KIND_UDP] => Address::Udp(take_socket_addr(&mut rest)?),
            [VERSION, KIND_UNIX] => {
                // A path has no length of its own, so no zeros may follow it: a NUL is refused.
                return Address::unix(std::str::from_utf8(rest).ok()?).ok();
            }
            _ => return None,
        };
        rest.is_empty().then_some(address)
    }
}

impl Peer {
    /// Appends the binary form, at most [`crate::address::PEER_BYTES_MAX`] bytes.
    pub fn encode(&self, out: &mut impl Extend<u8>) {
        match self {
            Peer::Tcp(addr) => {
                out.extend([VERSION, KIND_TCP]);
                put_socket_addr(*addr, out);
            }
            Peer::Udp(addr) => {
                out.extend([VERSION, KIND_UDP]);
                put_socket_addr(**addr, out);
            }
            Peer::Unix(credentials) => {
                out.extend([VERSION, KIND_UNIX]);
                put_credentials(*credentials, out);
            }
            Peer::Relayed(r) => match r.relay {
                Relay::Tcp(addr) => {
                    out.extend([VERSION, KIND_RELAYED_BY_TCP]);
                    put_socket_addr(r.client, out);
                    put_socket_addr(addr, out);
                }
                Relay::Unix(credentials) => {
                    out.extend([VERSION, KIND_RELAYED_BY_UNIX]);
                    put_socket_addr(r.client, out);
                    put_credentials(credentials, out);
                }
            },
        }
    }

    /// Reads the bytes that [`Peer::encode`] wrote. Zeros may follow, as in a record of fixed
    /// size. `None`: other bytes, or a version or kind that this build does not know.
    pub fn decode(bytes: &[u8]) -> Option<Peer> {
        let (head, mut rest) = bytes.split_first_chunk()?;
        let rest = &mut rest;
        let peer = match head {
            [VERSION, KIND_TCP] => Peer::Tcp(take_socket_addr(rest)?),
            [VERSION, KIND_UDP] => Peer::udp(take_socket_addr(rest)?),
            [VERSION, KIND_UNIX] => Peer::Unix(take_credentials(rest)?),
            [VERSION, KIND_RELAYED_BY_TCP] => {
                let client = take_socket_addr(rest)?;
                Peer::relayed(client, Relay::Tcp(take_socket_addr(rest)?))
            }
            [VERSION, KIND_RELAYED_BY_UNIX] => {
                let client = take_socket_addr(rest)?;
                Peer::relayed(client, Relay::Unix(take_credentials(rest)?))
            }
            _ => return None,
        };
        // Other bytes behind a peer are the fields of a kind that this build does not know, or
        // damage.
        rest.iter().all(|b| *b == 0).then_some(peer)
    }
}

/// Appends family, port, address; the scope behind an IPv6 address. 7 or 23 bytes.
fn put_socket_addr(addr: SocketAddr, out: &mut impl Extend<u8>) {
    out.extend([if addr.is_ipv4() { 4 } else { 6 }]);
    out.extend(addr.port().to_le_bytes());
    match addr {
        SocketAddr::V4(v4) => out.extend(v4.ip().octets()),
        SocketAddr::V6(v6) => {
            out.extend(v6.ip().octets());
            out.extend(v6.scope_id().to_le_bytes());
        }
    }
}

/// Takes a socket address off the front. `None`: too few bytes, or no known family.
fn take_socket_addr(bytes: &mut &[u8]) -> Option<SocketAddr> {
    let [family] = take(bytes)?;
    let port = u16::from_le_bytes(take(bytes)?);
    match family {
        4 => Some(SocketAddr::from((Ipv4Addr::from(take::<4>(bytes)?), port))),
        6 => {
            let ip = Ipv6Addr::from(take::<16>(bytes)?);
            let scope = u32::from_le_bytes(take(bytes)?);
            Some(SocketAddrV6::new(ip, port, 0, scope).into())
        }
        _ => None,
    }
}

/// Appends process, user, group; four bytes each.
fn put_credentials(c: Credentials, out: &mut impl Extend<u8>) {
    for n in [c.pid, c.uid, c.gid] {
        out.extend(n.to_le_bytes());
    }
}

/// Takes credentials off the front. `None`: too few bytes.
fn take_credentials(bytes: &mut &[u8]) -> Option<Credentials> {
    let mut number = || Some(u32::from_le_bytes(take(bytes)?));
    Some(Credentials { pid: number()?, uid: number()?, gid: number()? })
}

/// Takes `N` bytes off the front. `None`: there are fewer, and nothing is taken.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*head)
}
