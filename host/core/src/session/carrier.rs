//! Carrier: what a session's stream stands behind, or in.

/// Bytes that stand before those of a session's stream, or around them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// The stream alone: no header is due, and the peer has sent a byte behind one that was.
    #[default]
    Plain,
    /// A PROXY header that is not whole yet. `tls`: a handshake follows it.
    HeaderDue {
        /// Whether TLS is due behind it.
        tls: bool,
    },
    /// A PROXY header that was read, and no byte behind it has come.
    FirstByteDue,
    /// A stream that ends with its output so far; a handshake of TLS follows.
    TlsDue,
    /// Records of TLS: the session's counts of bytes are theirs.
    Tls,
}
