//! Nesting of values: one bound for states, their JSON, and the text of that.
//!
//! A value of MessagePack has at most [`DEPTH_MAX`] levels. The SDK, edits and restores refuse a
//! deeper one, so a dump shows each state that was stored, and a restore takes it back.
//!
//! A level of MessagePack takes up to three levels of JSON: a map whose keys are no strings is a
//! list of pairs in a tag. The parser's own bound (128 levels) is too low for that, and without one
//! a text could use up the stack. So [`crate::parse`] counts the levels of a text while it is read.

/// Levels that a MessagePack value may have. A plain value has one, a list one more than the
/// deepest item in it. Bounds the stack that a conversion takes.
pub const DEPTH_MAX: usize = 128;

/// Levels of JSON that a text may have: three for each level of a value, and some for what is
/// around it in a dump.
pub(crate) const TEXT_DEPTH_MAX: usize = 3 * DEPTH_MAX + 8;

/// Reason to refuse a value that has too many levels.
pub fn too_deep() -> String {
    format!("it nests deeper than {DEPTH_MAX} levels")
}
