//! Framings of a handler's own: code that cuts messages out of a stream.

use std::borrow::Cow;
use std::fmt;

/// Framing of an author's own: pure functions of the bytes and of a little state.
///
/// The host keeps the unconsumed input and the state, across swaps and deaths of its process. So
/// the functions must depend on their arguments alone, and cutting the stream in other places must
/// change no message. A build that is swapped in cuts from the next message on, also of a session
/// that is in the middle of one.
///
/// A panic, or an answer that makes no sense, closes the session and counts as a failed turn.
///
/// ```
/// use greenroom_handler::testing::TestHost;
/// use greenroom_handler::{CustomFraming, Cut, Endpoint, FramingState, Handler};
/// use greenroom_handler::{Result, Turn, handler};
///
/// /// Netstrings: `5:hello,`.
/// struct Netstring;
/// impl CustomFraming for Netstring {
///     fn version(&self) -> u8 {
///         0
///     }
///     fn cut<'i>(&self, input: &'i [u8], _: &mut FramingState) -> Cut<'i> {
///         let Some(colon) = input.iter().position(|byte| *byte == b':') else {
///             return if input.len() > 5 { Cut::Invalid("no colon".into()) } else { Cut::More };
///         };
///         let length = std::str::from_utf8(&input[..colon]).unwrap_or("").parse::<u16>();
///         let Ok(length) = length else { return Cut::Invalid("no length".into()) };
///         let end = colon + 1 + usize::from(length);
///         match input.get(end) {
///             None => Cut::More,
///             Some(b',') => Cut::message(&input[colon + 1..end], end + 1),
///             Some(_) => Cut::Invalid("no comma".into()),
///         }
///     }
///     fn encode(&self, message: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
///         out.extend_from_slice(format!("{}:", message.len()).as_bytes());
///         out.extend_from_slice(message);
///         out.push(b',');
///         Ok(())
///     }
/// }
///
/// struct Echo;
/// #[handler]
/// impl Handler for Echo {
///     const SERVICE: &'static str = "echo";
///     const ENDPOINTS: &'static [Endpoint] = &[Endpoint::custom(4111, &Netstring)];
///     fn message(&self, turn: &mut Turn, message: &[u8]) -> Result {
///         turn.send(message);
///         Ok(())
///     }
/// }
///
/// let mut host = TestHost::<Echo>::new("{}").unwrap();
/// let peer = host.open_by("custom");
/// host.send(peer, "5:hello,2:y");
/// host.expect(peer, "hello"); // a test host sends without framing
/// host.send(peer, "o,x:");
/// assert!(host.is_closed(peer));
/// ```
pub trait CustomFraming: Sync {
    /// Version of the state. A build with another version begins with an empty state in each
    /// session.
    fn version(&self) -> u8 {
        0
    }

    /// Cuts the next message off the beginning of `input`, which has at least one byte.
    ///
    /// The input is all that the peer has sent and no message has taken. If the message is not
    /// whole, the function is called again with more. A change of the state counts if bytes are
    /// consumed.
    fn cut<'i>(&self, input: &'i [u8], state: &mut FramingState) -> Cut<'i>;

    /// Appends a message to `out`, as the peer expects it. An error fails the turn that sends it,
    /// or leaves the session out of a broadcast.
    fn encode(&self, message: &[u8], out: &mut Vec<u8>) -> Result<(), String>;
}

impl fmt::Debug for dyn CustomFraming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a framing of version {}", self.version())
    }
}

impl PartialEq for dyn CustomFraming {
    /// Two framings are equal if they are the same static.
    fn eq(&self, other: &dyn CustomFraming) -> bool {
        std::ptr::addr_eq(self, other)
    }
}

impl Eq for dyn CustomFraming {}

/// Answer of [`CustomFraming::cut`].
///
/// ```
/// use greenroom_handler::Cut;
///
/// /// Pairs of bytes, with any number of zeros between them.
/// fn pair(input: &[u8]) -> Cut<'_> {
///     match input {
///         [0, ..] => Cut::Skip { consumed: 1 },
///         [_] => Cut::More,
///         [_, 0, ..] => Cut::Invalid("half a pair".into()),
///         _ => Cut::message(&input[..2], 2),
///     }
/// }
///
/// assert_eq!(pair(b"\0abc"), Cut::Skip { consumed: 1 });
/// assert_eq!(pair(b"abc"), Cut::Message { message: b"ab".into(), consumed: 2 });
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cut<'i> {
    /// No message is whole.
    More,
    /// Message.
    Message {
        /// Message without its framing. A part of the input costs no copy.
        message: Cow<'i, [u8]>,
        /// Bytes of the input that it took with its framing, at least 1.
        consumed: usize,
    },
    /// Bytes that are no message, such as an empty line between two.
    Skip {
        /// Number of bytes, at least 1.
        consumed: usize,
    },
    /// Input that breaks the rules, with the reason: the session is closed.
    Invalid(String),
}

impl<'i> Cut<'i> {
    /// Message that is a part of the input.
    pub fn message(message: &'i [u8], consumed: usize) -> Cut<'i> {
        Cut::Message { message: Cow::Borrowed(message), consumed }
    }
}

/// State that a framing of an author's own keeps for a session, empty at first.
///
/// ```
/// use greenroom_handler::{CustomFraming, Cut, FramingState};
///
/// /// A line, which says how many bytes each message behind it has.
/// struct Blocks;
/// impl CustomFraming for Blocks {
///     fn cut<'i>(&self, input: &'i [u8], state: &mut FramingState) -> Cut<'i> {
///         if let [length] = *state.get() {
///             return match input.get(..length.into()) {
///                 Some(message) => Cut::message(message, message.len()),
///                 None => Cut::More,
///             };
///         }
///         let Some(end) = input.iter().position(|byte| *byte == b'\n') else { return Cut::More };
///         match std::str::from_utf8(&input[..end]).unwrap_or("").parse::<u8>() {
///             Ok(length @ 1..) => state.set(&[length]),
///             _ => return Cut::Invalid("no length".into()),
///         }
///         Cut::message(&input[..end], end + 1)
///     }
///     fn encode(&self, message: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
///         out.extend_from_slice(message);
///         Ok(())
///     }
/// }
///
/// const _: () = assert!(FramingState::BYTES_MAX >= 1);
/// let mut state = FramingState::default();
/// assert_eq!(Blocks.cut(b"3\nabcdef", &mut state), Cut::message(b"3", 2));
/// assert_eq!(Blocks.cut(b"abcdef", &mut state), Cut::message(b"abc", 3));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FramingState {
    bytes: Vec<u8>,
}

impl FramingState {
    /// Most bytes of the state.
    pub const BYTES_MAX: usize = greenroom_state::abi::framing::CUSTOM_STATE_BYTES_MAX;

    /// Returns the bytes.
    pub fn get(&self) -> &[u8] {
        &self.bytes
    }

    /// Replaces the bytes. More than [`FramingState::BYTES_MAX`] close the session, as an answer
    /// that makes no sense does.
    pub fn set(&mut self, bytes: &[u8]) {
        self.bytes = bytes.to_vec();
    }
}
