//! Framing of a service's stream ([`super::Service::framing`]): how it is cut into messages, and
//! how messages are sent.

/// Lines that end in LF or CRLF; neither is part of the message. Bytes, not text.
pub const LINES: u32 = 1;
/// Since 1.2. None: a message is whatever arrived, up to [`super::Service::frame_bytes_max`].
pub const RAW: u32 = 2;
/// Since 1.3. Messages behind their length, which does not count itself. Two parameters: its width,
/// 1, 2 or 4 bytes, and 0 for big endian or 1 for little endian.
pub const LENGTH_PREFIX: u32 = 3;
/// Since 1.3. Messages that end in a fixed string. The parameters are that string, 1 to 16 bytes.
pub const DELIMITER: u32 = 4;
/// Since 1.3. Lines between telnet commands: the host refuses every option, and unescapes messages.
pub const TELNET: u32 = 5;

/// Since 1.4. WebSocket behind its HTTP request: a message is text or bytes, whole. The parameters
/// are the subprotocols that the service speaks, as UTF-8 with commas between; none: it names none.
/// Sessions open with their request, and [`super::action::PAGE`] answers any other GET.
pub const WEBSOCKET: u32 = 6;

/// Most bytes of [`super::Service::framing_parameters`].
pub const PARAMETERS_BYTES_MAX: usize = 64;
