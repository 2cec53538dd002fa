//! Carrier: what a session's stream stands behind, or in.

/// Bytes that stand before those of a session's stream, or around them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// The stream alone: no header is due, and the peer has sent a byte behind one that was.
    #[default]
    Plain,
    /// A PROXY header that is not whole yet.
    HeaderDue,
    /// A PROXY header that was read, and no byte behind it has come.
    FirstByteDue,
    /// Records of TLS: the session's counts of bytes are theirs.
    Tls,
}
