//! Lines: bytes up to LF or CRLF. The last CR before the LF belongs to the ending, any other to
//! the message.
//!
//! No bytes are stored between two cuts, only how far the search got. Output is sent as it is:
//! a handler writes its own line endings.

use super::frame::{Frame, FrameState, Payload};

/// Cuts the next line. Searches each byte once, as long as `state.searched` is kept.
/// `bytes_max` counts the line without its ending.
#[inline]
pub(super) fn cut<'i>(input: &'i [u8], state: &mut FrameState, bytes_max: usize) -> Frame<'i> {
    // A cache that is wrong for this input must not make the slice panic.
    let from = (state.searched() as usize).min(input.len());
    match memchr::memchr(b'\n', &input[from..]) {
        Some(at) => {
            state.set_searched(0);
            let end = from + at;
            let line = &input[..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            match line.len() > bytes_max {
                true => Frame::TooLong,
                false => Frame::Message { payload: Payload::Input(line), consumed: end + 1 },
            }
        }
        // A CR at the limit may be half of the ending, so one byte more is waited for.
        None if input.len() > bytes_max + usize::from(input.last() == Some(&b'\r')) => Frame::TooLong,
        None => {
            state.set_searched(input.len() as u32);
            Frame::More
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::framing::Framing;
    use crate::framing::script::check;

    /// Checks a stream of lines up to 8 bytes.
    #[track_caller]
    fn lines(stream: &[u8], expected: &str) {
        check(Framing::Lines { bytes_max: 8 }, stream, expected);
    }

    /// Both endings, empty lines, a CR inside a line, and bytes that are no text.
    #[test]
    fn a_cut_anywhere_changes_nothing() {
        lines(b"one\ntwo\r\n\n\r\nhalf", r#""one" "two" "" "" | half"#);
        lines(b"a\rb\r\r\n", r#""a\rb\r" | "#);
        lines(b"\xff\x00\n", r#""\xff\x00" | "#);
        lines(b"", "| ");
    }

    /// The ending does not count, whether it has one byte or two.
    #[test]
    fn the_limit_counts_the_message_alone() {
        lines(b"12345678\n", r#""12345678" | "#);
        lines(b"12345678\r\nx\n", r#""12345678" "x" | "#);
        lines(b"123456789", "too-long | ");
        lines(b"12345678\rx", "too-long | ");
    }
}
