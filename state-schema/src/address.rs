//! Addresses of endpoints and of peers: as text for people and configuration, as bytes for
//! records.
//!
//! `address_text.rs` has the text form, `address_binary.rs` the binary form.
//!
//! | type | text | example |
//! | --- | --- | --- |
//! | [`Address`] | scheme and address | `tcp://127.0.0.1:4000`, `udp://[::1]:53`, `unix:/x.sock` |
//! | [`Peer`], TCP | the bare socket address | `127.0.0.1:54321` |
//! | [`Peer`], UDP | scheme and socket address | `udp://127.0.0.1:54321` |
//! | [`Peer`], Unix | the credentials of its process | `unix:pid=7,uid=1000,gid=1000` |
//! | [`Peer`], relayed | the client, then the relay | `203.0.113.7:4000 via 10.0.0.1:5000` |
//!
//! Parsing accepts everything that printing makes, and serde uses text too. The binary form
//! begins with its version; [`Peer::decode`] and [`Address::decode`] take all versions that
//! they know.
//!
//! The flow label of an IPv6 address is dropped by both forms, because no text of it exists.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Longest path of a Unix socket, in bytes: Linux keeps 108, one of them for the NUL.
pub const UNIX_PATH_BYTES_MAX: usize = 107;

/// Most bytes of an encoded [`Address`].
pub const ADDRESS_BYTES_MAX: usize = 2 + UNIX_PATH_BYTES_MAX;

/// Most bytes of an encoded [`Peer`]: version, kind, and two IPv6 addresses with port and scope.
pub const PEER_BYTES_MAX: usize = 2 + 2 * 23;

/// Endpoint that a service listens at, or that a connection goes to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// TCP over IPv4 or IPv6.
    Tcp(SocketAddr),
    /// UDP over IPv4 or IPv6.
    Udp(SocketAddr),
    /// Path of a Unix stream socket. [`Address::unix`] checks it.
    Unix(Box<str>),
}

/// Other end of a connection.
///
/// Takes 32 bytes, as much as a [`SocketAddr`]: each session holds one. The rare kinds are boxed
/// for that.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Connected over TCP.
    Tcp(SocketAddr),
    /// Sent a datagram over UDP.
    Udp(Box<SocketAddr>),
    /// Connected to a Unix socket.
    Unix(Credentials),
    /// Connected to a relay, which passes the connection on and names the client.
    Relayed(Box<Relayed>),
}

const _: () = assert!(size_of::<Peer>() <= size_of::<SocketAddr>());

/// Credentials of the process at the other end of a Unix socket, as they were when it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// Process; 0: in another PID namespace.
    pub pid: u32,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

/// Client behind a relay.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Relayed {
    /// Address of the client, as the relay says.
    pub client: SocketAddr,
    /// End of the connection that the host holds.
    pub relay: Relay,
}

/// Relay that a connection came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relay {
    /// Connected over TCP.
    Tcp(SocketAddr),
    /// Connected to a Unix socket.
    Unix(Credentials),
}

/// Text that is no address, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadAddress(pub(crate) String);

impl fmt::Display for BadAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadAddress {}

impl Address {
    /// Address of a Unix socket. Refuses a path that is relative, longer than
    /// [`UNIX_PATH_BYTES_MAX`] or has a control character.
    pub fn unix(path: &str) -> Result<Address, BadAddress> {
        let bad = |why: &str| Err(BadAddress(format!("{path:?} is no path of a Unix socket: {why}")));
        match path {
            _ if !path.starts_with('/') => bad("it is not absolute"),
            _ if path.len() > UNIX_PATH_BYTES_MAX => {
                bad(&format!("it is longer than {UNIX_PATH_BYTES_MAX} bytes"))
            }
            _ if path.chars().any(char::is_control) => bad("it has a control character"),
            _ => Ok(Address::Unix(path.into())),
        }
    }

    /// IP address and port, for the kinds that have them.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Address::Tcp(addr) | Address::Udp(addr) => Some(*addr),
            Address::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for Address {
    /// Takes a bare socket address as TCP.
    fn from(addr: SocketAddr) -> Address {
        Address::Tcp(addr)
    }
}

impl Peer {
    /// Peer that sent a datagram.
    pub fn udp(addr: SocketAddr) -> Peer {
        Peer::Udp(Box::new(addr))
    }

    /// Client behind a relay.
    pub fn relayed(client: SocketAddr, relay: Relay) -> Peer {
        Peer::Relayed(Box::new(Relayed { client, relay }))
    }

    /// Whether its connection is one of TCP, that of its relay if it has one.
    pub fn is_over_tcp(&self) -> bool {
        match self {
            Peer::Tcp(_) => true,
            Peer::Unix(_) | Peer::Udp(_) => false,
            Peer::Relayed(r) => matches!(r.relay, Relay::Tcp(_)),
        }
    }

    /// IP address that limits for each peer count by: the client's, if it is relayed. `None` for a
    /// Unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Peer::Tcp(addr) => Some(addr.ip()),
            Peer::Udp(addr) => Some(addr.ip()),
            Peer::Unix(_) => None,
            Peer::Relayed(r) => Some(r.client.ip()),
        }
    }
}

impl From<SocketAddr> for Peer {
    /// Takes a bare socket address as TCP.
    fn from(addr: SocketAddr) -> Peer {
        Peer::Tcp(addr)
    }
}
