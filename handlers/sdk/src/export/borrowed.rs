//! Bytes across the ABI: borrowed from the host, and handed to its sinks.

use crate::fault::Fault;
use greenroom_state::abi::{self, Bytes};

/// Borrows bytes that the host passed.
///
/// # Safety
/// `b` describes readable bytes that live and don't change for `'a`, or is empty.
pub(super) unsafe fn slice<'a>(b: Bytes<'_>) -> &'a [u8] {
    if b.len == 0 {
        return &[];
    }
    // SAFETY: the caller's promise; an empty one, whose pointer may be null, was dealt with.
    unsafe { std::slice::from_raw_parts(b.ptr, b.len) }
}

/// Puts a result into its sink, or the reason why there is none into the other. Returns 0 or 1,
/// as the ABI has it.
///
/// # Safety The sinks are valid.
pub(super) unsafe fn hand_over(outcome: Result<Vec<u8>, Fault>, result: abi::Sink, error: abi::Sink) -> u32 {
    match outcome {
        Ok(bytes) => {
            // SAFETY: the caller's promise; it copies the bytes.
            unsafe { (result.put)(result.ctx, bytes.as_slice().into()) };
            0
        }
        Err(fault) => {
            // SAFETY: the caller's promise; it copies the text.
            unsafe { (error.put)(error.ctx, fault.in_words().as_str().into()) };
            1
        }
    }
}
