//! Stream: bytes in data frames, whatever messages they are.
//!
//! The payloads of all data frames are one stream, which another framing cuts. Nothing of it waits
//! here: a part of a frame is given on as it comes. What is kept is a part of a header or of a
//! control frame, and the place in the data frame under way.
//!
//! The rules of RFC 6455, section 5, hold as in `message`, but for two: text and bytes are
//! alike, and a frame or a message may be of any length.
//!
//! Costs: one copy of the bytes, which is unmasked in place, and one header read for each frame.

use super::message::{closing, judge_header};
use super::sent::frame;
use crate::framing::scan::unmask;
use std::io::Cursor;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, OpCode};

/// Version of the stored form.
const VERSION: u8 = 1;
/// Bytes of a stored place in front of the tail.
const HEAD_BYTES: usize = 15;
/// Flag of the stored form: a message has begun, and another fragment of it follows.
const INSIDE: u8 = 1;
/// Flag of the stored form: the peer has closed, and the tail is what it said.
const CLOSED: u8 = 2;

/// Place in the frames of a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StreamPlace {
    /// Bytes that the data frame under way still has.
    left: u64,
    /// Mask of that frame, from the next byte on.
    mask: [u8; 4],
    /// Whether a message has begun, and another fragment of it follows.
    inside: bool,
    /// Whether the peer has closed. What follows is of no meaning.
    closed: bool,
    /// Part of a header or a control frame, 139 bytes at most; or the payload of the peer's close.
    tail: Vec<u8>,
}

/// Event in a stream, which is no data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StreamEvent {
    /// Peer pings, and is to be sent this frame.
    Pinged(Vec<u8>),
    /// Peer has closed by a close frame, whose payload is [`StreamPlace::closing`].
    Closed,
    /// Frames break the rules, with the reason.
    Invalid(&'static str),
}

impl StreamPlace {
    /// Takes bytes from the peer, up to a ping or the end. Appends the stream's to `content`. The
    /// number is that of the bytes taken, which is all of them if nothing else is returned.
    ///
    /// The outcome does not depend on the parts in which the bytes come. O(bytes taken).
    pub(crate) fn take(&mut self, bytes: &[u8], content: &mut Vec<u8>) -> (usize, Option<StreamEvent>) {
        if self.closed {
            return (bytes.len(), None);
        }
        let mut whole = std::mem::take(&mut self.tail);
        let kept = whole.len();
        let input = match kept {
            0 => bytes,
            _ => {
                whole.extend_from_slice(bytes);
                &whole
            }
        };
        let (rest, event) = self.take_frames(input, content);
        // What was kept is a part of the first frame here, so it was taken with the others.
        (input.len() - rest - kept, event)
    }

    /// Takes bytes as above, which begin with the part that was kept. The number is that of the
    /// bytes left.
    fn take_frames(&mut self, mut rest: &[u8], content: &mut Vec<u8>) -> (usize, Option<StreamEvent>) {
        let invalid = |why| (0, Some(StreamEvent::Invalid(why)));
        loop {
            rest = self.take_data(rest, content);
            if rest.is_empty() {
                return (0, None);
            }
            let mut cursor = Cursor::new(rest);
            let (header, len) = match FrameHeader::parse(&mut cursor) {
                Ok(Some(whole)) => whole,
                Ok(None) => {
                    self.tail = rest.to_vec();
                    return (0, None);
                }
                Err(_) => return invalid("a frame has an unknown opcode"),
            };
            let mask = match judge_header(&header, len, self.inside) {
                Ok(mask) => mask,
                Err(why) => return invalid(why),
            };
            let behind = &rest[cursor.position() as usize..];
            let OpCode::Control(control) = header.opcode else {
                (self.left, self.mask, self.inside) = (len, mask, !header.is_final);
                rest = behind;
                continue;
            };
            // A control frame has 125 bytes at most.
            let Some((masked, behind)) = behind.split_at_checked(len as usize) else {
                self.tail = rest.to_vec();
                return (0, None);
            };
            let mut payload = masked.to_vec();
            unmask(&mut payload, mask, 0);
            match control {
                Control::Close => return (0, Some(self.close(payload))),
                Control::Ping => {
                    let mut pong = Vec::new();
                    frame(OpCode::Control(Control::Pong), &payload, &mut pong);
                    return (behind.len(), Some(StreamEvent::Pinged(pong)));
                }
                _ => rest = behind,
            }
        }
    }

    /// Takes what is there of the data frame under way. Returns the bytes behind it.
    fn take_data<'b>(&mut self, bytes: &'b [u8], content: &mut Vec<u8>) -> &'b [u8] {
        let there = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let (data, behind) = bytes.split_at(there);
        let from = content.len();
        content.extend_from_slice(data);
        unmask(&mut content[from..], self.mask, 0);
        self.mask.rotate_left(there % 4);
        self.left -= there as u64;
        behind
    }

    /// Notes the peer's close, unless its payload breaks the rules.
    fn close(&mut self, payload: Vec<u8>) -> StreamEvent {
        if let Err(why) = closing(&payload) {
            return StreamEvent::Invalid(why);
        }
        (self.closed, self.tail) = (true, payload);
        StreamEvent::Closed
    }

    /// Returns whether a header or a control frame has come in part.
    pub(crate) fn is_cut(&self) -> bool {
        !self.closed && !self.tail.is_empty()
    }

    /// Returns the payload of the peer's close: a code and a reason, or nothing. `None`: it has not
    /// closed.
    pub(crate) fn closing(&self) -> Option<&[u8]> {
        self.closed.then_some(&self.tail)
    }

    /// Appends the stored form: version, flags, bytes left (u64, little-endian), mask, length of
    /// the tail, tail.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let inside = if self.inside { INSIDE } else { 0 };
        let closed = if self.closed { CLOSED } else { 0 };
        out.extend([VERSION, inside | closed]);
        out.extend(self.left.to_le_bytes());
        out.extend(self.mask);
        out.push(self.tail.len() as u8);
        out.extend_from_slice(&self.tail);
    }

    /// Reads the stored form. `None`: it is none.
    pub(crate) fn decode(bytes: &[u8]) -> Option<StreamPlace> {
        let (head, tail) = bytes.split_first_chunk::<HEAD_BYTES>()?;
        let [VERSION, flags, left @ .., a, b, c, d, len] = *head else { return None };
        (flags <= INSIDE | CLOSED && usize::from(len) == tail.len()).then(|| StreamPlace {
            left: u64::from_le_bytes(left),
            mask: [a, b, c, d],
            inside: flags & INSIDE != 0,
            closed: flags & CLOSED != 0,
            tail: tail.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frame of a client, masked.
    fn framed(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x5a, 1, 0xff, payload.len() as u8];
        let mut out = vec![first];
        match payload.len() {
            len @ 0..126 => out.push(0x80 | len as u8),
            len => {
                out.push(0x80 | 126);
                out.extend((len as u16).to_be_bytes());
            }
        }
        out.extend(mask);
        let begin = out.len();
        out.extend_from_slice(payload);
        unmask(&mut out[begin..], mask, 0);
        out
    }

    /// Takes a stream in parts, and goes on from the stored form behind each.
    fn take(parts: &[&[u8]]) -> (Vec<u8>, Vec<u8>, Option<StreamEvent>, StreamPlace) {
        let (mut content, mut replies) = (Vec::new(), Vec::new());
        let (mut end, mut place) = (None, StreamPlace::default());
        for part in parts {
            let mut at = 0;
            while at < part.len() && end.is_none() {
                let (taken, event) = place.take(&part[at..], &mut content);
                at += taken;
                match event {
                    Some(StreamEvent::Pinged(pong)) => replies.extend(pong),
                    other => end = other,
                }
            }
            let mut stored = Vec::new();
            place.encode(&mut stored);
            assert_eq!(StreamPlace::decode(&stored), Some(place.clone()));
            assert!(place.tail.len() <= 139);
        }
        (content, replies, end, place)
    }

    /// Cut at each byte, the stream is the same, and so are the pongs.
    #[test]
    fn parts_of_any_length_give_one_stream() {
        let long = b"0123456789".repeat(30);
        let stream = [
            framed(0x82, b"one"),
            framed(0x02, b""),
            framed(0x89, b"are you there?"),
            framed(0x00, &long),
            framed(0x8a, b"unasked"),
            framed(0x80, b"two"),
            framed(0x81, b"\xff text"),
            framed(0x88, b"\x03\xe8bye"),
            framed(0x82, b"behind the end"),
        ]
        .concat();
        let whole = take(&[&stream]);
        assert_eq!(whole.0, [b"one", &long[..], b"two", b"\xff text"].concat());
        assert_eq!(whole.1, b"\x8a\x0eare you there?");
        assert_eq!(whole.2, Some(StreamEvent::Closed));
        assert_eq!(whole.3.closing(), Some(&b"\x03\xe8bye"[..]));
        for at in 0..stream.len() {
            assert_eq!(take(&[&stream[..at], &stream[at..]]), whole, "cut at {at}");
        }
        let bytes: Vec<_> = stream.chunks(1).collect();
        assert_eq!(take(&bytes), whole);
    }

    /// Part of a header or of a control frame is waited for; part of a data frame is given on.
    #[test]
    fn a_cut_control_frame_waits_and_data_do_not() {
        let ping = framed(0x89, b"ping");
        assert!(take(&[&ping[..7]]).3.is_cut() && !take(&[&ping]).3.is_cut());
        let data = framed(0x82, b"data");
        let (content, _, end, place) = take(&[&data[..8]]);
        assert_eq!((&content[..], end, place.is_cut()), (&b"da"[..], None, false));
    }

    #[test]
    fn frames_that_break_the_rules_end_the_stream() {
        for (frames, why) in [
            (framed(0x80, b"x"), "a fragment continues no message"),
            ([framed(0x02, b"x"), framed(0x82, b"y")].concat(), "a message begins inside another one"),
            (framed(0xc2, b"x"), "a frame has reserved bits set"),
            (framed(0x83, b"x"), "a frame has an unknown opcode"),
            (b"\x82\x01x".to_vec(), "a frame is not masked"),
            (framed(0x09, b"x"), "a control frame is fragmented or too long"),
            (framed(0x89, &[1; 126]), "a control frame is fragmented or too long"),
            (framed(0x88, b"x"), "a close frame has half a code"),
            (framed(0x88, &[3, 237]), "a close frame has a code that must not be sent"),
            (framed(0x88, b"\x03\xe8\xff"), "a text message is not UTF-8"),
        ] {
            assert_eq!(take(&[&frames]).2, Some(StreamEvent::Invalid(why)));
        }
    }

    /// Whatever comes, nothing panics, and the place can be stored.
    #[test]
    fn noise_is_taken_or_refused() {
        let mut random = fastrand::Rng::with_seed(16);
        let mut ends = 0;
        for _ in 0..2000 {
            let noise: Vec<u8> = (0..random.usize(1..300))
                .map(|_| random.choice([0x82, 0x80, 0xfe, 7]).unwrap_or(0))
                .collect();
            let parts: Vec<_> = noise.chunks(random.usize(1..50)).collect();
            ends += usize::from(take(&parts).2.is_some());
        }
        assert!(ends > 500, "{ends}");
    }
}
