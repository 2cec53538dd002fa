//! No framing: a message is whatever has arrived. Where a stream is cut is the network's doing, so a handler must not depend on it.

use super::frame::Frame;

#[inline]
pub(super) fn next(bytes: &[u8], bytes_max: usize) -> Frame<'_> {
    match bytes.len().min(bytes_max) {
        0 => Frame::More,
        len => Frame::Message(&bytes[..len], len),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_waits_and_nothing_is_too_long() {
        assert_eq!(next(b"", 3), Frame::More);
        assert_eq!(next(b"a\nb", 3), Frame::Message(b"a\nb", 3));
        assert_eq!(next(b"abcd", 3), Frame::Message(b"abc", 3));
    }
}
