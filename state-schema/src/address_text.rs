//! Text form of addresses, for people, configuration, logs and dumps.
//!
//! Everything that is printed is parsed again to an equal value, but for the flow label of an
//! IPv6 address. Parsing is strict: no names are resolved, no spaces are skipped, and numbers
//! have digits alone. The forms are in the table of `address.rs`. Errors are sentences that
//! quote the text.
//!
//! Serde reads every form. A [`Peer`] is written as it is printed, and an [`Address`] as
//! [`Address::stored_text`] has it.

use crate::address::{Address, BadAddress, Credentials, Peer, Relay};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(addr) => write!(f, "tcp://{addr}"),
            Address::Udp(addr) => write!(f, "udp://{addr}"),
            Address::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    /// Reads `tcp://IP:PORT`, `udp://IP:PORT`, `unix:PATH`, or a bare `IP:PORT`, which is TCP.
    /// Fails on other text, and on a path that [`Address::unix`] refuses.
    fn from_str(text: &str) -> Result<Address, BadAddress> {
        if let Some(path) = text.strip_prefix("unix:") {
            // `unix:///run/x.sock` is the same as `unix:/run/x.sock`: the authority of the URL
            // is empty.
            let path = path.strip_prefix("//").filter(|p| p.starts_with('/')).unwrap_or(path);
            return Address::unix(path);
        }
        if let Some(addr) = text.strip_prefix("udp://") {
            return Ok(Address::Udp(socket_addr(addr)?));
        }
        Ok(Address::Tcp(socket_addr(text.strip_prefix("tcp://").unwrap_or(text))?))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(addr) => write!(f, "{addr}"),
            Peer::Udp(addr) => write!(f, "udp://{addr}"),
            Peer::Unix(credentials) => write!(f, "{credentials}"),
            Peer::Relayed(r) => match r.relay {
                Relay::Tcp(addr) => write!(f, "{} via {addr}", r.client),
                Relay::Unix(credentials) => write!(f, "{} via {credentials}", r.client),
            },
        }
    }
}

impl FromStr for Peer {
    type Err = BadAddress;

    /// Reads the text that [`Peer`] prints. A relayed peer has one relay: a second ` via ` is
    /// refused, and so is a client that is not plain TCP.
    fn from_str(text: &str) -> Result<Peer, BadAddress> {
        // Looked for first: the relay's own text may begin with `unix:`.
        if let Some((client, relay)) = text.split_once(" via ") {
            let relay = match relay.starts_with("unix:") {
                true => Relay::Unix(relay.parse()?),
                false => Relay::Tcp(socket_addr(relay)?),
            };
            return Ok(Peer::relayed(socket_addr(client)?, relay));
        }
        if text.starts_with("unix:") {
            return Ok(Peer::Unix(text.parse()?));
        }
        if let Some(addr) = text.strip_prefix("udp://") {
            return Ok(Peer::udp(socket_addr(addr)?));
        }
        Ok(Peer::Tcp(socket_addr(text)?))
    }
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix:pid={},uid={},gid={}", self.pid, self.uid, self.gid)
    }
}

impl FromStr for Credentials {
    type Err = BadAddress;

    /// Reads `unix:pid=N,uid=N,gid=N`: all three, in this order, and nothing behind them.
    fn from_str(text: &str) -> Result<Credentials, BadAddress> {
        let fields = || {
            let mut fields = text.strip_prefix("unix:")?.split(',');
            let mut number = |key| number(fields.next()?.strip_prefix(key)?);
            let credentials =
                Credentials { pid: number("pid=")?, uid: number("uid=")?, gid: number("gid=")? };
            fields.next().is_none().then_some(credentials)
        };
        fields().ok_or_else(|| BadAddress(format!("{text:?} is not of the form unix:pid=N,uid=N,gid=N")))
    }
}

/// Number of decimal digits alone: `u32::from_str` takes a sign too. `None`: other text, or
/// more than 32 bits.
fn number(digits: &str) -> Option<u32> {
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Reads `IP:PORT`, with brackets around an IPv6 address. Names are not resolved.
fn socket_addr(text: &str) -> Result<SocketAddr, BadAddress> {
    text.parse().map_err(|_| BadAddress(format!("{text:?} is no IP address with a port")))
}

impl Address {
    /// Returns the form that records and messages hold, and serde writes: TCP without its
    /// scheme. Builds that know no other transport read that form.
    pub fn stored_text(&self) -> String {
        match self {
            Address::Tcp(addr) => addr.to_string(),
            other => other.to_string(),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.stored_text())
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Peer {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Peer {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}
