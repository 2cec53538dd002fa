//! Lines: bytes up to LF, or up to CRLF. The last CR before the LF belongs to the ending, any other to the message.

use super::frame::{Frame, FrameState};

#[inline]
pub(super) fn next<'a>(bytes: &'a [u8], state: &mut FrameState, bytes_max: usize) -> Frame<'a> {
    let from = (state.searched as usize).min(bytes.len());
    match memchr::memchr(b'\n', &bytes[from..]) {
        Some(at) => {
            state.searched = 0;
            let end = from + at;
            let line = &bytes[..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.len() > bytes_max { Frame::TooLong } else { Frame::Message(line, end + 1) }
        }
        // A CR at the limit may be half of the ending, so one byte more is waited for.
        None if bytes.len() > bytes_max + usize::from(bytes.last() == Some(&b'\r')) => Frame::TooLong,
        None => {
            state.searched = bytes.len() as u32;
            Frame::More
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Framing;
    use super::*;

    /// Feeds `parts` one after the other, and writes down what came out.
    fn feed(parts: &[&[u8]], bytes_max: u32) -> String {
        let framing = Framing::Lines { bytes_max };
        let (mut left, mut state, mut trace) = (Vec::new(), FrameState::default(), String::new());
        'parts: for part in parts {
            left.extend_from_slice(part);
            loop {
                match framing.next(&left, &mut state) {
                    Frame::Message(m, n) => {
                        trace.push_str(&format!("{:?} ", m.escape_ascii().to_string()));
                        left.drain(..n);
                    }
                    Frame::More => break,
                    Frame::TooLong => {
                        trace.push_str("too-long ");
                        left.clear();
                        break 'parts;
                    }
                }
            }
        }
        trace + &format!("| {}", left.escape_ascii())
    }

    #[track_caller]
    fn check(stream: &[u8], bytes_max: u32, expected: &str) {
        assert_eq!(feed(&[stream], bytes_max), expected);
        for cut in 0..=stream.len() {
            let (a, b) = stream.split_at(cut);
            assert_eq!(feed(&[a, b], bytes_max), expected, "cut at {cut}");
        }
        let bytes: Vec<_> = stream.chunks(1).collect();
        assert_eq!(feed(&bytes, bytes_max), expected, "cut at every byte");
    }

    #[test]
    fn a_cut_anywhere_changes_nothing() {
        check(b"one\ntwo\r\n\n\r\nhalf", 8, r#""one" "two" "" "" | half"#);
        check(b"a\rb\r\r\n", 8, r#""a\\rb\\r" | "#);
        check(b"\xff\x00\n", 8, r#""\\xff\\x00" | "#);
        check(b"", 8, "| ");
    }

    #[test]
    fn the_limit_counts_the_message_alone() {
        check(b"12345678\n", 8, r#""12345678" | "#);
        check(b"12345678\r\nx\n", 8, r#""12345678" "x" | "#);
        check(b"123456789", 8, "too-long | ");
        check(b"12345678\rx", 8, "too-long | ");
    }
}
