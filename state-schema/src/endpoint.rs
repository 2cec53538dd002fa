//! Endpoints: addresses with the kind of connections that come there.
//!
//! | text | kind | address |
//! | --- | --- | --- |
//! | `127.0.0.1:4000`, `tcp://127.0.0.1:4000` | the service's first | TCP |
//! | `unix:/run/chat.sock` | the service's first | Unix |
//! | `telnet://[::1]:4023` | telnet | TCP |
//! | `line+unix:/run/chat.sock` | line | Unix |
//!
//! | `tls+telnet://[::]:4992` | telnet, over TLS | TCP |
//! | `tls://127.0.0.1:4443` | the service's first, over TLS | TCP |
//! | `wss://0.0.0.0:8443` | ws, over TLS | TCP |
//!
//! A kind is the name of a framing, maybe over TLS. This file checks its form alone: which kinds
//! there are is the host's to know, and the service's.

use crate::address::{Address, BadAddress};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Most bytes of a kind's name.
const KIND_BYTES_MAX: usize = 32;

/// Endpoint, as configurations and `status` name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Kind of its connections; empty: the service's first.
    pub kind: Box<str>,
    /// Address to listen on.
    pub address: Address,
}

impl From<Address> for Endpoint {
    /// Endpoint of the service's first kind.
    fn from(address: Address) -> Endpoint {
        Endpoint { kind: "".into(), address }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&*self.kind, &self.address) {
            ("", address) => write!(f, "{address}"),
            (kind, Address::Tcp(addr)) => write!(f, "{kind}://{addr}"),
            (kind, other) => write!(f, "{kind}+{other}"),
        }
    }
}

impl FromStr for Endpoint {
    type Err = BadAddress;

    /// Reads the forms in the head of this file. Fails on text that is no address, and on a kind
    /// whose name is not of small letters, digits and `-`.
    fn from_str(text: &str) -> Result<Endpoint, BadAddress> {
        let with = |kind: &str, address: &str| match is_kind(kind) {
            true => Ok(Endpoint { kind: kind.into(), address: address.parse()? }),
            false => Err(BadAddress(format!("{kind:?} in {text:?} is no name of a kind of endpoint"))),
        };
        let plain = ["tcp://", "udp://", "unix:"].iter().any(|scheme| text.starts_with(scheme));
        match text.split_once("+unix:") {
            _ if plain => Ok(Endpoint::from(text.parse::<Address>()?)),
            Some((kind, path)) => with(kind, &format!("unix:{path}")),
            None => match text.split_once("://") {
                Some((kind, addr)) => with(kind, addr),
                None => Ok(Endpoint::from(text.parse::<Address>()?)),
            },
        }
    }
}

/// Returns the framing's kind of a kind over TLS; empty: the service's first. `None`: the kind is
/// not over TLS.
pub fn over_tls(kind: &str) -> Option<&str> {
    match kind {
        "tls" => Some(""),
        "wss" => Some("ws"),
        _ => kind.strip_prefix("tls+"),
    }
}

/// Returns whether a text may name a kind.
fn is_kind(text: &str) -> bool {
    let text = text.strip_prefix("tls+").unwrap_or(text);
    let letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty() && text.len() <= KIND_BYTES_MAX && text.bytes().all(letters)
}

impl Serialize for Endpoint {
    /// Writes an endpoint of the first kind as its address is written, which earlier versions read.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.kind.is_empty() {
            true => self.address.serialize(serializer),
            false => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Endpoint, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read_and_printed() {
        for (text, kind, address) in [
            ("tcp://127.0.0.1:4000", "", "127.0.0.1:4000"),
            ("unix:/run/chat.sock", "", "unix:/run/chat.sock"),
            ("udp://[::1]:53", "", "udp://[::1]:53"),
            ("telnet://[::1]:4023", "telnet", "[::1]:4023"),
            ("tls://127.0.0.1:1", "tls", "127.0.0.1:1"),
            ("tls+line://127.0.0.1:1", "tls+line", "127.0.0.1:1"),
            ("wss://127.0.0.1:1", "wss", "127.0.0.1:1"),
            ("tls+ws://127.0.0.1:1", "tls+ws", "127.0.0.1:1"),
            ("line+unix:/run/a+unix:b", "line", "unix:/run/a+unix:b"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!((&*endpoint.kind, &endpoint.address), (kind, &address.parse().unwrap()), "{text}");
            assert_eq!(endpoint.to_string(), text);
            let json = serde_json::to_string(&endpoint).unwrap();
            assert_eq!(serde_json::from_str::<Endpoint>(&json).unwrap(), endpoint);
        }
        assert_eq!("127.0.0.1:1".parse::<Endpoint>().unwrap().to_string(), "tcp://127.0.0.1:1");
        // Earlier versions read the list of a configuration, if it has no kinds.
        let bare = Endpoint::from("127.0.0.1:1".parse::<Address>().unwrap());
        assert_eq!(serde_json::to_string(&bare).unwrap(), "\"127.0.0.1:1\"");
    }

    #[test]
    fn a_kind_over_tls_has_a_framings_kind() {
        let all = ["tls", "wss", "tls+telnet", "line", ""].map(over_tls);
        assert_eq!(all, [Some(""), Some("ws"), Some("telnet"), None, None]);
    }

    #[test]
    fn bad_text_is_refused_with_its_reason() {
        for (text, says) in [
            ("nowhere", "no IP address with a port"),
            ("Telnet://127.0.0.1:1", "no name of a kind"),
            ("://127.0.0.1:1", "no name of a kind"),
            ("telnet://nowhere", "no IP address with a port"),
            ("line+unix:relative", "not absolute"),
            ("tls+://127.0.0.1:1", "no name of a kind"),
            ("tls+tls+line://127.0.0.1:1", "no name of a kind"),
            ("line+tls://127.0.0.1:1", "no name of a kind"),
        ] {
            let said = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(said.contains(says), "{text}: {said}");
        }
    }
}
