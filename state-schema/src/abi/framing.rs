//! Framing of a service's stream ([`super::Service::framing`]): how it is cut into messages, and
//! how messages are sent.

/// Lines that end in LF or CRLF; neither is part of the message. Bytes, not text.
pub const LINES: u32 = 1;
/// Since 1.2. None: a message is whatever arrived, up to [`super::Service::frame_bytes_max`].
pub const RAW: u32 = 2;
/// Since 1.3. Messages behind their length. Two parameters: its width, 1, 2 or 4 bytes, and 0 for
/// big endian or 1 for little endian. Since 1.4 also a width of 8, and 2 for base-128 with the low
/// bits first, whose width is the most bytes that it has, 1 to 10. Since 1.4 two more may follow:
/// 1 if the length counts its own bytes, else 0; and the bytes before it, at most 16, which it
/// never counts and which are the message's first.
pub const LENGTH_PREFIX: u32 = 3;
/// Since 1.3. Messages that end in a fixed string. The parameters are that string, 1 to 16 bytes.
pub const DELIMITER: u32 = 4;
/// Since 1.3. Lines between telnet commands, unescaped. An option that no turn asks for
/// ([`super::Host::negotiate`]) is refused.
pub const TELNET: u32 = 5;
/// Since 1.4. Messages that the library cuts and frames: [`super::Service::cut`],
/// [`super::Service::encode`]. One parameter, or none for 0: the version of the state that it
/// keeps. A build of another version begins anew with each session.
pub const CUSTOM: u32 = 7;

/// Most bytes of state that a library's framing keeps for a session.
pub const CUSTOM_STATE_BYTES_MAX: usize = 32;

/// Message that [`super::Service::cut`] cuts.
#[repr(C)]
pub struct FrameCut {
    /// Size of this struct.
    pub size: u32,
    /// Bytes in use of `state`.
    pub state_len: u32,
    /// State that the framing keeps for the session; read, and changed in place. A change counts if
    /// input is consumed.
    pub state: [u8; CUSTOM_STATE_BYTES_MAX],
    /// Bytes of the input that the message takes, at least 1; or that are skipped.
    pub consumed: usize,
    /// Place of the message in the input. Of no meaning if it was put into the sink.
    pub message_at: usize,
    /// Bytes of the message, likewise.
    pub message_len: usize,
}

/// Answers of [`super::Service::cut`].
pub mod cut {
    /// No message is whole.
    pub const MORE: u32 = 0;
    /// A message.
    pub const MESSAGE: u32 = 1;
    /// Bytes that are no message were skipped.
    pub const SKIPPED: u32 = 2;
    /// The input breaks the rules of the framing, for the reason in `error`: the session is closed.
    pub const INVALID: u32 = 3;
    /// The framing itself failed, for the reason in `error`: the session is closed, and the failure
    /// counts as a turn's does.
    pub const FAILED: u32 = 4;
}

/// Since 1.4. WebSocket behind its HTTP request: a message is text or bytes, whole. The parameters
/// are the subprotocols that the service speaks, as UTF-8 with commas between; none: it names none.
/// Sessions open with their request, and [`super::action::PAGE`] answers any other GET.
pub const WEBSOCKET: u32 = 6;

/// Since 1.4. Datagrams over UDP, without sessions: each is an [`super::action::DATAGRAM`] of the
/// service itself.
pub const DATAGRAMS: u32 = 8;
/// Since 1.4. Datagrams over UDP, with a session for each address that they come from. A datagram
/// is a message, and so is what a send makes.
pub const PEER: u32 = 9;

/// Most bytes of [`super::Service::framing_parameters`].
pub const PARAMETERS_BYTES_MAX: usize = 64;
