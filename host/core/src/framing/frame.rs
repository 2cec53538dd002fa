//! A frame: a whole message, more needed, or too long; and what is remembered between reads.

/// What must be remembered of a frame that isn't whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameState {
    /// How many of the bytes left over were searched already.
    pub searched: u32,
}

/// What the bytes begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A whole message, and how many bytes it took with its framing.
    Message(&'a [u8], usize),
    /// Not a whole message yet.
    More,
    /// A message longer than the limit.
    TooLong,
}
