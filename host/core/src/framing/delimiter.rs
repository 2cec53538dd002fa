//! Delimiter: messages that end in a fixed byte or a short string of bytes, which is no part of
//! them.
//!
//! The first delimiter in the stream ends a message, and the search for the next one begins
//! behind it. Nothing is escaped: a message that contains the delimiter cannot be sent, and
//! `encode` says so. No bytes are stored between two cuts, only how far the search got.
//!
//! Costs: each byte is searched once, but for the end of a part. A delimiter of n bytes may lie
//! across two reads, so the last n - 1 bytes are searched again with the next one.

use super::frame::{Frame, FrameState, Payload};
use memchr::{memchr, memmem};
use serde::{Deserialize, Serialize};

/// Most bytes of a delimiter. The type is `Copy` and in each framing, so the bound is small.
pub const DELIMITER_BYTES_MAX: usize = 16;

/// Bytes that end a message: 1 to [`DELIMITER_BYTES_MAX`] of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<u8>", try_from = "Vec<u8>")]
pub struct Delimiter {
    /// Bytes of the delimiter, then zeros, so that equal delimiters are equal as structs.
    bytes: [u8; DELIMITER_BYTES_MAX],
    /// Number of bytes in use, at least 1.
    len: u8,
}

impl Delimiter {
    /// Returns the delimiter of these bytes. Fails for no bytes, and for more than
    /// [`DELIMITER_BYTES_MAX`].
    pub fn new(bytes: &[u8]) -> Result<Delimiter, String> {
        if bytes.is_empty() || bytes.len() > DELIMITER_BYTES_MAX {
            let len = bytes.len();
            return Err(format!("a delimiter has 1 to {DELIMITER_BYTES_MAX} bytes, not {len}"));
        }
        let mut all = [0; DELIMITER_BYTES_MAX];
        all[..bytes.len()].copy_from_slice(bytes);
        Ok(Delimiter { bytes: all, len: bytes.len() as u8 })
    }

    /// Returns the bytes of the delimiter, at least one.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Finds the place of the first delimiter. O(bytes), for the delimiter of one byte with one
    /// memchr.
    #[inline]
    fn find(&self, bytes: &[u8]) -> Option<usize> {
        match self.bytes() {
            [byte] => memchr(*byte, bytes),
            string => memmem::find(bytes, string),
        }
    }
}

/// Form in JSON: a list of bytes. Reading checks the length, as [`Delimiter::new`] does.
impl From<Delimiter> for Vec<u8> {
    fn from(delimiter: Delimiter) -> Vec<u8> {
        delimiter.bytes().to_vec()
    }
}

impl TryFrom<Vec<u8>> for Delimiter {
    type Error = String;

    fn try_from(bytes: Vec<u8>) -> Result<Delimiter, String> {
        Delimiter::new(&bytes)
    }
}

/// Cuts the next message. Searches each byte once, but for the few that may begin a delimiter.
/// `bytes_max` counts the message alone.
#[inline]
pub(super) fn cut<'i>(
    delimiter: &Delimiter,
    input: &'i [u8],
    state: &mut FrameState,
    bytes_max: usize,
) -> Frame<'i> {
    // A cache that is wrong for this input must not make the slice panic.
    let from = (state.searched() as usize).min(input.len());
    // Bytes at the end that may be the beginning of a delimiter.
    let unsure = delimiter.bytes().len() - 1;
    match delimiter.find(&input[from..]) {
        // The search begins at `from`, the message at 0.
        Some(at) if from + at > bytes_max => Frame::TooLong,
        Some(at) => {
            state.set_searched(0);
            let end = from + at;
            Frame::Message { payload: Payload::Input(&input[..end]), consumed: end + 1 + unsure }
        }
        // All but the last bytes belong to the message for sure, and they are too many already.
        None if input.len() > bytes_max + unsure => Frame::TooLong,
        None => {
            // A delimiter may begin in the last bytes and end in the next read.
            state.set_searched(input.len().saturating_sub(unsure) as u32);
            Frame::More
        }
    }
}

/// Puts the delimiter behind a message. Fails if the message contains one, or if one would
/// begin in the message and end in the delimiter. Nothing is appended then.
pub(super) fn encode(delimiter: &Delimiter, message: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    let begin = out.len();
    out.extend(message);
    out.extend(delimiter.bytes());
    // The peer ends the message at the first delimiter, so the one appended must be the first.
    if delimiter.find(&out[begin..]) != Some(message.len()) {
        out.truncate(begin);
        return Err("the message contains the delimiter");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::Framing;
    use crate::framing::script::{check, check_encoded};

    /// Framing of messages up to 8 bytes.
    fn framing(delimiter: &[u8]) -> Framing {
        Framing::Delimiter { delimiter: Delimiter::new(delimiter).unwrap(), bytes_max: 8 }
    }

    #[test]
    fn a_cut_anywhere_changes_nothing() {
        check(framing(b"\0"), b"one\0\0two\n\0ha", r#""one" "" "two\n" | ha"#);
        check(framing(b"\r\n.\r\n"), b"a\r\n.\r\n\r\n.\r\r\n.\r\nx\r\n.", r#""a" "\r\n.\r" | x\r\n."#);
        // An end that is a beginning too: the first one found counts.
        check(framing(b"aa"), b"baaaab", r#""b" "" | b"#);
        check(framing(b"aab"), b"aaaab", r#""aa" | "#);
        check(framing(b"--"), b"", "| ");
    }

    /// The delimiter does not count, also while only a part of it has come.
    #[test]
    fn the_limit_counts_the_message_alone() {
        check(framing(b";"), b"12345678;", r#""12345678" | "#);
        check(framing(b";"), b"123456789", "too-long | ");
        check(framing(b"--"), b"12345678--", r#""12345678" | "#);
        check(framing(b"--"), b"12345678-", r#"| 12345678-"#);
        check(framing(b"--"), b"123456789--", "too-long | ");
    }

    /// Messages with a delimiter in them are refused, and so are those that would make one at
    /// their end.
    #[test]
    fn messages_are_sent_with_their_delimiter() {
        check_encoded(framing(b"\0"), b"one\n", b"one\n\0");
        check_encoded(framing(b"aab"), b"", b"aab");
        for (delimiter, message) in [(&b";"[..], &b"a;b"[..]), (b"--", b"a-"), (b"aa", b"ba")] {
            let mut out = b"before".to_vec();
            assert!(framing(delimiter).encode(message, &mut out).is_err(), "{delimiter:?} {message:?}");
            assert_eq!(out, b"before");
        }
        // Found as a whole only behind the message.
        check_encoded(framing(b"aab"), b"xa", b"xaaab");
    }

    /// Both bounds of the length, and the way through bytes and back.
    #[test]
    fn a_delimiter_is_neither_empty_nor_long() {
        for len in [0, DELIMITER_BYTES_MAX + 1] {
            let error = Delimiter::new(&vec![7; len]).unwrap_err();
            assert!(error.contains(&format!("not {len}")), "{error}");
        }
        let longest = Delimiter::new(&[7; DELIMITER_BYTES_MAX]).unwrap();
        assert_eq!(Delimiter::try_from(Vec::from(longest)), Ok(longest));
    }
}
