//! Frames: results of one cut, and the state between two.

use super::scan::Scan;
use arrayvec::ArrayVec;
use std::ops::Range;

/// Most bytes of state that a framing stores with a session.
pub const STORED_BYTES_MAX: usize = 64;

/// Most stored bytes that need no allocation: as many as an open WebSocket has between messages.
const FEW_BYTES: usize = 8;

/// State of a framing between two cuts: bytes to store, and what was searched.
///
/// Takes 16 bytes in a session. Few stored bytes lie in it: sessions are many, and each message of
/// a cut has a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameState {
    kept: Kept,
}

/// Memory of a state. `pinged` and `searched` are at one place in both forms, so that lines do not
/// ask which.
#[derive(Debug, Clone, PartialEq, Eq)]
#[repr(u8)]
enum Kept {
    /// Few bytes, and no scan. Bytes behind the length are zero.
    Few { pinged: bool, len: u8, searched: u32, bytes: [u8; FEW_BYTES] },
    /// Any other state.
    Many { pinged: bool, searched: u32, more: Box<More> },
}

/// Bytes to store, and what goes with them in memory alone.
#[derive(Debug, Clone, PartialEq, Eq)]
struct More {
    bytes: ArrayVec<u8, STORED_BYTES_MAX>,
    /// Cache beside [`FrameState::searched`], of WebSocket.
    scan: Scan,
}

impl Default for FrameState {
    /// Returns the state of no input: nothing is stored.
    #[inline]
    fn default() -> FrameState {
        FrameState { kept: Kept::Few { pinged: false, len: 0, searched: 0, bytes: [0; FEW_BYTES] } }
    }
}

impl FrameState {
    /// Returns the state that a record holds. `None`: more stored bytes than
    /// [`STORED_BYTES_MAX`].
    pub fn new(searched: u32, stored: &[u8]) -> Option<FrameState> {
        let mut state = FrameState::default();
        state.set_searched(searched);
        (stored.len() <= STORED_BYTES_MAX).then(|| state.store(stored))?;
        Some(state)
    }

    /// Bytes of the unconsumed input that were searched already. A cache: it may be set to 0 at any
    /// time, which costs a second search and changes no result.
    #[inline]
    pub fn searched(&self) -> u32 {
        match self.kept {
            Kept::Few { searched, .. } | Kept::Many { searched, .. } => searched,
        }
    }

    /// Notes how many bytes of the unconsumed input were searched.
    #[inline]
    pub(crate) fn set_searched(&mut self, to: u32) {
        match &mut self.kept {
            Kept::Few { searched, .. } | Kept::Many { searched, .. } => *searched = to,
        }
    }

    /// Returns whether the peer was pinged, and has sent nothing since. Memory alone knows: a
    /// successor pings again.
    #[inline]
    pub(crate) fn is_pinged(&self) -> bool {
        match self.kept {
            Kept::Few { pinged, .. } | Kept::Many { pinged, .. } => pinged,
        }
    }

    /// Notes that the peer is pinged, or that it has sent something.
    #[inline]
    pub(crate) fn set_pinged(&mut self, to: bool) {
        match &mut self.kept {
            Kept::Few { pinged, .. } | Kept::Many { pinged, .. } => *pinged = to,
        }
    }

    /// Bytes to store with the session; empty for a framing that stores nothing.
    ///
    /// Changed by [`Frame::Message`] and [`Frame::Reply`] alone. They go with the unconsumed input:
    /// a caller that consumes fewer messages than it cut goes back to the state it had there.
    #[inline]
    pub fn stored(&self) -> &[u8] {
        match &self.kept {
            Kept::Few { len, bytes, .. } => &bytes[..usize::from(*len)],
            Kept::Many { more, .. } => &more.bytes,
        }
    }

    /// Replaces the bytes to store. They begin with the framing's number, so that another framing
    /// can tell that they are not its own. At most [`STORED_BYTES_MAX`], or those behind are
    /// dropped.
    pub(super) fn store(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.len() <= STORED_BYTES_MAX, "{} bytes of state", bytes.len());
        self.keep(bytes.iter().copied().take(STORED_BYTES_MAX).collect(), Scan::default());
    }

    /// Returns the cache beside `searched`. The default is of no search.
    pub(super) fn scan(&self) -> Scan {
        match &self.kept {
            Kept::Few { .. } => Scan::default(),
            Kept::Many { more, .. } => more.scan,
        }
    }

    /// Keeps the cache beside `searched`. Costs an allocation, until the bytes are stored anew or
    /// the cache is the default one.
    pub(super) fn set_scan(&mut self, scan: Scan) {
        match &mut self.kept {
            Kept::Few { .. } if scan == Scan::default() => {}
            _ => self.keep(self.stored().iter().copied().collect(), scan),
        }
    }

    /// Keeps bytes and scan in the smaller form that holds them. An allocation is used again.
    fn keep(&mut self, stored: ArrayVec<u8, STORED_BYTES_MAX>, scan: Scan) {
        let (pinged, searched, more) = (self.is_pinged(), self.searched(), More { bytes: stored, scan });
        let stored = &more.bytes;
        if stored.len() <= FEW_BYTES && scan == Scan::default() {
            let mut bytes = [0; FEW_BYTES];
            bytes[..stored.len()].copy_from_slice(stored);
            self.kept = Kept::Few { pinged, len: stored.len() as u8, searched, bytes };
        } else if let Kept::Many { more: before, .. } = &mut self.kept {
            **before = more;
        } else {
            self.kept = Kept::Many { pinged, searched, more: Box::new(more) };
        }
    }
}

/// Result of one cut at the start of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame<'i> {
    /// Whole message.
    Message {
        /// Message without its framing.
        payload: Payload<'i>,
        /// Bytes of the input that it took with its framing, at least 1.
        consumed: usize,
    },
    /// Bytes that are the framing's own business and no message.
    ///
    /// The framing may have appended an answer to [`FrameBuffers::replies`], which must be sent
    /// before the output of any later message. It may have set [`FrameBuffers::event`], an action
    /// that comes before the next message. With `consumed: 0` the state tells the next cut that
    /// this was dealt with, so the next cut makes progress.
    Reply {
        /// Bytes of the input that they took.
        consumed: usize,
    },
    /// HTTP request that is whole, and that the host answers: it knows origins and pages. The state
    /// is as before, and the host changes it.
    Request {
        /// Bytes of the input that it takes.
        consumed: usize,
    },
    /// The peer closes by the framing's own words. They are this range of
    /// [`FrameBuffers::payloads`]; input behind is of no meaning.
    Closed(Range<usize>),
    /// Not a whole message yet. Stored bytes and buffers are as before.
    More,
    /// Message longer than the limit. The stream can't be cut any further.
    TooLong,
    /// Input that breaks the rules of the framing, with the reason. The stream can't be cut any
    /// further.
    Invalid(&'static str),
}

/// Message without its framing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload<'i> {
    /// Slice of the input: no copy.
    Input(&'i [u8]),
    /// Range of [`FrameBuffers::payloads`], for a message that differs from its input. A range, so
    /// that several messages can be cut before the first one runs.
    Unescaped(Range<usize>),
}

impl<'i> Payload<'i> {
    /// Bytes of the message. `buffers` are those of the cut.
    pub fn bytes(&self, buffers: &'i FrameBuffers) -> &'i [u8] {
        match self {
            Payload::Input(bytes) => bytes,
            Payload::Unescaped(range) => &buffers.payloads[range.clone()],
        }
    }
}

/// Buffers that cuts append to. The caller clears them; their memory is used again.
#[derive(Debug, Default)]
pub struct FrameBuffers {
    /// Messages that differ from their input, one behind the other.
    pub payloads: Vec<u8>,
    /// Answers of the framing itself, in order.
    pub replies: Vec<u8>,
    /// Reason of the last [`Frame::Invalid`], if a library's framing gave it.
    pub refusal: Option<CutRefusal>,
    /// Event of the last [`Frame::Reply`], if there is one.
    pub event: Option<FrameEvent>,
}

/// Reason why a library's framing ends a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutRefusal {
    /// Reason in words.
    pub reason: String,
    /// Whether the library is at fault, and not the peer.
    pub is_fault: bool,
}

/// Event of a framing that is no message: the session's handler gets it as an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameEvent {
    /// Kind of the action, one of [`greenroom_state::abi::action`].
    pub kind: u32,
    /// Detail, as the kind says.
    pub detail: u16,
    /// Bytes, as the kind says.
    pub data: Vec<u8>,
}

impl FrameBuffers {
    /// Empties both buffers and keeps their memory. Ranges in earlier payloads are void then.
    pub fn clear(&mut self) {
        self.payloads.clear();
        self.replies.clear();
        (self.refusal, self.event) = (None, None);
    }
}

/// Way in which a framing writes messages, where sessions of one framing differ in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Only way of most framings; of telnet, text.
    Plain,
    /// Of telnet: bytes as they are, since BINARY is on.
    Binary,
}

/// Cuts slices off the input until `take` says no, or until there is no whole message.
#[inline(always)]
pub(super) fn each<'i>(
    mut input: &'i [u8],
    mut take: impl FnMut(&'i [u8], usize) -> bool,
    mut cut: impl FnMut(&'i [u8]) -> Frame<'i>,
) -> Frame<'i> {
    loop {
        let frame = cut(input);
        // Framings that cut slices give no other payload, so every other frame is the end.
        let Frame::Message { payload: Payload::Input(message), consumed } = frame else { return frame };
        input = &input[consumed..];
        if !take(message, consumed) {
            return Frame::More;
        }
    }
}
