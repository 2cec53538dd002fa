//! Delimiter: messages that end in a fixed byte or a short string of bytes, which is no part of
//! them.

use super::frame::{Frame, FrameState, Payload};
use memchr::{memchr, memmem};
use serde::{Deserialize, Serialize};

/// Most bytes of a delimiter.
pub const DELIMITER_BYTES_MAX: usize = 16;

/// Bytes that end a message: 1 to [`DELIMITER_BYTES_MAX`] of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<u8>", try_from = "Vec<u8>")]
pub struct Delimiter {
    bytes: [u8; DELIMITER_BYTES_MAX],
    len: u8,
}

impl Delimiter {
    /// Delimiter of these bytes. Refuses none, and more than [`DELIMITER_BYTES_MAX`].
    pub fn new(bytes: &[u8]) -> Result<Delimiter, String> {
        if bytes.is_empty() || bytes.len() > DELIMITER_BYTES_MAX {
            let len = bytes.len();
            return Err(format!("a delimiter has 1 to {DELIMITER_BYTES_MAX} bytes, not {len}"));
        }
        let mut all = [0; DELIMITER_BYTES_MAX];
        all[..bytes.len()].copy_from_slice(bytes);
        Ok(Delimiter { bytes: all, len: bytes.len() as u8 })
    }

    /// Bytes of the delimiter.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Place of the first delimiter.
    #[inline]
    fn find(&self, bytes: &[u8]) -> Option<usize> {
        match self.bytes() {
            [byte] => memchr(*byte, bytes),
            string => memmem::find(bytes, string),
        }
    }
}

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
#[inline]
pub(super) fn cut<'i>(
    delimiter: &Delimiter,
    input: &'i [u8],
    state: &mut FrameState,
    bytes_max: usize,
) -> Frame<'i> {
    let from = (state.searched as usize).min(input.len());
    // Bytes at the end that may be the beginning of a delimiter.
    let unsure = delimiter.bytes().len() - 1;
    match delimiter.find(&input[from..]) {
        Some(at) if from + at > bytes_max => Frame::TooLong,
        Some(at) => {
            state.searched = 0;
            let end = from + at;
            Frame::Message { payload: Payload::Input(&input[..end]), consumed: end + 1 + unsure }
        }
        None if input.len() > bytes_max + unsure => Frame::TooLong,
        None => {
            state.searched = input.len().saturating_sub(unsure) as u32;
            Frame::More
        }
    }
}

/// Puts the delimiter behind a message. Fails if the message contains one, or if one would begin
/// in the message and end in the delimiter.
pub(super) fn encode(delimiter: &Delimiter, message: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    let begin = out.len();
    out.extend(message);
    out.extend(delimiter.bytes());
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

    #[test]
    fn the_limit_counts_the_message_alone() {
        check(framing(b";"), b"12345678;", r#""12345678" | "#);
        check(framing(b";"), b"123456789", "too-long | ");
        check(framing(b"--"), b"12345678--", r#""12345678" | "#);
        check(framing(b"--"), b"12345678-", r#"| 12345678-"#);
        check(framing(b"--"), b"123456789--", "too-long | ");
    }

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
