//! Stage of a session that a PROXY header begins.

/// Place of a session before or behind its PROXY header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Proxied {
    /// No header is due, and the peer has sent a byte behind one that was.
    #[default]
    No,
    /// The header is not whole yet.
    HeaderDue,
    /// The header was read, and no byte behind it has come.
    FirstByteDue,
}
