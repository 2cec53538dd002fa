//! Datagrams of one peer, as messages of its session.
//!
//! Each datagram is one message, and each message that is sent is one datagram. In the session's
//! streams a datagram stands behind its length, two bytes in network order: so kept input and
//! unsent output hold whole datagrams. The shell puts these bytes before what it receives, and
//! takes them off what it sends. They never cross the network.
//!
//! The state that is stored with the session is its end at the host: the number of the UDP port
//! that it came to and, for a port at all addresses, the address that its peer sends to. Its
//! answers leave from there.
//!
//! | bytes of the state | version 1 | 2 |
//! | --- | --- | --- |
//! | 0, 1 | the framing, the version | same |
//! | 2..6 | number of the port | same |
//! | 6.. | | address: 4 bytes of IPv4, or 16 of IPv6 |
//!
//! A cut needs no state. A datagram is whole when it comes, so no message is ever half there.

use super::frame::{Frame, FrameState, Payload};
use greenroom_state::abi;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes before each datagram in the session's streams.
pub const LENGTH_BYTES: usize = 2;
/// Most bytes of a datagram over IPv4: 65,535 less the headers of IP and UDP.
pub const DATAGRAM_BYTES_MAX: usize = 65_507;

/// Cuts the next datagram.
pub(super) fn cut(input: &[u8], bytes_max: usize) -> Frame<'_> {
    let Some((datagram, rest)) = take(input) else { return Frame::More };
    match datagram.len() <= bytes_max {
        true => Frame::Message { payload: Payload::Input(datagram), consumed: input.len() - rest.len() },
        false => Frame::TooLong,
    }
}

/// Appends a datagram behind its length. Fails if it is longer than a datagram can be.
pub(super) fn encode(message: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    let length = u16::try_from(message.len()).ok().filter(|n| usize::from(*n) <= DATAGRAM_BYTES_MAX);
    let length = length.ok_or("the message is longer than a datagram")?;
    out.extend(length.to_be_bytes());
    out.extend_from_slice(message);
    Ok(())
}

/// Takes the first datagram off a session's stream. `None`: it is not whole.
pub fn take(stream: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = stream.split_first_chunk::<LENGTH_BYTES>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// End at the host of what goes over UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LocalEnd {
    /// Number of the UDP port, as the shell has it; 0: the service's first one.
    pub port: u32,
    /// Address of the host, for a port at all addresses; `None`: the port's own, or not known.
    pub ip: Option<IpAddr>,
}

/// Framing that the stored state begins with.
const STATE_OF: u8 = abi::framing::PEER as u8;
/// Version of a state without an address. Older binaries can read it.
const VERSION_PORT: u8 = 1;
/// Version of a state with an address.
const VERSION_ADDRESS: u8 = 2;

/// State of the framing for a session with this end.
pub(crate) fn state_of(end: LocalEnd) -> FrameState {
    let (version, address) = match end.ip {
        None => (VERSION_PORT, Vec::new()),
        Some(IpAddr::V4(ip)) => (VERSION_ADDRESS, ip.octets().into()),
        Some(IpAddr::V6(ip)) => (VERSION_ADDRESS, ip.octets().into()),
    };
    let mut state = FrameState::default();
    state.store(&[&[STATE_OF, version], &end.port.to_le_bytes()[..], &address].concat());
    state
}

/// End of a session at the host; `None`: the state is of no session over UDP.
pub(crate) fn end_of(state: &FrameState) -> Option<LocalEnd> {
    let ([STATE_OF, version], rest) = state.stored().split_first_chunk()? else { return None };
    let (port, address) = rest.split_first_chunk()?;
    let ip = match (*version, address.len()) {
        (VERSION_PORT, 0) => None,
        (VERSION_ADDRESS, 4) => Some(Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?).into()),
        (VERSION_ADDRESS, 16) => Some(Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?).into()),
        _ => return None,
    };
    Some(LocalEnd { port: u32::from_le_bytes(*port), ip })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_go_in_and_out_whole() {
        let mut stream = Vec::new();
        let all = [&b"one"[..], b"", &[7; DATAGRAM_BYTES_MAX]];
        all.iter().for_each(|d| encode(d, &mut stream).unwrap());
        let mut rest = &stream[..];
        for datagram in all {
            assert!(matches!(cut(&rest[..1], 9), Frame::More));
            let Frame::Message { payload: Payload::Input(cut), consumed } = cut(rest, DATAGRAM_BYTES_MAX)
            else {
                panic!("no datagram")
            };
            assert_eq!((cut, consumed), (datagram, datagram.len() + LENGTH_BYTES));
            rest = &rest[consumed..];
        }
        assert!(rest.is_empty());
        let before = stream.clone();
        assert!(encode(&[7; DATAGRAM_BYTES_MAX + 1], &mut stream).is_err());
        assert_eq!(stream, before, "a refused message leaves nothing");
        assert!(matches!(cut(b"\0\x03abc", 2), Frame::TooLong));
    }

    #[test]
    fn the_state_names_the_end() {
        for ip in [None, Some("127.0.0.2"), Some("2001:db8::7")] {
            let end = LocalEnd { port: 70_000, ip: ip.map(|ip| ip.parse().unwrap()) };
            assert_eq!(end_of(&state_of(end)), Some(end));
        }
        assert_eq!(end_of(&FrameState::default()), None);
    }

    /// A state of an earlier build, as its bytes were.
    #[test]
    fn a_state_of_version_1_has_no_address() {
        let end = LocalEnd { port: 258, ip: None };
        let mut state = FrameState::default();
        state.store(&[STATE_OF, 1, 2, 1, 0, 0]);
        assert_eq!((end_of(&state), state.stored()), (Some(end), state_of(end).stored()));
        for damaged in
            [&[STATE_OF, 1, 2, 1, 0][..], &[STATE_OF, 2, 2, 1, 0, 0, 9], &[STATE_OF, 3, 2, 1, 0, 0]]
        {
            state.store(damaged);
            assert_eq!(end_of(&state), None);
        }
    }
}
