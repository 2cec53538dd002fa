//! Length prefix: the message's length, then the message.
//!
//! | form | bytes |
//! | --- | --- |
//! | fixed | 1, 2, 4 or 8, in either order |
//! | base-128 | 1 to 10, seven bits in each, the low ones first; the high bit: more follow |
//!
//! The length may count its own bytes. A few bytes may stand before it, which it never counts: they
//! are the beginning of the message, as the type of a packet in MQTT is. So a message of three
//! such bytes `T` and the body `B` goes as `T`, the length of `B`, and `B`.
//!
//! A cut needs no state: it looks at the prefix alone, and takes the message or waits for it. A
//! peer that declares too long a message is refused with its prefix, before the host keeps any
//! byte of the message. Costs O(1) for each cut; with bytes before the length one copy of the
//! message, as it lies in two pieces.

use super::frame::{Frame, FrameBuffers, Payload};
use serde::{Deserialize, Serialize};

/// Most bytes before the length.
pub const BEFORE_BYTES_MAX: u8 = 16;
/// Most bytes of a length in base-128: so many hold 64 bits.
const BASE_128_BYTES_MAX: u8 = 10;
/// Byte order in the parameters that stands for base-128.
const ORDER_BASE_128: u8 = 2;

/// Form of the length before each message. No state depends on it, as a cut stores none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LengthPrefix {
    /// Number of bytes.
    width: Width,
    /// Byte order: whether the lowest byte comes first. Of no meaning in base-128.
    little_endian: bool,
    /// Whether the length counts its own bytes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    counts_itself: bool,
    /// Bytes of the message before the length.
    #[serde(default, skip_serializing_if = "is_zero")]
    before: u8,
}

/// Whether a number is left out in JSON.
fn is_zero(n: &u8) -> bool {
    *n == 0
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
    /// Messages of any length.
    Eight,
    /// Base-128, with at most so many bytes, 1 to 10.
    Base128(u8),
}

/// Outcome of reading a length.
enum Read {
    /// Length of the body, and bytes that the length itself takes.
    Length(u64, usize),
    /// The length is not whole.
    Part,
    /// The bytes are no length, for this reason.
    Invalid(&'static str),
}

impl LengthPrefix {
    /// Returns the form of a length in `width` bytes, 1, 2, 4 or 8; `None` for another width. No
    /// other width can be in a stored framing either, as the type has none.
    pub fn new(width: u8, little_endian: bool) -> Option<LengthPrefix> {
        let width = match width {
            1 => Width::One,
            2 => Width::Two,
            4 => Width::Four,
            8 => Width::Eight,
            _ => return None,
        };
        Some(LengthPrefix { width, little_endian, counts_itself: false, before: 0 })
    }

    /// Returns the form of a length in base-128 of at most `bytes_max` bytes, 1 to 10; `None` for
    /// another number.
    pub fn base_128(bytes_max: u8) -> Option<LengthPrefix> {
        let width = (1..=BASE_128_BYTES_MAX).contains(&bytes_max).then_some(Width::Base128(bytes_max))?;
        Some(LengthPrefix { width, little_endian: true, counts_itself: false, before: 0 })
    }

    /// Has the length count its own bytes.
    pub fn counting_itself(self) -> LengthPrefix {
        LengthPrefix { counts_itself: true, ..self }
    }

    /// Has the message begin with so many bytes before the length. `None`: more than
    /// [`BEFORE_BYTES_MAX`].
    pub fn behind(self, before: u8) -> Option<LengthPrefix> {
        (before <= BEFORE_BYTES_MAX).then_some(LengthPrefix { before, ..self })
    }

    /// Reads parameters: the width; 0 for big endian, 1 for little endian or 2 for base-128, whose
    /// width is the most bytes that it has. Then, if there are four: 1 if the length counts
    /// itself, else 0; and the bytes before it. The error names the parameter that is wrong.
    pub(super) fn from_parameters(parameters: &[u8]) -> Result<LengthPrefix, String> {
        let (width, order, itself, before) = match *parameters {
            [width, order] => (width, order, 0, 0),
            [width, order, itself, before] => (width, order, itself, before),
            _ => {
                let len = parameters.len();
                return Err(format!("a width and a byte order are wanted, not {len} bytes"));
            }
        };
        let prefix = match order {
            0..=1 => LengthPrefix::new(width, order == 1)
                .ok_or_else(|| format!("a width of {width} is none of 1, 2, 4 and 8"))?,
            ORDER_BASE_128 => LengthPrefix::base_128(width).ok_or_else(|| {
                format!("a length in base-128 has 1 to {BASE_128_BYTES_MAX} bytes, not {width}")
            })?,
            _ => {
                return Err(format!(
                    "byte order {order} is neither 0 (big endian) nor 1 (little) nor 2 (base-128)"
                ));
            }
        };
        let prefix = match itself {
            0 => prefix,
            1 => prefix.counting_itself(),
            _ => return Err(format!("{itself} is neither 0 nor 1 (the length counts itself)")),
        };
        prefix
            .behind(before)
            .ok_or_else(|| format!("at most {BEFORE_BYTES_MAX} bytes stand before the length, not {before}"))
    }

    /// Returns the parameters that [`LengthPrefix::from_parameters`] reads: two, unless the form
    /// needs four.
    pub(super) fn to_parameters(self) -> Vec<u8> {
        let (width, order) = match self.width {
            Width::Base128(bytes_max) => (bytes_max, ORDER_BASE_128),
            _ => (self.fixed_width().unwrap_or_default() as u8, self.little_endian.into()),
        };
        match (self.counts_itself, self.before) {
            (false, 0) => vec![width, order],
            (itself, before) => vec![width, order, itself.into(), before],
        }
    }

    /// Returns whether messages are slices of the input.
    pub(super) fn cuts_slices(self) -> bool {
        self.before == 0
    }

    /// Returns the number of bytes of a fixed length; `None`: it is in base-128.
    fn fixed_width(self) -> Option<usize> {
        match self.width {
            Width::One => Some(1),
            Width::Two => Some(2),
            Width::Four => Some(4),
            Width::Eight => Some(8),
            Width::Base128(_) => None,
        }
    }

    /// Reads the length at the beginning of some bytes. O(1).
    #[inline]
    fn read(self, bytes: &[u8]) -> Read {
        let (number, width) = match (self.width, self.fixed_width()) {
            (_, Some(width)) => {
                let Some(head) = bytes.get(..width) else { return Read::Part };
                // Bytes that a shorter prefix lacks are zero, at the end of the number that is
                // high.
                let mut all = [0; 8];
                let number = if self.little_endian {
                    all[..width].copy_from_slice(head);
                    u64::from_le_bytes(all)
                } else {
                    all[8 - width..].copy_from_slice(head);
                    u64::from_be_bytes(all)
                };
                (number, width)
            }
            (Width::Base128(most), None) => match read_base_128(bytes, usize::from(most)) {
                Read::Length(number, width) => (number, width),
                other => return other,
            },
            // Unreachable: every other width is fixed.
            (_, None) => return Read::Part,
        };
        let own = if self.counts_itself { width as u64 } else { 0 };
        match number.checked_sub(own) {
            Some(len) => Read::Length(len, width),
            None => Read::Invalid("a length that counts itself is smaller than itself"),
        }
    }

    /// Appends the length of a body. `None`: it can't be expressed, and nothing is appended.
    fn write(self, body: u64, out: &mut Vec<u8>) -> Option<()> {
        let Some(width) = self.fixed_width() else {
            let Width::Base128(most) = self.width else { return None };
            // More bytes make a length that counts itself longer, so the first number that fits
            // counts.
            let widths = 1..=usize::from(most);
            let number = |width: usize| body.checked_add(if self.counts_itself { width as u64 } else { 0 });
            let mut fits = widths.filter_map(|width| Some((width, number(width)?)));
            let (width, number) = fits.find(|(width, number)| *width > 9 || number >> (7 * width) == 0)?;
            let more = |at: usize| if at + 1 < width { 0x80 } else { 0 };
            out.extend((0..width).map(|at| (number >> (7 * at)) as u8 & 0x7f | more(at)));
            return Some(());
        };
        let number = body.checked_add(if self.counts_itself { width as u64 } else { 0 })?;
        if width < 8 && number >> (8 * width) != 0 {
            return None;
        }
        // The low bytes of the number lie at the front in one order, at the back in the other.
        match self.little_endian {
            true => out.extend(&number.to_le_bytes()[..width]),
            false => out.extend(&number.to_be_bytes()[8 - width..]),
        }
        Some(())
    }
}

/// Reads a length in base-128 of at most `most` bytes. A length may have more bytes than it needs.
fn read_base_128(bytes: &[u8], most: usize) -> Read {
    let mut number = 0u64;
    for (at, byte) in bytes.iter().take(most).enumerate() {
        let part = u64::from(byte & 0x7f);
        // Only the tenth byte can go beyond 64 bits.
        if (part << (7 * at)) >> (7 * at) != part {
            return Read::Invalid("a length in base-128 is beyond 64 bits");
        }
        number |= part << (7 * at);
        if byte & 0x80 == 0 {
            return Read::Length(number, at + 1);
        }
    }
    match bytes.len() < most {
        true => Read::Part,
        false => Read::Invalid("a length in base-128 has too many bytes"),
    }
}

/// Cuts the next message of a prefix without bytes before it. Refuses one that is too long as soon
/// as its prefix is there. O(1).
#[inline]
pub(super) fn cut(prefix: LengthPrefix, input: &[u8], bytes_max: usize) -> Frame<'_> {
    match find(prefix, input, bytes_max) {
        Ok((at, end)) => Frame::Message { payload: Payload::Input(&input[at..end]), consumed: end },
        Err(other) => other,
    }
}

/// Cuts the next message, whose first bytes stand before the length. O(bytes of the message).
pub(super) fn cut_behind<'i>(
    prefix: LengthPrefix,
    input: &'i [u8],
    bytes_max: usize,
    buffers: &mut FrameBuffers,
) -> Frame<'i> {
    match find(prefix, input, bytes_max) {
        Ok((at, end)) => {
            let begin = buffers.payloads.len();
            buffers.payloads.extend(&input[..usize::from(prefix.before)]);
            buffers.payloads.extend(&input[at..end]);
            let payload = Payload::Unescaped(begin..buffers.payloads.len());
            Frame::Message { payload, consumed: end }
        }
        Err(other) => other,
    }
}

/// Finds the first message: where its body begins, and where it ends. `bytes_max` counts the bytes
/// before the length, too.
#[inline]
fn find(prefix: LengthPrefix, input: &[u8], bytes_max: usize) -> Result<(usize, usize), Frame<'_>> {
    let before = usize::from(prefix.before);
    let Some(rest) = input.get(before..) else { return Err(Frame::More) };
    let (len, width) = match prefix.read(rest) {
        Read::Length(len, width) => (len, width),
        Read::Part => return Err(Frame::More),
        Read::Invalid(why) => return Err(Frame::Invalid(why)),
    };
    // Asked before the message is looked for: a length over the limit never waits for its bytes.
    if len.saturating_add(before as u64) > bytes_max as u64 {
        return Err(Frame::TooLong);
    }
    let at = before + width;
    let end = at + len as usize;
    if end > input.len() { Err(Frame::More) } else { Ok((at, end)) }
}

/// Puts the prefix before a message, or behind its first bytes. Fails if the prefix cannot express
/// its length, or if the message is shorter than those bytes, and appends nothing then. The longest
/// message that a peer may send does not bound what is sent.
pub(super) fn encode(prefix: LengthPrefix, message: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    let split = message.split_at_checked(usize::from(prefix.before));
    let (before, body) = split.ok_or("the message is shorter than the bytes before its length prefix")?;
    let begin = out.len();
    out.extend(before);
    if prefix.write(body.len() as u64, out).is_none() {
        out.truncate(begin);
        return Err("the message is longer than its length prefix can express");
    }
    out.extend(body);
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
            (&[2, 3], "byte order 3"),
            (&[0, 2], "base-128 has 1 to 10 bytes, not 0"),
            (&[11, 2], "base-128 has 1 to 10 bytes, not 11"),
            (&[2, 0, 2, 0], "2 is neither 0 nor 1"),
            (&[2, 0, 0, 17], "at most 16 bytes stand before the length, not 17"),
        ] {
            let error = LengthPrefix::from_parameters(parameters).unwrap_err();
            assert!(error.contains(says), "{parameters:?}: {error}");
        }
        assert_eq!(LengthPrefix::from_parameters(&[4, 1]), Ok(LengthPrefix::new(4, true).unwrap()));
        let mqtt = LengthPrefix::base_128(4).unwrap().behind(1).unwrap();
        assert_eq!(LengthPrefix::from_parameters(&[4, 2, 0, 1]), Ok(mqtt));
        let itself = LengthPrefix::new(8, false).unwrap().counting_itself();
        assert_eq!(LengthPrefix::from_parameters(&[8, 0, 1, 0]), Ok(itself));
    }

    /// Framing of any form.
    fn of(prefix: LengthPrefix, bytes_max: u32) -> Framing {
        Framing::LengthPrefix { prefix, bytes_max }
    }

    /// Eight bytes, a length that counts itself, and one that is smaller than itself.
    #[test]
    fn wide_lengths_and_lengths_that_count_themselves() {
        check(framing(8, false, 8), b"\0\0\0\0\0\0\0\x03one\0", r#""one" | \x00"#);
        check(framing(8, true, 8), b"\xff\xff\xff\xff\xff\xff\xff\xff", "too-long | ");
        let itself = LengthPrefix::new(2, false).unwrap().counting_itself();
        check(of(itself, 8), b"\0\x05one\0\x02\0\x03", r#""one" "" | \x00\x03"#);
        check(of(itself, 8), b"\0\x01x", "invalid: a length that counts itself is smaller than itself | ");
        check_encoded(of(itself, 8), b"one", b"\0\x05one");
    }

    /// MQTT's lengths: 127 and 128 need another byte, a fifth byte is refused.
    #[test]
    fn lengths_in_base_128() {
        let four = LengthPrefix::base_128(4).unwrap();
        let long = vec![b'x'; 128];
        check(
            of(four, 200),
            &[b"\x03one\0\x80\x01", &long[..], b"\x82"].concat(),
            &format!(r#""one" "" "{}" | \x82"#, "x".repeat(128)),
        );
        check(of(four, 200), b"\xff\xff\xff\xff", "invalid: a length in base-128 has too many bytes | ");
        check(of(four, 200), b"\xff\xff\xff\x7f", "too-long | ");
        // More bytes than the number needs.
        check(of(four, 200), b"\x81\x80\x00a", r#""a" | "#);
        let ten = LengthPrefix::base_128(10).unwrap();
        let most = [&[0xff; 9][..], &[1]].concat();
        check(of(ten, 200), &most, "too-long | ");
        let beyond = [&[0xff; 9][..], &[2]].concat();
        check(of(ten, 200), &beyond, "invalid: a length in base-128 is beyond 64 bits | ");
        check_encoded(of(four, 8), &long[..127], &[b"\x7f", &long[..127]].concat());
        check_encoded(of(four, 8), &long, &[b"\x80\x01", &long[..]].concat());
        // The second byte makes the length longer by one.
        let itself = four.counting_itself();
        check_encoded(of(itself, 8), &long[..126], &[b"\x7f", &long[..126]].concat());
        check_encoded(of(itself, 8), &long[..127], &[b"\x81\x01", &long[..127]].concat());
        let one = LengthPrefix::base_128(1).unwrap();
        assert!(of(one, 8).encode(&long, &mut Vec::new()).is_err());
    }

    /// The type of a packet stands before its length, and is the message's first byte.
    #[test]
    fn bytes_before_the_length_begin_the_message() {
        let mqtt = of(LengthPrefix::base_128(4).unwrap().behind(1).unwrap(), 8);
        check(mqtt, b"\xc0\0\x30\x03one\x30", r#""\xc0" "0one" | 0"#);
        check(mqtt, b"\x30\x08", "too-long | ");
        check_encoded(mqtt, b"0one", b"0\x03one");
        check_encoded(mqtt, b"\xc0", b"\xc0\0");
        let mut out = b"before".to_vec();
        assert!(mqtt.encode(b"", &mut out).is_err());
        assert_eq!(out, b"before");
        // Like PostgreSQL's: a type, then a length that counts itself.
        let typed = LengthPrefix::new(4, false).unwrap().counting_itself().behind(1).unwrap();
        check(of(typed, 8), b"Q\0\0\0\x07oneX\0\0\0\x04", r#""Qone" "X" | "#);
        check_encoded(of(typed, 8), b"Qone", b"Q\0\0\0\x07one");
    }
}
