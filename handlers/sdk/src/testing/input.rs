//! Input of a peer in a test, cut into messages as its endpoint's framing has it.

use crate::custom_framing::{Cut, FramingState};
use crate::framing::{ByteOrder, Framing};

/// Kind of an endpoint, as operators and [`crate::Turn::fact`] name it.
pub(super) fn kind(framing: &Framing) -> &'static str {
    match framing {
        Framing::Lines { .. } => "line",
        Framing::Raw { .. } => "raw",
        Framing::LengthPrefix { .. } | Framing::Prefixed { .. } => "prefix",
        Framing::Delimiter { .. } => "delimiter",
        Framing::Telnet { .. } => "telnet",
        Framing::WebSocket { .. } => "ws",
        Framing::Datagrams { .. } => "datagram",
        Framing::Peer { .. } => "peer",
        Framing::Custom { .. } => "custom",
    }
}

/// Takes the next message off the input; `None`: none is whole. Framings that are not played here
/// make a message of all that is there.
pub(super) fn next(
    framing: &Framing,
    input: &mut Vec<u8>,
    state: &mut FramingState,
) -> Option<Result<Vec<u8>, String>> {
    if input.is_empty() {
        return None;
    }
    let (message, consumed) = match framing {
        Framing::Lines { .. } | Framing::Telnet { .. } => {
            let end = input.iter().position(|byte| *byte == b'\n')?;
            let line = &input[..end];
            (line.strip_suffix(b"\r").unwrap_or(line).to_vec(), end + 1)
        }
        Framing::Delimiter { delimiter, .. } => {
            let end = input.windows(delimiter.len()).position(|bytes| bytes == *delimiter)?;
            (input[..end].to_vec(), end + delimiter.len())
        }
        Framing::LengthPrefix { width, order, .. } => {
            let width = usize::from(*width);
            let head = input.get(..width)?;
            let add = |sum: usize, byte: &u8| sum << 8 | usize::from(*byte);
            let len = match order {
                ByteOrder::Big => head.iter().fold(0, add),
                ByteOrder::Little => head.iter().rev().fold(0, add),
            };
            (input.get(width..width.checked_add(len)?)?.to_vec(), width + len)
        }
        Framing::Custom { framing: own, .. } => match own.cut(input, state) {
            Cut::More => return None,
            Cut::Message { message, consumed } => (message.into_owned(), consumed),
            Cut::Skip { consumed } => {
                input.drain(..consumed.clamp(1, input.len()));
                return next(framing, input, state);
            }
            Cut::Invalid(why) => return Some(Err(why)),
        },
        _ => (input.clone(), input.len()),
    };
    input.drain(..consumed);
    Some(Ok(message))
}
