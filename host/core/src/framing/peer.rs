//! Datagrams of one peer, as messages of its session.
//!
//! Each datagram is one message, and each message that is sent is one datagram. In the session's
//! streams a datagram stands behind its length, two bytes in network order: so kept input and
//! unsent output hold whole datagrams. The shell puts these bytes before what it receives, and
//! takes them off what it sends. They never cross the network.
//!
//! The state that is stored with the session is the number of the UDP port that it came to. Its
//! answers leave from there.
//!
//! A cut needs no state. A datagram is whole when it comes, so no message is ever half there.

use super::frame::{Frame, FrameState, Payload};
use greenroom_state::abi;

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

/// Begin of the stored state: the framing, and the version of its state.
const STATE_HEAD: [u8; 2] = [abi::framing::PEER as u8, 1];

/// State of the framing for a session that came to a UDP port.
pub(crate) fn state_of(port: u32) -> FrameState {
    let mut state = FrameState::default();
    state.store(&[&STATE_HEAD[..], &port.to_le_bytes()].concat());
    state
}

/// Number of the UDP port that a session came to; `None`: the state is of no such session.
pub(crate) fn port_of(state: &FrameState) -> Option<u32> {
    state.stored().strip_prefix(&STATE_HEAD)?.try_into().ok().map(u32::from_le_bytes)
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
    fn the_state_names_the_port() {
        assert_eq!(port_of(&state_of(70_000)), Some(70_000));
        assert_eq!(port_of(&FrameState::default()), None);
    }
}
