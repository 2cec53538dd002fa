//! Turn under way: what the host's functions get back of it.

use crate::memory::board::Board;
use crate::plugin::ffi::bytes::slice;
use greenroom_core::turn::staging::Staging;
use greenroom_state::abi::{self, Bytes, status};

/// Turn under way, as the host's functions get it back. Lives on the stack of the call that
/// runs the batch.
pub(super) struct TurnUnderWay<'s, 'a> {
    /// Staging area of the batch.
    pub(super) staging: &'s mut Staging<'a>,
    /// Board, which notes each turn that is done.
    pub(super) board: Board,
}

/// Staging area behind a turn.
///
/// # Safety
/// The promise of [`under_way`] holds.
pub(super) unsafe fn staging<'a>(turn: *mut abi::Turn) -> Option<&'a mut Staging<'a>> {
    // SAFETY: the caller's promise.
    unsafe { under_way(turn) }.map(|r| &mut *r.staging)
}

/// Turn under way behind a pointer.
///
/// # Safety
/// `turn` is what an instance passed to the run under way, or null.
pub(super) unsafe fn under_way<'a>(turn: *mut abi::Turn) -> Option<&'a mut TurnUnderWay<'a, 'a>> {
    // SAFETY: the caller's promise; one thread runs the turn, so nobody else holds a reference.
    unsafe { turn.cast::<TurnUnderWay<'a, 'a>>().as_mut() }
}

/// Runs `f` with the staging area and a name. Returns `INVALID` without a turn, or if the name
/// is not UTF-8.
///
/// # Safety
/// The promises of [`staging`] and [`slice`] hold.
pub(super) unsafe fn with_name(
    turn: *mut abi::Turn,
    name: Bytes<'_>,
    f: impl FnOnce(&mut Staging<'_>, &str) -> u32,
) -> u32 {
    // SAFETY: the caller's promise.
    let Some(s) = (unsafe { staging(turn) }) else { return status::INVALID };
    // SAFETY: the caller's promise.
    match std::str::from_utf8(unsafe { slice(name) }) {
        Ok(name) => f(s, name),
        Err(_) => status::INVALID,
    }
}
