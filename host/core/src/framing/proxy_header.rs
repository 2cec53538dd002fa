//! PROXY header of version 1 or 2: names the client behind a proxy before the client's first byte.
//!
//! The crate `proxy-header` reads the header, also one that is cut at any byte. This file bounds
//! it, and decides for the forms in which the client stays unknown:
//!
//! | header | the peer is |
//! | --- | --- |
//! | TCP over IPv4 or IPv6 | the header's source |
//! | LOCAL (a health check), UNKNOWN, Unix sockets, datagrams | the proxy |
//! | longer than the bound, or no header at all | refused |
//!
//! Additions behind the addresses (TLVs) are skipped, also a checksum. Costs O(bytes of the header)
//! for each read that comes before it is whole.

use proxy_header::{Error, ParseConfig, Protocol, ProxyHeader};
use std::net::SocketAddr;

/// Longest header of version 1, in bytes, as its specification has it.
const TEXT_BYTES_MAX: usize = 107;
/// Longest header of version 2, in bytes, with what is behind its addresses.
pub const HEADER_BYTES_MAX: usize = 4096;
/// Bytes of version 2 before its addresses. The last two are the length of what follows.
const FIXED: usize = 16;
/// Version 2, and a connection of the proxy's own.
const LOCAL: u8 = 0x20;

/// Beginning of a stream that is to begin with a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beginning {
    /// Not whole yet.
    More,
    /// Whole header of so many bytes. `None`: the client is the proxy itself, or of another kind.
    Header(usize, Option<SocketAddr>),
    /// No header, for this reason.
    Refused(&'static str),
}

/// Reads the beginning of a stream.
pub fn read(input: &[u8]) -> Beginning {
    const NONE: Beginning = Beginning::Refused("it begins with no PROXY header");
    const TOO_LONG: Beginning = Beginning::Refused("its PROXY header is too long");
    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    let begins_as = |start: &[u8]| start.iter().zip(input).all(|(a, b)| a == b);
    if !begins_as(b"PROXY ") && !begins_as(SIGNATURE) {
        return NONE;
    }
    // Length of version 2, once it is told.
    let mut told = None;
    if input.len() >= FIXED && input[0] == b'\r' {
        let len = FIXED + usize::from(u16::from_be_bytes([input[14], input[15]]));
        if len > HEADER_BYTES_MAX {
            return TOO_LONG;
        }
        // Its address is of no meaning, of whatever family and length.
        if input[12] == LOCAL {
            return if input.len() < len { Beginning::More } else { Beginning::Header(len, None) };
        }
        told = Some(len);
    }
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    match ProxyHeader::parse(input, config) {
        Ok((_, len)) if input[0] == b'P' && len > TEXT_BYTES_MAX => TOO_LONG,
        Ok((header, len)) => {
            let address = header.proxied_address().filter(|a| a.protocol == Protocol::Stream);
            Beginning::Header(len, address.map(|a| canonical(a.source)))
        }
        // The crate waits for more, too, if the addresses do not fit into the length.
        Err(Error::BufferTooShort) if told.is_none_or(|len| input.len() < len) => Beginning::More,
        Err(_) if input[0] == b'P' && input.len() >= TEXT_BYTES_MAX => TOO_LONG,
        Err(_) => Beginning::Refused("its PROXY header breaks the rules"),
    }
}

/// An IPv4 address that is written as IPv6, as IPv4.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version_2(command: u8, family: u8, behind: &[u8]) -> Vec<u8> {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        header.extend([command, family]);
        header.extend((behind.len() as u16).to_be_bytes());
        header.extend(behind);
        header
    }

    /// Each header, cut at every byte, and with bytes of the session behind it.
    #[test]
    fn every_form_is_read_at_its_last_byte_and_not_before() {
        let v4 = [203, 0, 113, 7, 10, 0, 0, 1, 0x0f, 0xa0, 0, 80];
        let mapped = [&[0; 10][..], &[255, 255, 203, 0, 113, 7], &[0; 16], &[0, 9, 0, 9]].concat();
        let with_tlvs = [&v4[..], &[4, 0, 3, 1, 2, 3], &[0xee, 0, 1, 0]].concat();
        let unix = [0; 216];
        let client = Some("203.0.113.7:4000".parse().unwrap());
        for (header, expected) in [
            (b"PROXY TCP4 203.0.113.7 10.0.0.1 4000 80\r\n".to_vec(), client),
            (b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n".to_vec(), Some("[2001:db8::7]:1".parse().unwrap())),
            (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 4000 2\r\n".to_vec(), client),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN some words\r\n".to_vec(), None),
            (version_2(0x21, 0x11, &v4), client),
            (version_2(0x21, 0x21, &mapped), Some("203.0.113.7:9".parse().unwrap())),
            (version_2(0x21, 0x11, &with_tlvs), client),
            (version_2(0x21, 0x12, &v4), None),
            (version_2(0x21, 0x31, &unix), None),
            (version_2(0x21, 0x00, b""), None),
            (version_2(0x20, 0x00, b""), None),
            (version_2(0x20, 0x11, b"any"), None),
        ] {
            for cut in 0..header.len() {
                assert_eq!(read(&header[..cut]), Beginning::More, "{cut} of {header:x?}");
            }
            let whole = Beginning::Header(header.len(), expected);
            assert_eq!(read(&header), whole, "{header:x?}");
            assert_eq!(read(&[&header[..], b"PROXY hello"].concat()), whole);
        }
    }

    #[test]
    fn what_is_no_header_is_refused_as_soon_as_that_is_clear() {
        let long = |filler: usize| [b"PROXY UNKNOWN ", &vec![b'x'; filler][..]].concat();
        for (input, why) in [
            (b"h".to_vec(), "begins with no PROXY header"),
            (b"PROXYTCP4".to_vec(), "begins with no PROXY header"),
            (b"\r\n\r\n\0\r\nQUIX".to_vec(), "begins with no PROXY header"),
            (b"PROXY TCP4 no 10.0.0.1 1 2\r\n".to_vec(), "breaks the rules"),
            (b"PROXY UDP4 1.2.3.4 10.0.0.1 1 2\r\n".to_vec(), "breaks the rules"),
            (version_2(0x31, 0x11, &[0; 12]), "breaks the rules"),
            (version_2(0x21, 0x11, &[0; 11]), "breaks the rules"),
            (long(200), "too long"),
            ([&long(200)[..], b"\r\n"].concat(), "too long"),
            (version_2(0x21, 0x11, &[0; 5000])[..16].to_vec(), "too long"),
        ] {
            let Beginning::Refused(said) = read(&input) else { panic!("{input:x?}: {:?}", read(&input)) };
            assert!(said.contains(why), "{input:x?}: {said}");
        }
    }

    #[test]
    fn no_bytes_panic_or_grow_the_header() {
        let mut random = fastrand::Rng::with_seed(7);
        let seeds = [version_2(0x21, 0x11, &[7; 40]), b"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\nx".to_vec()];
        for round in 0..20_000 {
            let mut input = seeds[round % 2].clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..input.len());
                input[at] = random.u8(..);
            }
            input.truncate(random.usize(..=input.len()));
            if let Beginning::Header(len, _) = read(&input) {
                assert!(len <= input.len() && len <= HEADER_BYTES_MAX);
            }
        }
    }
}
