//! Bytes that one side lends the other for a call.

use std::ffi::c_void;
use std::marker::PhantomData;

/// Borrowed bytes. `ptr` may be null when `len` is 0.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Bytes<'a> {
    /// The first byte.
    pub ptr: *const u8,
    /// Number of them.
    pub len: usize,
    /// Rust's side of the promise that they outlive the call.
    pub life: PhantomData<&'a [u8]>,
}

impl<'a> From<&'a [u8]> for Bytes<'a> {
    fn from(b: &'a [u8]) -> Self {
        Bytes { ptr: b.as_ptr(), len: b.len(), life: PhantomData }
    }
}

impl<'a> From<&'a str> for Bytes<'a> {
    fn from(s: &'a str) -> Self {
        s.as_bytes().into()
    }
}

impl Bytes<'_> {
    /// No bytes.
    pub const EMPTY: Bytes<'static> = Bytes { ptr: std::ptr::null(), len: 0, life: PhantomData };
}

/// Sink for bytes that the caller keeps: a function calls `put(ctx, bytes)` at most once.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Sink {
    /// The caller's, passed back as it is.
    pub ctx: *mut c_void,
    /// Copies the bytes before it returns.
    pub put: unsafe extern "C" fn(ctx: *mut c_void, bytes: Bytes<'_>),
}
