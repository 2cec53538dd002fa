//! Length prefix: the message's length in 1, 2 or 4 bytes, then the message. The length does
//! not count itself.
//!
//! A cut needs no state: it looks at the prefix alone, and takes the message or waits for it. A
//! peer that declares too long a message is refused with its prefix, before the host keeps any
//! byte of the message. Costs O(1) for each cut.

use super::frame::{Frame, Payload};
use serde::{Deserialize, Serialize};

/// Form of the length before each message. No state depends on it, as a cut stores none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LengthPrefix {
    /// Number of bytes.
    width: Width,
    /// Byte order: whether the lowest byte comes first.
    little_endian: bool,
}

/// Bytes of the length. An enum, so that no other width can be stored or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Width {
    /// Messages up to 255 bytes.
    One,
    /// Messages up to 65,535 bytes.
    Two,
    /// Messages up to 4 GiB less 1 byte, as far as the prefix goes.
    Four,
}

impl LengthPrefix {
    /// Returns the form of a length in `width` bytes, 1, 2 or 4; `None` for another width. No
    /// other width can be in a stored framing either, as the type has none.
    pub fn new(width: u8, little_endian: bool) -> Option<LengthPrefix> {
        let width = match width {
            1 => Width::One,
            2 => Width::Two,
            4 => Width::Four,
            _ => return None,
        };
        Some(LengthPrefix { width, little_endian })
    }

    /// Reads parameters: the width, then 0 for big endian or 1 for little endian. The error
    /// names the parameter that is wrong.
    pub(super) fn from_parameters(parameters: &[u8]) -> Result<LengthPrefix, String> {
        let (width, order) = match parameters {
            [width, order @ 0..=1] => (*width, *order),
            [_, order] => return Err(format!("byte order {order} is neither 0 (big endian) nor 1 (little)")),
            _ => return Err(format!("a width and a byte order are wanted, not {} bytes", parameters.len())),
        };
        LengthPrefix::new(width, order == 1)
            .ok_or_else(|| format!("a width of {width} is none of 1, 2 and 4"))
    }

    /// Returns the parameters that [`LengthPrefix::from_parameters`] reads.
    pub(super) fn to_parameters(self) -> Vec<u8> {
        vec![self.width() as u8, self.little_endian.into()]
    }

    /// Returns the number of bytes of the length.
    fn width(self) -> usize {
        match self.width {
            Width::One => 1,
            Width::Two => 2,
            Width::Four => 4,
        }
    }

    /// Returns the longest message that the prefix can express, in bytes.
    fn message_max(self) -> u32 {
        match self.width {
            Width::One => u8::MAX.into(),
            Width::Two => u16::MAX.into(),
            Width::Four => u32::MAX,
        }
    }
}

/// Cuts the next message. Refuses one that is too long as soon as its prefix is there. O(1).
#[inline]
pub(super) fn cut(prefix: LengthPrefix, input: &[u8], bytes_max: usize) -> Frame<'_> {
    let width = prefix.width();
    let Some((head, rest)) = input.split_at_checked(width) else { return Frame::More };
    // Bytes that a shorter prefix lacks are zero, at the end of the number that is high.
    let mut bytes = [0; 4];
    let len = if prefix.little_endian {
        bytes[..width].copy_from_slice(head);
        u32::from_le_bytes(bytes)
    } else {
        bytes[4 - width..].copy_from_slice(head);
        u32::from_be_bytes(bytes)
    } as usize;
    match rest.get(..len) {
        // Asked before the message is looked for: a length over the limit never waits for its
        // bytes.
        _ if len > bytes_max => Frame::TooLong,
        Some(message) => Frame::Message { payload: Payload::Input(message), consumed: width + len },
        None => Frame::More,
    }
}

/// Puts the prefix before a message. Fails if the prefix cannot express its length, and appends
/// nothing then. The longest message that a peer may send does not bound what is sent.
pub(super) fn encode(prefix: LengthPrefix, message: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    // Checked first, so that nothing is appended for a message that fails.
    let len = u32::try_from(message.len()).ok().filter(|len| *len <= prefix.message_max());
    let len = len.ok_or("the message is longer than its length prefix can express")?;
    let width = prefix.width();
    // The low bytes of the number lie at the front in one order, at the back in the other.
    match prefix.little_endian {
        true => out.extend(&len.to_le_bytes()[..width]),
        false => out.extend(&len.to_be_bytes()[4 - width..]),
    }
    out.extend(message);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::Framing;
    use crate::framing::script::{check, check_encoded};

    /// Framing with this form of the length.
    fn framing(width: u8, little_endian: bool, bytes_max: u32) -> Framing {
        Framing::LengthPrefix { prefix: LengthPrefix::new(width, little_endian).unwrap(), bytes_max }
    }

    /// Each width and both orders, with empty messages and parts of a prefix.
    #[test]
    fn a_cut_anywhere_changes_nothing() {
        check(framing(1, false, 8), b"\x03one\x00\x02\n\x03\x04hal", r#""one" "" "\n\x03" | \x04hal"#);
        check(framing(2, false, 8), b"\x00\x03one\x00\x00\x00", r#""one" "" | \x00"#);
        check(framing(2, true, 300), b"\x03\x00one\x00\x00\x2c\x01x", r#""one" "" | ,\x01x"#);
        check(framing(4, false, 8), b"\0\0\0\x03one\0\0\0", r#""one" | \x00\x00\x00"#);
        check(framing(4, true, 8), b"\x03\0\0\0one", r#""one" | "#);
    }

    /// A wide prefix whose limit is small is refused without a byte of its message.
    #[test]
    fn a_length_over_the_limit_is_refused_before_the_message() {
        check(framing(1, false, 8), b"\x0812345678\x09", r#""12345678" too-long | "#);
        check(framing(4, false, 8), b"\xff\xff\xff\xff", "too-long | ");
        check(framing(2, true, 255), b"\x00\x01", "too-long | ");
    }

    /// Each width with its longest message, and with a message of one byte more.
    #[test]
    fn messages_are_sent_behind_their_length() {
        check_encoded(framing(1, false, 8), b"one", b"\x03one");
        check_encoded(framing(2, false, 8), b"one", b"\x00\x03one");
        check_encoded(framing(2, true, 8), b"", b"\x00\x00");
        check_encoded(framing(4, true, 8), b"one", b"\x03\0\0\0one");
        for (width, max) in [(1, 255), (2, 65_535)] {
            let mut out = Vec::new();
            framing(width, false, 8).encode(&vec![7; max], &mut out).unwrap();
            assert_eq!(out.len(), max + usize::from(width));
            assert!(framing(width, false, 8).encode(&vec![7; max + 1], &mut out).is_err());
            assert_eq!(out.len(), max + usize::from(width), "nothing is written of what fails");
        }
    }

    /// Wrong numbers of parameters, wrong widths, and a wrong byte order.
    #[test]
    fn bad_parameters_are_named() {
        for (parameters, says) in [
            (&b""[..], "not 0 bytes"),
            (&[2], "not 1 bytes"),
            (&[2, 0, 0], "not 3 bytes"),
            (&[3, 0], "a width of 3"),
            (&[0, 0], "a width of 0"),
            (&[2, 2], "byte order 2"),
        ] {
            let error = LengthPrefix::from_parameters(parameters).unwrap_err();
            assert!(error.contains(says), "{parameters:?}: {error}");
        }
        assert_eq!(LengthPrefix::from_parameters(&[4, 1]), Ok(LengthPrefix::new(4, true).unwrap()));
    }
}
