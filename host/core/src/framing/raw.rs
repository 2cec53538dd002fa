//! Raw: no framing. A message is whatever has arrived, cut where the network cut it, so a
//! handler must not depend on where that is.
//!
//! Nothing waits for more bytes and nothing is too long: input beyond `bytes_max` is the next
//! message.

use super::frame::{Frame, Payload};

/// Takes all that is there, up to `bytes_max`. O(1), and no state.
#[inline]
pub(super) fn cut(input: &[u8], bytes_max: usize) -> Frame<'_> {
    match input.len().min(bytes_max) {
        0 => Frame::More,
        len => Frame::Message { payload: Payload::Input(&input[..len]), consumed: len },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No input, some input, and more than one message may hold.
    #[test]
    fn nothing_waits_and_nothing_is_too_long() {
        let message = |payload, consumed| Frame::Message { payload: Payload::Input(payload), consumed };
        assert_eq!(cut(b"", 3), Frame::More);
        assert_eq!(cut(b"a\nb", 3), message(b"a\nb", 3));
        assert_eq!(cut(b"abcd", 3), message(b"abc", 3));
    }
}
