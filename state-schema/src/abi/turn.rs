//! Turn under way.

/// The host's record of the batch under way; a library only passes it back.
#[repr(C)]
pub struct Turn {
    _opaque: [u8; 0],
}
