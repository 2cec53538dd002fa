//! Functions of a turn for telnet sessions.
//!
//! Each gets, by the ABI, the turn of the run under way and arguments that are valid for the call.

use crate::plugin::ffi::bytes::slice;
use crate::plugin::ffi::under_way::staging;
use greenroom_state::abi::{self, Bytes, status};

/// Stages a verb about a telnet option.
pub(super) unsafe extern "C" fn negotiate(turn: *mut abi::Turn, verb: u32, option: u32) -> u32 {
    // SAFETY: see above.
    unsafe { staging(turn) }.map_or(status::INVALID, |s| s.negotiate(verb, option))
}

/// Stages a subnegotiation of a telnet option.
pub(super) unsafe extern "C" fn subnegotiate(turn: *mut abi::Turn, option: u32, data: Bytes<'_>) -> u32 {
    // SAFETY: see above.
    let (Some(s), data) = (unsafe { staging(turn) }, unsafe { slice(data) }) else { return status::INVALID };
    s.subnegotiate(option, data)
}

/// Stages a prompt.
pub(super) unsafe extern "C" fn prompt(turn: *mut abi::Turn, text: Bytes<'_>) -> u32 {
    // SAFETY: see above.
    let (Some(s), text) = (unsafe { staging(turn) }, unsafe { slice(text) }) else { return status::INVALID };
    s.prompt(text)
}
