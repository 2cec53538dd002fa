//! Functions of a turn for token buckets, random numbers and numbers of the host.
//!
//! Each gets, by the ABI, the turn of the run under way and arguments that are valid for the call.

use crate::plugin::ffi::bytes::slice;
use crate::plugin::ffi::under_way::staging;
use greenroom_core::turn::host_numbers::HostNumbers;
use greenroom_state::abi::{self, Bytes, status};

/// Stages a token of a key's bucket.
pub(super) unsafe extern "C" fn allow(
    turn: *mut abi::Turn,
    key: Bytes<'_>,
    interval_ns: u64,
    burst: u32,
) -> u32 {
    // SAFETY: see above.
    let (Some(s), key) = (unsafe { staging(turn) }, unsafe { slice(key) }) else { return status::INVALID };
    s.allow(key, interval_ns, burst)
}

/// Next random number of the turn; 0 outside a turn.
pub(super) unsafe extern "C" fn random(turn: *mut abi::Turn) -> u64 {
    // SAFETY: see above.
    unsafe { staging(turn) }.map_or(0, |s| s.random())
}

/// Writes numbers of the host, as many bytes as the library has room for.
pub(super) unsafe extern "C" fn stats(turn: *mut abi::Turn, stats: *mut abi::Stats) -> u32 {
    // SAFETY: see above.
    let Some(s) = (unsafe { staging(turn) }) else { return status::INVALID };
    // SAFETY: the library has set the size, which is the first field of every version.
    let size = unsafe { (*stats).size };
    let all = numbers(size, s.host_numbers());
    let len = (size as usize).min(size_of::<abi::Stats>());
    // SAFETY: the library's struct has `size` bytes, and this one at least `len`.
    unsafe { std::ptr::copy_nonoverlapping((&raw const all).cast::<u8>(), stats.cast::<u8>(), len) };
    status::OK
}

/// Numbers as the ABI has them.
fn numbers(size: u32, of: HostNumbers) -> abi::Stats {
    let HostNumbers { sessions, service_sessions, turns, faults, generation, .. } = of;
    let HostNumbers { uptime_ns, store_bytes, store_bytes_max, .. } = of;
    abi::Stats {
        size,
        reserved: 0,
        sessions,
        service_sessions,
        turns,
        faults,
        generation,
        uptime_ns,
        store_bytes,
        store_bytes_max,
    }
}
