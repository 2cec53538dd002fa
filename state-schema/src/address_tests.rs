//! Tests of addresses and peers, as text and as bytes.
//!
//! Each form is tested both ways: what is printed or encoded comes back, and what was not is
//! refused.

use crate::address::{ADDRESS_BYTES_MAX, Address, PEER_BYTES_MAX, Peer, UNIX_PATH_BYTES_MAX};

/// Each address survives its text, its JSON and its bytes.
#[test]
fn addresses_survive_both_forms() {
    let longest = format!("unix:/{}", "x".repeat(UNIX_PATH_BYTES_MAX - 1));
    for text in [
        "tcp://127.0.0.1:4000",
        "tcp://[2001:db8::7]:65535",
        "tcp://[fe80::1%3]:1",
        "udp://0.0.0.0:0",
        "udp://[::]:53",
        "unix:/run/x.sock",
        "unix:/run/with a space/ä",
        &longest,
    ] {
        let address: Address = text.parse().unwrap();
        assert_eq!(address.to_string(), text);
        let json = serde_json::to_string(&address).unwrap();
        // Builds that know TCP alone read its addresses without a scheme.
        let stored = text.strip_prefix("tcp://").unwrap_or(text);
        assert_eq!(json, serde_json::to_string(stored).unwrap());
        assert_eq!(serde_json::from_str::<Address>(&json).unwrap(), address);
        let mut bytes = Vec::new();
        address.encode(&mut bytes);
        assert!(bytes.len() <= ADDRESS_BYTES_MAX, "{text}: {}", bytes.len());
        assert_eq!(Address::decode(&bytes), Some(address), "{text}");
        if !text.starts_with("unix") {
            // No shorter piece is taken for the whole. A path has no end of its own, so only
            // others are cut.
            for len in 0..bytes.len() {
                assert_eq!(Address::decode(&bytes[..len]), None, "{text}: {len} bytes");
            }
            bytes.push(0);
            assert_eq!(Address::decode(&bytes), None, "{text}: a byte too many");
        }
    }
}

/// Shorter and longer spellings of the same address are equal.
#[test]
fn a_bare_socket_address_is_tcp_and_slashes_before_a_path_are_one() {
    for (text, same) in [
        ("127.0.0.1:4000", "tcp://127.0.0.1:4000"),
        ("[::1]:80", "tcp://[::1]:80"),
        ("unix:///run/x.sock", "unix:/run/x.sock"),
    ] {
        assert_eq!(text.parse::<Address>().unwrap().to_string(), same);
    }
}

/// Names, missing ports, unknown schemes and unusable paths are refused, with the reason.
#[test]
fn other_text_is_no_address() {
    let long = format!("unix:/{}", "x".repeat(UNIX_PATH_BYTES_MAX));
    for (text, says) in [
        ("", "no IP address with a port"),
        ("127.0.0.1", "no IP address with a port"),
        ("localhost:80", "no IP address with a port"),
        ("tcp://127.0.0.1:70000", "no IP address with a port"),
        ("tcp:127.0.0.1:80", "no IP address with a port"),
        ("udp://", "no IP address with a port"),
        ("tls://127.0.0.1:80", "no IP address with a port"),
        (" 127.0.0.1:80", "no IP address with a port"),
        ("unix:", "not absolute"),
        ("unix:x.sock", "not absolute"),
        ("unix:@abstract", "not absolute"),
        ("unix:/a\0b", "control character"),
        ("unix:/a\nb", "control character"),
        (&long, "longer than 107 bytes"),
    ] {
        let error = text.parse::<Address>().unwrap_err().to_string();
        assert!(error.contains(says), "{text:?}: {error}");
        let json = serde_json::to_string(text).unwrap();
        assert!(serde_json::from_str::<Address>(&json).is_err(), "{text:?}");
    }
}

/// Peers of each kind, the longest among them.
const PEERS: [&str; 9] = [
    "127.0.0.1:54321",
    "[2001:db8::7]:65535",
    "[fe80::1%3]:1",
    "udp://127.0.0.1:54321",
    "udp://[fe80::1%4294967295]:9",
    "unix:pid=0,uid=4294967295,gid=7",
    "203.0.113.7:4000 via 10.0.0.1:5000",
    "[fe80::1%3]:1 via [fe80::2%4]:2",
    "[2001:db8::7]:1 via unix:pid=7,uid=1000,gid=1000",
];

/// Each peer survives its text, its JSON and its bytes, with zeros behind these or none.
#[test]
fn peers_survive_both_forms() {
    let mut longest = 0;
    for text in PEERS {
        let peer: Peer = text.parse().unwrap();
        assert_eq!(peer.to_string(), text);
        let json = serde_json::to_string(&peer).unwrap();
        assert_eq!(json, serde_json::to_string(text).unwrap());
        assert_eq!(serde_json::from_str::<Peer>(&json).unwrap(), peer);
        let mut bytes = Vec::new();
        peer.encode(&mut bytes);
        longest = longest.max(bytes.len());
        for len in 0..bytes.len() {
            assert_eq!(Peer::decode(&bytes[..len]), None, "{text}: {len} bytes");
        }
        assert_eq!(Peer::decode(&bytes).as_ref(), Some(&peer), "{text}");
        bytes.extend([0; 5]);
        assert_eq!(Peer::decode(&bytes), Some(peer), "{text}: zeros behind");
        bytes.push(1);
        assert_eq!(Peer::decode(&bytes), None, "{text}: a byte behind that is not zero");
    }
    assert_eq!(longest, PEER_BYTES_MAX);
}

/// Text that no peer prints is refused: signs, missing or further fields, chains of relays.
#[test]
fn other_text_is_no_peer() {
    for text in [
        "",
        "nobody",
        "127.0.0.1",
        "tcp://127.0.0.1:80",
        "unix:",
        "unix:/run/x.sock",
        "unix:pid=1,uid=2",
        "unix:pid=1,uid=2,gid=3,x=4",
        "unix:uid=2,pid=1,gid=3",
        "unix:pid=+1,uid=2,gid=3",
        "unix:pid=-1,uid=2,gid=3",
        "unix:pid=1,uid=2,gid=4294967296",
        "1.2.3.4:5 via ",
        " via 1.2.3.4:5",
        "1.2.3.4:5 via 1.2.3.4:5 via 1.2.3.4:5",
        "udp://1.2.3.4:5 via 1.2.3.4:5",
    ] {
        assert!(text.parse::<Peer>().is_err(), "{text:?}");
        let json = serde_json::to_string(text).unwrap();
        assert!(serde_json::from_str::<Peer>(&json).is_err(), "{text:?}");
    }
}

/// Each byte of the head is checked, and so is the path of a Unix socket.
#[test]
fn other_versions_kinds_and_families_are_refused() {
    let tcp = [1, 1, 4, 1, 0, 127, 0, 0, 1];
    assert!(Peer::decode(&tcp).is_some() && Address::decode(&tcp).is_some());
    for (at, value) in [(0, 0), (0, 2), (1, 0), (1, 6), (1, 255), (2, 0), (2, 5), (2, 6)] {
        let mut other = tcp;
        other[at] = value;
        assert_eq!(Peer::decode(&other), None, "{value} at {at}");
        assert_eq!(Address::decode(&other), None, "{value} at {at}");
    }
    for path in [&b"relative"[..], b"", b"/\xff", b"/\0"] {
        assert_eq!(Address::decode(&[&[1, 3], path].concat()), None, "{path:?}");
    }
}

/// A relayed peer counts by its client, and a Unix socket by no address.
#[test]
fn limits_count_by_the_clients_ip() {
    let ips = PEERS.map(|p| p.parse::<Peer>().unwrap().ip().map(|ip| ip.to_string()));
    let ips = ips.each_ref().map(|ip| ip.as_deref());
    let expected = [
        Some("127.0.0.1"),
        Some("2001:db8::7"),
        Some("fe80::1"),
        Some("127.0.0.1"),
        Some("fe80::1"),
        None,
        Some("203.0.113.7"),
        Some("fe80::1"),
        Some("2001:db8::7"),
    ];
    assert_eq!(ips, expected);
}
