//! Functions of a turn for streams: connections that the host makes, and TLS on one in use.
//!
//! Each gets, by the ABI, the turn of the run under way and arguments that are valid for the call.

use crate::plugin::ffi::bytes::slice;
use crate::plugin::ffi::under_way::with_name;
use greenroom_core::turn::staging::Staging;
use greenroom_state::abi::{self, Bytes, status};

/// Stages an outbound connection. Writes its number only if that is accepted.
pub(super) unsafe extern "C" fn connect(
    turn: *mut abi::Turn,
    service: Bytes<'_>,
    addr: Bytes<'_>,
    context: Bytes<'_>,
    number: *mut u64,
) -> u32 {
    // SAFETY: see above.
    unsafe { connect_to(turn, service, (addr, None), context, number) }
}

/// Stages an outbound connection over TLS, like [`connect`].
pub(super) unsafe extern "C" fn connect_tls(
    turn: *mut abi::Turn,
    service: Bytes<'_>,
    addr: Bytes<'_>,
    server_name: Bytes<'_>,
    context: Bytes<'_>,
    number: *mut u64,
) -> u32 {
    // SAFETY: see above.
    let Ok(name) = std::str::from_utf8(unsafe { slice(server_name) }) else { return status::INVALID };
    // SAFETY: see above.
    unsafe { connect_to(turn, service, (addr, Some(name)), context, number) }
}

/// Stages an outbound connection: address, and the server's name over TLS.
///
/// # Safety
///
/// The caller keeps to the conditions of [`connect`].
unsafe fn connect_to(
    turn: *mut abi::Turn,
    service: Bytes<'_>,
    (addr, over_tls): (Bytes<'_>, Option<&str>),
    context: Bytes<'_>,
    number: *mut u64,
) -> u32 {
    // SAFETY: see above.
    let context = unsafe { slice(context) };
    // SAFETY: see above.
    let Ok(addr) = std::str::from_utf8(unsafe { slice(addr) }) else { return status::INVALID };
    let connect = |s: &mut Staging<'_>, service: &str| match s.connect(service, addr, over_tls, context) {
        Ok(staged) => {
            // SAFETY: see above.
            unsafe { number.write(staged) };
            status::OK
        }
        Err(status) => status,
    };
    // SAFETY: see above.
    unsafe { with_name(turn, service, connect) }
}

/// Stages that the session's stream becomes one of TLS.
pub(super) unsafe extern "C" fn start_tls(turn: *mut abi::Turn, server_name: Bytes<'_>) -> u32 {
    // SAFETY: see above.
    unsafe { with_name(turn, server_name, |s, name| s.start_tls(name)) }
}
