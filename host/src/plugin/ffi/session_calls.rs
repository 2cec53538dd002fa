//! Functions of a turn for other sessions: notes, wakes, sends, ends, and the names that they hold.
//!
//! Each gets, by the ABI, the turn of the run under way and arguments that are valid for the call.

use crate::plugin::ffi::bytes::{lend, slice};
use crate::plugin::ffi::topic_calls::ways;
use crate::plugin::ffi::under_way::staging;
use greenroom_state::abi::{self, Bytes, status};

/// Stages a note to a session, this one or another.
pub(super) unsafe extern "C" fn note(turn: *mut abi::Turn, session: u64, data: Bytes<'_>) -> u32 {
    // SAFETY: see above.
    let (Some(s), data) = (unsafe { staging(turn) }, unsafe { slice(data) }) else { return status::INVALID };
    s.note(session, data)
}

/// Stages a wake of a session, this one or another.
pub(super) unsafe extern "C" fn wake(turn: *mut abi::Turn, session: u64) -> u32 {
    // SAFETY: see above.
    unsafe { staging(turn) }.map_or(status::INVALID, |s| s.wake(session))
}

/// Stages bytes for the peer of a session, this one or another.
pub(super) unsafe extern "C" fn send_to(
    turn: *mut abi::Turn,
    session: u64,
    data: Bytes<'_>,
    flags: u32,
) -> u32 {
    // SAFETY: see above.
    let (Some(s), Some(how)) = (unsafe { staging(turn) }, ways(flags)) else { return status::INVALID };
    // SAFETY: see above.
    s.send_to(session, unsafe { slice(data) }, how)
}

/// Stages the end of a session, this one or another.
pub(super) unsafe extern "C" fn close_session(turn: *mut abi::Turn, session: u64) -> u32 {
    // SAFETY: see above.
    unsafe { staging(turn) }.map_or(status::INVALID, |s| s.close_session(session))
}

/// Stages that the session takes a name. Writes who held it only if that is accepted.
pub(super) unsafe extern "C" fn register_name(
    turn: *mut abi::Turn,
    name: Bytes<'_>,
    before: *mut u64,
) -> u32 {
    // SAFETY: see above.
    let (Some(s), name) = (unsafe { staging(turn) }, unsafe { slice(name) }) else { return status::INVALID };
    match s.register(name) {
        Ok(holder) => {
            // SAFETY: see above.
            unsafe { before.write(holder.unwrap_or(0)) };
            status::OK
        }
        Err(status) => status,
    }
}

/// Stages that the session gives up a name.
pub(super) unsafe extern "C" fn unregister_name(turn: *mut abi::Turn, name: Bytes<'_>) -> u32 {
    // SAFETY: see above.
    let name = unsafe { slice(name) };
    // SAFETY: see above.
    unsafe { staging(turn) }.map_or(status::INVALID, |s| s.unregister(name))
}

/// Session that holds a name; 0: nobody does.
pub(super) unsafe extern "C" fn whereis(turn: *mut abi::Turn, name: Bytes<'_>) -> u64 {
    // SAFETY: see above.
    let name = unsafe { slice(name) };
    // SAFETY: see above.
    unsafe { staging(turn) }.and_then(|s| s.whereis(name)).unwrap_or(0)
}

/// Lends the next name at or after `from`, and returns its holder; 0: there is none.
pub(super) unsafe extern "C" fn name_next(
    turn: *mut abi::Turn,
    from: Bytes<'_>,
    name: *mut Bytes<'static>,
) -> u64 {
    // SAFETY: see above.
    let (Some(s), from) = (unsafe { staging(turn) }, unsafe { slice(from) }) else { return 0 };
    let Some((found, holder)) = s.name_next(from) else { return 0 };
    // SAFETY: see above.
    unsafe { name.write(lend(found)) };
    holder
}

/// Stages a wake of the session once its output is sent.
pub(super) unsafe extern "C" fn wake_when_drained(turn: *mut abi::Turn) -> u32 {
    // SAFETY: see above.
    unsafe { staging(turn) }.map_or(status::INVALID, |s| s.wake_when_drained())
}

/// Bytes of output that were not sent when the batch began.
pub(super) unsafe extern "C" fn unsent(turn: *mut abi::Turn) -> u64 {
    // SAFETY: see above.
    unsafe { staging(turn) }.map_or(0, |s| s.unsent())
}

/// Next open session of the service; 0: there is none.
pub(super) unsafe extern "C" fn session_next(turn: *mut abi::Turn, after: u64) -> u64 {
    // SAFETY: see above.
    unsafe { staging(turn) }.and_then(|s| s.session_next(after)).unwrap_or(0)
}

/// Stages a bound of the messages that the session's peer may send.
pub(super) unsafe extern "C" fn frame_max(turn: *mut abi::Turn, bytes: u32) -> u32 {
    // SAFETY: see above.
    unsafe { staging(turn) }.map_or(status::INVALID, |s| s.frame_max(bytes))
}

/// Stages a silence of the session's peer that the session is told of.
pub(super) unsafe extern "C" fn idle_after(turn: *mut abi::Turn, after_ns: u64) -> u32 {
    // SAFETY: see above.
    unsafe { staging(turn) }.map_or(status::INVALID, |s| s.idle_after(after_ns))
}
