//! Telnet: options and verbs by name, and the forms of the usual subnegotiations.
//!
//! The host negotiates by RFC 1143, unescapes and bounds what comes, and keeps what was agreed. A
//! handler says which options it wants, best in its first turn, and reads what their
//! subnegotiations say.
//!
//! Compression (MCCP) can't be had: the host does not compress. A peer that compresses would have a
//! state of many kilobytes, which each turn would change and each death would have to restore.

/// Bytes as they are in the direction where it is on (RFC 856). A line then ends in LF or CR LF.
pub const BINARY: u8 = 0;
/// Echo by the host: the peer doesn't show what is typed (RFC 857). See
/// [`crate::Turn::hide_input`].
pub const ECHO: u8 = 1;
/// No "go ahead" behind what the host sends (RFC 858).
pub const SUPPRESS_GO_AHEAD: u8 = 3;
/// Name of the terminal (RFC 1091).
pub const TERMINAL_TYPE: u8 = 24;
/// Mark behind a prompt (RFC 885).
pub const END_OF_RECORD: u8 = 25;
/// Size of the window (RFC 1073).
pub const WINDOW_SIZE: u8 = 31;
/// Character set (RFC 2066).
pub const CHARSET: u8 = 42;
/// Variables of a game (MSDP).
pub const MSDP: u8 = 69;
/// Facts about a game's server (MSSP).
pub const MSSP: u8 = 70;
/// Messages of a game, each a name and JSON (GMCP).
pub const GMCP: u8 = 201;

/// Subnegotiation of [`TERMINAL_TYPE`] that asks for the name.
pub const SEND_TERMINAL_TYPE: &[u8] = &[1];

/// Word of a telnet host about an option.
///
/// ```
/// use greenroom_handler::testing::TestHost;
/// use greenroom_handler::telnet::Verb;
/// use greenroom_handler::{Action, Endpoint, Handler, Result, Turn, handler, telnet};
///
/// struct Mud;
/// #[handler]
/// impl Handler for Mud {
///     const SERVICE: &'static str = "mud";
///     const ENDPOINTS: &'static [Endpoint] = &[Endpoint::telnet(4023)];
///     fn opened(&self, turn: &mut Turn) -> Result {
///         // At the peer's side.
///         turn.telnet_do(telnet::WINDOW_SIZE);
///         turn.telnet_do(telnet::TERMINAL_TYPE);
///         turn.telnet_do(telnet::CHARSET);
///         turn.telnet_do(telnet::BINARY);
///         // At ours.
///         for option in [telnet::GMCP, telnet::MSSP, telnet::MSDP, telnet::END_OF_RECORD] {
///             turn.telnet_will(option);
///         }
///         turn.telnet_wont(telnet::ECHO);
///         turn.telnet_wont(telnet::SUPPRESS_GO_AHEAD);
///         Ok(())
///     }
///     fn other(&self, turn: &mut Turn, action: Action) -> Result {
///         match action {
///             Action::Negotiated { option: telnet::TERMINAL_TYPE, verb: Verb::Will, .. } => {
///                 turn.subnegotiate(telnet::TERMINAL_TYPE, telnet::SEND_TERMINAL_TYPE);
///             }
///             Action::Negotiated { option: telnet::CHARSET, on: true, .. } => {
///                 turn.subnegotiate(telnet::CHARSET, telnet::request_charset(&["UTF-8"]));
///             }
///             Action::Subnegotiation { option: telnet::WINDOW_SIZE, bytes } => {
///                 let size = telnet::window_size(bytes);
///                 turn.send_line(format!("{size:?}"));
///             }
///             Action::Subnegotiation { option: telnet::TERMINAL_TYPE, bytes } => {
///                 turn.send_line(telnet::terminal_type(bytes).unwrap_or("unknown"));
///             }
///             Action::Subnegotiation { option: telnet::CHARSET, bytes } => {
///                 if let Ok(Some(name)) = telnet::agreed_charset(bytes) {
///                     turn.send_line(name);
///                 }
///             }
///             _ => {}
///         }
///         Ok(())
///     }
/// }
///
/// let mut host = TestHost::<Mud>::new("{}").unwrap();
/// let peer = host.open_by("telnet");
/// let verb = Verb::Will;
/// host.turn(peer, Action::Negotiated { option: telnet::TERMINAL_TYPE, verb, on: true });
/// for (option, bytes) in [
///     (telnet::WINDOW_SIZE, &[0, 80, 0, 24][..]),
///     (telnet::TERMINAL_TYPE, b"\0XTERM"),
///     (telnet::CHARSET, b"\x02UTF-8"),
/// ] {
///     host.turn(peer, Action::Subnegotiation { option, bytes });
/// }
/// assert_eq!(host.output(peer), "Some((80, 24))\nXTERM\nUTF-8\n");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Verb {
    /// Offers to turn it on, or says that it is on, on the speaker's own side.
    Will = 251,
    /// Refuses it, or says that it is off, on the speaker's own side.
    Wont = 252,
    /// Asks for it, or agrees to it, on the other side.
    Do = 253,
    /// Refuses it, or wants it off, on the other side.
    Dont = 254,
}

impl Verb {
    /// Reads a verb's byte; any other than three counts as `Dont`.
    pub(crate) fn from_byte(byte: u8) -> Verb {
        match byte {
            251 => Verb::Will,
            252 => Verb::Wont,
            253 => Verb::Do,
            _ => Verb::Dont,
        }
    }
}

/// Reads a subnegotiation of [`WINDOW_SIZE`]: columns and rows, of which 0 is unknown. `None`: it
/// is not one.
pub fn window_size(bytes: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *bytes else { return None };
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

/// Reads a subnegotiation of [`TERMINAL_TYPE`]: the name. `None`: it is not one, or not ASCII.
pub fn terminal_type(bytes: &[u8]) -> Option<&str> {
    let name = bytes.strip_prefix(&[0])?;
    std::str::from_utf8(name).ok().filter(|name| name.is_ascii())
}

/// Subnegotiation of [`CHARSET`] that asks the peer for one of these character sets, the best one
/// first.
pub fn request_charset(names: &[&str]) -> Vec<u8> {
    let mut bytes = vec![1];
    names.iter().for_each(|name| bytes.extend([b";", name.as_bytes()].concat()));
    bytes
}

/// Reads a subnegotiation of [`CHARSET`]: the character set that the peer agrees to; `Ok(None)`: it
/// refuses all. An error: it says something else.
pub fn agreed_charset(bytes: &[u8]) -> Result<Option<&str>, String> {
    match bytes {
        [2, name @ ..] => Ok(Some(std::str::from_utf8(name).map_err(|e| e.to_string())?)),
        [3] => Ok(None),
        [kind, ..] => Err(format!("a subnegotiation of kind {kind}")),
        [] => Err("an empty subnegotiation".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Examples of the RFCs, and what is none of them.
    #[test]
    fn the_usual_subnegotiations_are_read_and_written() {
        assert_eq!(window_size(&[0, 80, 1, 0]), Some((80, 256)));
        assert_eq!(window_size(&[0, 80, 0]), None);
        assert_eq!(terminal_type(b"\0XTERM"), Some("XTERM"));
        assert_eq!((terminal_type(b"\x01"), terminal_type(b"\0\xff")), (None, None));
        assert_eq!(request_charset(&["UTF-8", "US-ASCII"]), b"\x01;UTF-8;US-ASCII");
        assert_eq!(agreed_charset(b"\x02UTF-8"), Ok(Some("UTF-8")));
        assert_eq!(agreed_charset(b"\x03"), Ok(None));
        assert!(agreed_charset(b"\x01;X").is_err() && agreed_charset(b"").is_err());
        let verbs = [Verb::Will, Verb::Wont, Verb::Do, Verb::Dont];
        assert!(verbs.iter().all(|verb| Verb::from_byte(*verb as u8) == *verb));
    }
}
