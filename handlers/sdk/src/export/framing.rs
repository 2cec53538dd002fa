//! Framing of a service, as the ABI has it: its number and parameters, or the author's functions.
//!
//! The functions are pure, so any thread may call them, also while a turn runs. Panics of the
//! author's code are caught and become error texts.

use crate::custom_framing::{CustomFraming, Cut, FramingState};
use crate::export::borrowed::{hand_over, slice};
use crate::fault::{self, Fault};
use crate::framing::{ByteOrder, Framing};
use crate::handler::Handler;
use greenroom_state::abi::{self, Bytes, framing};
use std::borrow::Cow;

/// Number, longest message and parameters of a framing, as the ABI has them. Bad values pass:
/// the host checks them, and its words reach the operator.
pub(super) fn framing_offer(framing: Framing) -> (u32, u32, &'static [u8]) {
    match framing {
        Framing::Lines { bytes_max } => (framing::LINES, bytes_max, &[]),
        Framing::Raw { bytes_max } => (framing::RAW, bytes_max, &[]),
        Framing::LengthPrefix { width, order, bytes_max } => {
            let parameters = vec![width, u8::from(order == ByteOrder::Little)];
            (framing::LENGTH_PREFIX, bytes_max, parameters.leak())
        }
        Framing::Delimiter { delimiter, bytes_max } => (framing::DELIMITER, bytes_max, delimiter),
        Framing::Prefixed { prefix, bytes_max } => {
            // Builds of one form must say it in one way, however it was written down.
            let used = if prefix.parameters[2..] == [0, 0] { 2 } else { 4 };
            (framing::LENGTH_PREFIX, bytes_max, prefix.parameters[..used].to_vec().leak())
        }
        Framing::Telnet { bytes_max } => (framing::TELNET, bytes_max, &[]),
        Framing::Datagrams { bytes_max } => (framing::DATAGRAMS, bytes_max, &[]),
        Framing::Peer { bytes_max } => (framing::PEER, bytes_max, &[]),
        Framing::WebSocket { bytes_max, protocols } => {
            (framing::WEBSOCKET, bytes_max, protocols.join(",").into_bytes().leak())
        }
        Framing::Custom { framing: own, bytes_max } => {
            (framing::CUSTOM, bytes_max, vec![own.version()].leak())
        }
    }
}

/// Framing of the author's own that one of a handler's endpoints has. There is at most one, as
/// the host refuses two endpoints of a kind.
pub(super) fn own_framing<H: Handler>() -> Option<&'static dyn CustomFraming> {
    let all = std::iter::once(H::FRAMING).chain(H::ENDPOINTS.iter().map(|e| e.framing));
    let mut own = all.filter_map(|f| match f {
        Framing::Custom { framing, .. } => Some(framing),
        _ => None,
    });
    own.next()
}

/// Cuts a message by the author's framing: [`abi::Service::cut`].
pub(super) unsafe extern "C" fn cut_ffi<H: Handler>(
    input: Bytes<'_>,
    frame: *mut abi::framing::FrameCut,
    message: abi::Sink,
    error: abi::Sink,
) -> u32 {
    let Some(own) = own_framing::<H>() else { return framing::cut::FAILED };
    // SAFETY: the input is valid for this call.
    let input = unsafe { slice(input) };
    // SAFETY: the frame is valid for this call, and nobody else uses it meanwhile.
    let frame = unsafe { &mut *frame };
    let mut state = FramingState::default();
    state.set(frame.state.get(..frame.state_len as usize).unwrap_or_default());
    let cut = fault::catch(|| {
        let cut = own.cut(input, &mut state);
        let kept = state.get();
        let to = frame.state.get_mut(..kept.len());
        to.ok_or_else(|| Fault::new(format!("its state has {} bytes", kept.len())))?.copy_from_slice(kept);
        frame.state_len = kept.len() as u32;
        Ok(cut)
    });
    // SAFETY: the sink is valid for this call, and copies the text.
    let tell = |why: &str| unsafe { (error.put)(error.ctx, why.into()) };
    match cut {
        Ok(Cut::More) => framing::cut::MORE,
        Ok(Cut::Skip { consumed }) => {
            frame.consumed = consumed;
            framing::cut::SKIPPED
        }
        Ok(Cut::Message { message: bytes, consumed }) => {
            frame.consumed = consumed;
            // A part of the input is told by its place; wherever else it lies, it is handed over.
            let at = (bytes.as_ptr() as usize).checked_sub(input.as_ptr() as usize);
            let within = at.filter(|at| matches!(input.len().checked_sub(*at), Some(n) if n >= bytes.len()));
            match (within, &bytes) {
                (Some(at), Cow::Borrowed(_)) => (frame.message_at, frame.message_len) = (at, bytes.len()),
                // SAFETY: the sink is valid for this call, and copies the message.
                _ => unsafe { (message.put)(message.ctx, (&*bytes).into()) },
            }
            framing::cut::MESSAGE
        }
        Ok(Cut::Invalid(why)) => {
            tell(&why);
            framing::cut::INVALID
        }
        Err(fault) => {
            tell(&fault.in_words());
            framing::cut::FAILED
        }
    }
}

/// Frames a message by the author's framing: [`abi::Service::encode`].
pub(super) unsafe extern "C" fn encode_ffi<H: Handler>(
    message: Bytes<'_>,
    result: abi::Sink,
    error: abi::Sink,
) -> u32 {
    // SAFETY: the message is valid for this call.
    let message = unsafe { slice(message) };
    let framed = fault::catch(|| {
        let own = own_framing::<H>().ok_or_else(|| Fault::new("the service has no framing of its own"))?;
        let mut framed = Vec::new();
        own.encode(message, &mut framed).map_err(Fault::new)?;
        Ok(framed)
    });
    // SAFETY: the sinks are valid for this call.
    unsafe { hand_over(framed, result, error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::Prefix;

    #[test]
    fn framings_have_their_numbers_and_parameters() {
        for (framing, expected) in [
            (Framing::Lines { bytes_max: 9 }, (1, 9, &b""[..])),
            (Framing::Raw { bytes_max: 9 }, (2, 9, b"")),
            (Framing::LengthPrefix { width: 2, order: ByteOrder::Big, bytes_max: 9 }, (3, 9, &[2, 0])),
            (Framing::LengthPrefix { width: 4, order: ByteOrder::Little, bytes_max: 9 }, (3, 9, &[4, 1])),
            (Framing::Delimiter { delimiter: b"\r\n.\r\n", bytes_max: 9 }, (4, 9, b"\r\n.\r\n")),
            (Framing::Telnet { bytes_max: 9 }, (5, 9, b"")),
            (Framing::WebSocket { bytes_max: 9, protocols: &[] }, (6, 9, b"")),
            (Framing::WebSocket { bytes_max: 9, protocols: &["a", "b.v1"] }, (6, 9, b"a,b.v1")),
            (Framing::Prefixed { prefix: Prefix::fixed(8, ByteOrder::Big), bytes_max: 9 }, (3, 9, &[8, 0])),
            (
                Framing::Prefixed { prefix: Prefix::base_128(4).behind(1), bytes_max: 9 },
                (3, 9, &[4, 2, 0, 1]),
            ),
            (
                Framing::Prefixed {
                    prefix: Prefix::fixed(2, ByteOrder::Little).counting_itself(),
                    bytes_max: 9,
                },
                (3, 9, &[2, 1, 1, 0]),
            ),
        ] {
            assert_eq!(framing_offer(framing), expected, "{framing:?}");
        }
    }
}
