//! The bytes that a store lies in.

/// Memory that grows, is zero where it is fresh, and may outlive its writer. A writer may die at
/// any instruction; then all that it wrote before the last [`Memory::mark`] is there, and any part
/// of what came after.
pub trait Memory: Send {
    /// All of it, as far as it has grown.
    fn bytes(&self) -> &[u8];
    /// Writes bytes.
    fn write(&mut self, at: usize, bytes: &[u8]);
    /// What was written before comes before what is written after.
    fn mark(&mut self);
    /// Writes one aligned word at once, after everything before and before everything after it.
    fn commit(&mut self, at: usize, word: u64);
    /// Makes it at least so long; false: it can't be.
    fn grow(&mut self, len: usize) -> bool;
}

/// Memory on the heap, which dies with its process. In tests it can be cut off: after so many
/// words, nothing is written any more, as if the writer had been killed there.
#[derive(Debug, Clone, Default)]
pub struct Plain {
    bytes: Vec<u8>,
    /// Words that may still be written; `None`: any number.
    words_left: Option<u64>,
}

impl Plain {
    /// A copy of what another memory holds, from which on only so many words are written.
    pub fn cut_after(bytes: &[u8], words: Option<u64>) -> Plain {
        Plain { bytes: bytes.to_vec(), words_left: words }
    }

    /// Whether it was cut off.
    pub fn is_cut(&self) -> bool {
        self.words_left == Some(0)
    }
}

impl From<Vec<u8>> for Plain {
    /// Goes on with what these bytes hold.
    fn from(bytes: Vec<u8>) -> Plain {
        Plain { bytes, words_left: None }
    }
}

impl Memory for Plain {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    #[inline]
    fn write(&mut self, at: usize, bytes: &[u8]) {
        let Some(left) = &mut self.words_left else {
            return self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        };
        for (i, word) in bytes.chunks(8).enumerate() {
            if *left == 0 {
                return;
            }
            *left -= 1;
            self.bytes[at + 8 * i..][..word.len()].copy_from_slice(word);
        }
    }

    fn mark(&mut self) {}

    fn commit(&mut self, at: usize, word: u64) {
        self.write(at, &word.to_le_bytes());
    }

    fn grow(&mut self, len: usize) -> bool {
        if self.bytes.len() < len {
            self.bytes.resize(len, 0);
        }
        true
    }
}
