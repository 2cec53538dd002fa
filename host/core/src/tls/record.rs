//! Records of TLS: header, kinds of content, alerts (RFC 8446, RFC 5246).

/// Bytes of a record's header: kind, version, length of the body.
pub const HEADER_BYTES: usize = 5;
/// Most bytes of content in one record.
pub const CONTENT_BYTES_MAX: usize = 1 << 14;

/// Number of TLS 1.2, which all records name, those of TLS 1.3 included.
pub const TLS_1_2: u16 = 0x0303;
/// Number of TLS 1.3.
pub const TLS_1_3: u16 = 0x0304;

/// Kinds of content.
pub mod kind {
    /// Alert: level and description.
    pub const ALERT: u8 = 21;
    /// Messages of a handshake, which also come behind it.
    pub const HANDSHAKE: u8 = 22;
    /// Bytes of the application.
    pub const DATA: u8 = 23;
}

/// Descriptions of alerts.
pub mod alert {
    /// Orderly end of the peer's side.
    pub const CLOSE_NOTIFY: u8 = 0;
    /// Content that does not belong here.
    pub const UNEXPECTED_MESSAGE: u8 = 10;
    /// Record that does not open.
    pub const BAD_RECORD_MAC: u8 = 20;
    /// Record that is too long.
    pub const RECORD_OVERFLOW: u8 = 22;
    /// Failure of the host's own.
    pub const INTERNAL_ERROR: u8 = 80;
    /// Handshake that was given up before its end.
    pub const USER_CANCELED: u8 = 90;
    /// Refusal of another handshake in TLS 1.2.
    pub const NO_RENEGOTIATION: u8 = 100;
}

/// Level of alerts that end nothing.
pub const WARNING: u8 = 1;
/// Level of all other alerts.
pub const FATAL: u8 = 2;

/// Head of a record that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Kind that the header names.
    pub kind: u8,
    /// Bytes of the body.
    pub len: usize,
}

impl Head {
    /// Reads a header of a connection in this version. `None`: more bytes are wanted. Fails with
    /// the alert that refuses the record: garbage must not be waited for.
    pub fn read(version: u16, input: &[u8]) -> Option<Result<Head, u8>> {
        let [kind, major, minor, high, low] = *input.first_chunk::<HEADER_BYTES>()?;
        // Behind the handshake of TLS 1.3 every record says that it holds data.
        let is_known = match version {
            TLS_1_3 => kind == kind::DATA,
            _ => matches!(kind, kind::ALERT | kind::HANDSHAKE | kind::DATA),
        };
        if !is_known || [major, minor] != TLS_1_2.to_be_bytes() {
            return Some(Err(alert::UNEXPECTED_MESSAGE));
        }
        let more = if version == TLS_1_3 { 256 } else { 2048 };
        let len = usize::from(u16::from_be_bytes([high, low]));
        match len > CONTENT_BYTES_MAX + more {
            true => Some(Err(alert::RECORD_OVERFLOW)),
            false => Some(Ok(Head { kind, len })),
        }
    }
}
