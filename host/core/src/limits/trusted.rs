//! Trusted proxies: addresses whose PROXY headers are believed.

use greenroom_state::address::Peer;
use ipnet::IpNet;
use std::net::IpAddr;

/// Networks of the proxies of one service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Reads networks (`10.0.0.0/8`) and addresses. The error names the first text that is neither.
    pub fn read(texts: &[String]) -> Result<TrustedProxies, String> {
        let net = |text: &String| {
            let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            net.map_err(|_| {
                format!("{text:?} is no network; write it as 10.0.0.0/8 or 2001:db8::/32, or as one address")
            })
        };
        texts.iter().map(net).collect::<Result<_, _>>().map(TrustedProxies)
    }

    /// Returns whether a peer's header is believed. The file of a Unix socket, which lets a peer
    /// in, is trust enough.
    pub fn trust(&self, peer: &Peer) -> bool {
        match peer {
            Peer::Unix(_) => true,
            _ => peer.ip().is_some_and(|ip| self.0.iter().any(|net| net.contains(&ip.to_canonical()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_addresses_are_trusted() {
        let texts = ["10.0.0.0/8", "127.0.0.1", "2001:db8::/32"].map(str::to_owned);
        let trusted = TrustedProxies::read(&texts).unwrap();
        for (peer, expected) in [
            ("10.200.0.1:5", true),
            ("11.0.0.1:5", false),
            ("127.0.0.1:5", true),
            ("127.0.0.2:5", false),
            ("[2001:db8::9]:5", true),
            ("[2001:db9::9]:5", false),
            ("unix:pid=1,uid=2,gid=3", true),
        ] {
            assert_eq!(trusted.trust(&peer.parse().unwrap()), expected, "{peer}");
        }
        let said = TrustedProxies::read(&["10.0.0.0/33".to_owned()]).unwrap_err();
        assert!(said.contains("\"10.0.0.0/33\" is no network"), "{said}");
        assert!(!TrustedProxies::default().trust(&"127.0.0.1:5".parse().unwrap()));
    }
}
