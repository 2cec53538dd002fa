//! Scan: place of a search in a WebSocket message that is not whole, and its text so far.
//!
//! A cache beside `FrameState::searched`: no record holds it, and a search from the
//! beginning gives the same. 24 bytes in the box of the stored state.

/// Bytes that are unmasked at once to be checked, on the stack.
const CHUNK: usize = 1024;

/// Place in the unconsumed input, which begins with a message's first frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Scan {
    /// Begin of the frame that is not whole, or not there.
    pub(super) frame: u32,
    /// Payload of the message's frames before that frame.
    pub(super) payload: u32,
    /// Payload of that frame that was checked.
    pub(super) checked: u32,
    /// Pings and pongs before that frame.
    pub(super) controls: u16,
    /// Bytes of a character that is not whole: their number, then the bytes.
    pub(super) part: (u8, [u8; 3]),
}

impl Scan {
    /// Checks the next bytes of a text, masked as they came. `at`: place of the first one in its
    /// frame's payload. False: some byte of
    /// them is none that UTF-8 has there. O(bytes).
    pub(super) fn check(&mut self, masked: &[u8], mask: [u8; 4], mut at: usize) -> bool {
        let mut chunk = [0; CHUNK + 3];
        for bytes in masked.chunks(CHUNK) {
            let part = usize::from(self.part.0);
            chunk[..part].copy_from_slice(&self.part.1[..part]);
            let text = &mut chunk[..part + bytes.len()];
            text[part..].copy_from_slice(bytes);
            unmask(&mut text[part..], mask, at);
            at += bytes.len();
            let rest = match std::str::from_utf8(text) {
                Ok(_) => &[][..],
                Err(e) if e.error_len().is_some() => return false,
                Err(e) => &text[e.valid_up_to()..],
            };
            self.part.0 = rest.len() as u8;
            self.part.1[..rest.len()].copy_from_slice(rest);
        }
        true
    }

    /// Returns whether the text so far ends with a whole character.
    pub(super) fn ends_whole(&self) -> bool {
        self.part.0 == 0
    }
}

/// Returns whether bytes are UTF-8. Most text is ASCII, and asking that first is faster.
pub(super) fn is_utf8(bytes: &[u8]) -> bool {
    bytes.is_ascii() || std::str::from_utf8(bytes).is_ok()
}

/// Unmasks bytes in place. `at`: place of the first one in its frame's payload. O(bytes).
pub(super) fn unmask(bytes: &mut [u8], mut mask: [u8; 4], at: usize) {
    mask.rotate_left(at % 4);
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    rest.iter_mut().enumerate().for_each(|(at, byte)| *byte ^= mask[at % 4]);
}
