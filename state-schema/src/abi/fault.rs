//! Kinds of faults ([`Fault::kind`]).

use super::bytes::Bytes;

/// The callback returned an error.
pub const ERROR: u32 = 1;
/// The callback panicked.
pub const PANIC: u32 = 2;
/// The session's stored state could not be read or migrated: the action was not run, and is kept.
pub const STATE: u32 = 3;
/// Since 1.8. No failure: what becomes of a dialogue, in the turn of
/// [`super::action::DIALOGUE`]. The message is JSON: [`crate::dialogue_report::Retraced`].
pub const DIALOGUE: u32 = 4;

/// Fault: the reason why a turn failed.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Fault<'a> {
    /// Size of this struct.
    pub size: u32,
    /// Number from [`self`].
    pub kind: u32,
    /// Description, in words.
    pub message: Bytes<'a>,
    /// Source file, when known.
    pub file: Bytes<'a>,
    /// Line in it, from 1; 0: unknown.
    pub line: u32,
}
