//! Endpoints: addresses with the kind of connections that come there.
//!
//! | text | kind | address |
//! | --- | --- | --- |
//! | `127.0.0.1:4000`, `tcp://127.0.0.1:4000` | the service's first | TCP |
//! | `unix:/run/chat.sock` | the service's first | Unix |
//! | `telnet://[::1]:4023` | telnet | TCP |
//! | `line+unix:/run/chat.sock` | line | Unix |
//! | `udp://127.0.0.1:53` | the service's first over UDP | UDP |
//! | `peer+udp://127.0.0.1:53` | peer | UDP |
//! | `proxy+tcp://127.0.0.1:4000` | the service's first, behind a PROXY header | TCP |
//! | `proxy+telnet://[::1]:4023` | telnet, behind a PROXY header | TCP |
//!
//! | `tls+telnet://[::]:4992` | telnet, over TLS | TCP |
//! | `tls://127.0.0.1:4443` | the service's first, over TLS | TCP |
//! | `wss://0.0.0.0:8443` | ws, over TLS | TCP |
//! | `ws+prefix://127.0.0.1:9001` | prefix, in a stream of WebSocket | TCP |
//! | `wss+prefix://127.0.0.1:9443` | the same, over TLS | TCP |
//!
//! A kind is the name of a framing. What is around its stream stands before it, each with a plus:
//! `proxy`, `tls`, `ws`, in this order. This file checks the form alone: which framings there are
//! is the host's to know, and the service's.

use crate::address::{Address, BadAddress};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Kind of an endpoint whose connections begin with a PROXY header.
const PROXY: &str = "proxy";

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

/// Splits a kind: whether a PROXY header comes first, and the name of the framing; empty: the
/// service's first.
pub fn split_kind(kind: &str) -> (bool, &str) {
    match kind.strip_prefix(PROXY) {
        Some("") => (true, ""),
        Some(rest) => rest.strip_prefix('+').map_or((false, kind), |framing| (true, framing)),
        None => (false, kind),
    }
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
            (PROXY, Address::Tcp(addr)) => write!(f, "{PROXY}+tcp://{addr}"),
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
        let with = |kind: &str, address: &str| match is_kind(split_kind(kind).1) || kind == PROXY {
            true => Ok(Endpoint { kind: long_form(kind), address: address.parse()? }),
            false => Err(BadAddress(format!(
                "{kind:?} in {text:?} is no name of a kind of endpoint: a kind is a word such as line, telnet \
                 or ws, with tls+ or proxy+ before it where they apply"
            ))),
        };
        let plain = ["tcp://", "udp://", "unix:"].iter().any(|scheme| text.starts_with(scheme));
        let transport = ["unix:", "udp://"].iter().find_map(|scheme| {
            let (kind, rest) = text.split_once(&format!("+{scheme}"))?;
            Some((kind, format!("{scheme}{rest}")))
        });
        match transport {
            _ if plain => Ok(Endpoint::from(text.parse::<Address>()?)),
            Some((kind, address)) => with(kind, &address),
            None => match text.split_once("://") {
                Some(("proxy+tcp", addr)) => with(PROXY, addr),
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

/// Returns the framing's kind of a kind in a stream of WebSocket, which carries the bytes of that
/// framing. `None`: the kind is not in one. Neither `proxy` nor TLS may stand before it.
pub fn in_websocket(kind: &str) -> Option<&str> {
    kind.strip_prefix("ws+")
}

/// Kind with `tls+ws+` in place of `wss+`, so that each kind has one name.
fn long_form(kind: &str) -> Box<str> {
    let (is_proxied, rest) = split_kind(kind);
    match (is_proxied, rest.strip_prefix("wss+")) {
        (_, None) => kind.into(),
        (false, Some(inner)) => format!("tls+ws+{inner}").into(),
        (true, Some(inner)) => format!("{PROXY}+tls+ws+{inner}").into(),
    }
}

/// Returns whether a text may name a kind.
fn is_kind(text: &str) -> bool {
    let text = text.strip_prefix("tls+").unwrap_or(text);
    let text = text.strip_prefix("ws+").or_else(|| text.strip_prefix("wss+")).unwrap_or(text);
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
            ("ws+prefix://127.0.0.1:1", "ws+prefix", "127.0.0.1:1"),
            ("ws+line+unix:/run/x", "ws+line", "unix:/run/x"),
            ("proxy+tls+ws+prefix://127.0.0.1:1", "proxy+tls+ws+prefix", "127.0.0.1:1"),
            ("line+unix:/run/a+unix:b", "line", "unix:/run/a+unix:b"),
            ("peer+udp://[::1]:53", "peer", "udp://[::1]:53"),
            ("proxy+tcp://127.0.0.1:4000", "proxy", "127.0.0.1:4000"),
            ("proxy+telnet://[::1]:4023", "proxy+telnet", "[::1]:4023"),
            ("proxy+unix:/run/x", "proxy", "unix:/run/x"),
            ("proxy+line+unix:/run/x", "proxy+line", "unix:/run/x"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!((&*endpoint.kind, &endpoint.address), (kind, &address.parse().unwrap()), "{text}");
            assert_eq!(endpoint.to_string(), text);
            let json = serde_json::to_string(&endpoint).unwrap();
            assert_eq!(serde_json::from_str::<Endpoint>(&json).unwrap(), endpoint);
        }
        assert_eq!("proxy://[::1]:1".parse::<Endpoint>().unwrap().to_string(), "proxy+tcp://[::1]:1");
        let split = ["proxy", "proxy+ws", "", "telnet", "proxylike"].map(split_kind);
        assert_eq!(split, [(true, ""), (true, "ws"), (false, ""), (false, "telnet"), (false, "proxylike")]);
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
            ("line+proxy://127.0.0.1:1", "no name of a kind"),
            ("proxy+://127.0.0.1:1", "no name of a kind"),
            ("proxy+proxy+line://127.0.0.1:1", "no name of a kind"),
            ("line+unix:relative", "not absolute"),
            ("peer+udp://nowhere", "no IP address with a port"),
            ("tls+://127.0.0.1:1", "no name of a kind"),
            ("tls+tls+line://127.0.0.1:1", "no name of a kind"),
            ("line+tls://127.0.0.1:1", "no name of a kind"),
        ] {
            let said = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(said.contains(says), "{text}: {said}");
        }
    }
}
