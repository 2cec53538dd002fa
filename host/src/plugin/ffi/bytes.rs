//! Bytes that cross the boundary: borrowed, lent, and handed over through a sink.

use greenroom_state::abi::{self, Bytes};
use std::ffi::c_void;

/// Borrows bytes that a library passed.
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

/// Sink for bytes that a library hands over. Valid while `into` lives and nobody else uses it.
/// The bytes are copied, so each side frees what it allocated. A second call replaces the bytes
/// of the first.
pub(super) fn sink(into: &mut Vec<u8>) -> abi::Sink {
    unsafe extern "C" fn put(ctx: *mut c_void, bytes: Bytes<'_>) {
        // SAFETY: `ctx` is the buffer that the sink was made of, and only this call has it.
        let into = unsafe { &mut *ctx.cast::<Vec<u8>>() };
        // SAFETY: the bytes are valid for this call.
        *into = unsafe { slice(bytes) }.to_vec();
    }
    abi::Sink { ctx: (into as *mut Vec<u8>).cast(), put }
}

/// Sink like [`sink`], whose caller learns whether anything was handed over.
pub(super) fn some_sink(into: &mut Option<Vec<u8>>) -> abi::Sink {
    unsafe extern "C" fn put(ctx: *mut c_void, bytes: Bytes<'_>) {
        // SAFETY: `ctx` is the place that the sink was made of, and only this call has it.
        let into = unsafe { &mut *ctx.cast::<Option<Vec<u8>>>() };
        // SAFETY: the bytes are valid for this call.
        *into = Some(unsafe { slice(bytes) }.to_vec());
    }
    abi::Sink { ctx: (into as *mut Option<Vec<u8>>).cast(), put }
}

/// Lends bytes of the staging area, which a library may read until its next call. The lifetime
/// of the result says more than that, because the ABI has no way to say less.
pub(super) fn lend(b: &[u8]) -> Bytes<'static> {
    Bytes { ptr: b.as_ptr(), len: b.len(), life: std::marker::PhantomData }
}

/// Reads a text of a table; `None`: the text is not UTF-8.
pub(super) fn text(b: Bytes<'static>) -> Option<&'static str> {
    // SAFETY: a table's texts live as long as the process.
    std::str::from_utf8(unsafe { slice(b) }).ok()
}
