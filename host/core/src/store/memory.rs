//! Memory of a store: bytes that grow and may outlive their writer.
//!
//! The store knows nothing else of the place where it lies. In a worker that is a memory file
//! which the keeper holds, too (the shell implements [`Memory`] for it). In tests, and for the
//! copy of a snapshot, it is [`Plain`] memory on the heap.
//!
//! A successor begins after the writer's death, and finds the writer's stores in program order.
//! For it, [`Memory::mark`] may be a compiler fence. Nothing protects against a loss of power:
//! the memory is not on a disk.

/// Bytes of a head that is written together with what follows it.
pub const HEAD_BYTES: usize = 24;

/// Bytes that grow, are zero where they are fresh, and may outlive their writer.
///
/// A writer may die at any instruction. Then all bytes written before the last [`Memory::mark`]
/// are there, and any part of those written after it.
pub trait Memory: Send {
    /// Returns all bytes, as far as the memory has grown. O(1).
    fn bytes(&self) -> &[u8];
    /// Writes bytes, in no order that a successor may rely on. The caller has made the memory
    /// grow so far; a write beyond it panics.
    fn write(&mut self, at: usize, bytes: &[u8]);
    /// Writes a word, little-endian, as [`Memory::write`] writes bytes.
    #[inline]
    fn write_word(&mut self, at: usize, word: u64) {
        self.write(at, &word.to_le_bytes());
    }
    /// Writes a head and the bytes behind it, as [`Memory::write`] writes bytes.
    #[inline]
    fn write_two(&mut self, at: usize, head: &[u8; HEAD_BYTES], bytes: &[u8]) {
        self.write(at, head);
        self.write(at + HEAD_BYTES, bytes);
    }
    /// Puts all writes before it in front of all writes after it.
    fn mark(&mut self);
    /// Writes one aligned word at once, after everything before and before everything after it.
    /// A successor finds the old word or the new one, never a mixture.
    fn commit(&mut self, at: usize, word: u64);
    /// Makes the memory at least `len` bytes long. False: the system has no more, or `len` is
    /// beyond the maximum; the memory is as long as before. Growth may cost a system call.
    fn grow(&mut self, len: usize) -> bool;
}

/// Memory on the heap, which dies with its process. Tests can cut it off: after so many words
/// nothing is written any more, as if the writer had been killed there.
#[derive(Debug, Clone, Default)]
pub struct Plain {
    bytes: Vec<u8>,
    /// Words that may still be written; `None`: any number.
    words_left: Option<u64>,
}

impl Plain {
    /// Copies the bytes of another memory. Only `words` more words are written; `None`: any
    /// number.
    pub fn cut_after(bytes: &[u8], words: Option<u64>) -> Plain {
        Plain { bytes: bytes.to_vec(), words_left: words }
    }

    /// Returns whether the cut is reached: no further word is written.
    pub fn is_cut(&self) -> bool {
        self.words_left == Some(0)
    }
}

impl From<Vec<u8>> for Plain {
    /// Continues with bytes that hold a store, without a copy.
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
        // Without a cut a write is one copy. With it, words are written one by one up to the
        // cut.
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
