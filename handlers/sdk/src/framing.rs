//! Framings of a service's streams, and the endpoints that use them.

use crate::custom_framing::CustomFraming;

/// Framing of a service's stream: how it is cut into messages, and how messages are sent.
///
/// Each send is one message. Bad parameters refuse the library, with the reason.
///
/// ```
/// use greenroom_handler::testing::TestHost;
/// use greenroom_handler::{Framing, Handler, Result, Turn, handler};
///
/// struct Echo;
/// #[handler]
/// impl Handler for Echo {
///     const SERVICE: &'static str = "echo";
///     const FRAMING: Framing = Framing::Delimiter { delimiter: b"\0", bytes_max: 4096 };
///     fn message(&self, turn: &mut Turn, message: &[u8]) -> Result {
///         turn.send_line(format!("{} bytes", message.len()));
///         Ok(())
///     }
/// }
///
/// let mut host = TestHost::<Echo>::new("{}").unwrap();
/// let peer = host.open();
/// host.send(peer, "one\0three\0f");
/// host.expect(peer, "3 bytes\n5 bytes\n");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Framing {
    /// Lines that end in LF or CRLF. A send goes out as it is.
    Lines {
        /// Longest line, in bytes, without its ending. A longer one closes the session.
        bytes_max: u32,
    },
    /// No framing: a message is whatever arrived, cut anywhere. A send goes out as it is.
    Raw {
        /// Longest message, in bytes. More becomes several.
        bytes_max: u32,
    },
    /// Messages behind their length, which does not count itself. A send goes out behind its
    /// length. Other forms of a length: [`Framing::Prefixed`].
    LengthPrefix {
        /// Bytes of the length: 1, 2, 4 or 8.
        width: u8,
        /// Byte order of the length.
        order: ByteOrder,
        /// Longest message, in bytes, without its length. A longer one closes the session.
        bytes_max: u32,
    },
    /// Messages behind a length of any form. A send goes out in the same form.
    Prefixed {
        /// Form of the length.
        prefix: Prefix,
        /// Longest message, in bytes, without its length. A longer one closes the session.
        bytes_max: u32,
    },
    /// Messages that end in a fixed string, which is no part of them. A send goes out with the
    /// delimiter behind it, and fails if it contains the delimiter.
    Delimiter {
        /// End of each message, 1 to 16 bytes.
        delimiter: &'static [u8],
        /// Longest message, in bytes, without its delimiter. A longer one closes the session.
        bytes_max: u32,
    },
    /// Lines over telnet. A line ends in CR LF, CR NUL or LF. A send goes out as text: LF becomes
    /// CR LF, and the byte 255 is doubled. Once BINARY is on for us, only the latter.
    ///
    /// Options that no turn has asked for are refused: [`crate::Turn::telnet_do`]. What the peer
    /// says of them comes as [`crate::Action::Negotiated`].
    Telnet {
        /// Longest line, in bytes, without its ending. A longer one closes the session.
        bytes_max: u32,
    },
    /// WebSocket: a message is text or bytes, whole. [`crate::Turn::send_line`] sends text, and
    /// [`crate::Turn::send`] bytes. A session opens with its HTTP request, of which
    /// [`crate::Turn::fact`] tells; [`crate::Handler::page`] answers any other GET.
    WebSocket {
        /// Longest message, in bytes, of all its fragments. A longer one closes the session.
        bytes_max: u32,
        /// Subprotocols that the service speaks, by name; 64 bytes of names and commas at most. The
        /// peer gets the first of those that it asks for.
        protocols: &'static [&'static str],
    },
    /// Datagrams over UDP, without sessions: each is an [`crate::Action::Datagram`] of the service
    /// itself ([`crate::Handler::handle_service`]), and nothing is kept of it.
    Datagrams {
        /// Longest datagram, in bytes. A longer one is dropped.
        bytes_max: u32,
    },
    /// Datagrams over UDP, with a session for each address that they come from. A datagram is a
    /// message, and each send is one; each at most once. A session ends after `idle_ms` without a
    /// datagram, or after a minute if that is off.
    Peer {
        /// Longest datagram, in bytes. A longer one is dropped.
        bytes_max: u32,
    },
    /// Framing of the author's own.
    Custom {
        /// Framing, a static.
        framing: &'static dyn CustomFraming,
        /// Longest message, in bytes, without its framing. A longer one closes the session.
        bytes_max: u32,
    },
}

/// Endpoint: a port with a framing. At most one of each kind, as operators name endpoints by
/// their kind. Its longest message is that of [`crate::Handler::FRAMING`].
///
/// ```
/// use greenroom_handler::testing::Conversation;
/// use greenroom_handler::{ByteOrder, Endpoint, Framing, Handler, Prefix, Result, Turn, handler};
///
/// struct Room;
/// #[handler]
/// impl Handler for Room {
///     const SERVICE: &'static str = "room";
///     const PORT: u16 = 4100;
///     const ENDPOINTS: &'static [Endpoint] = &[
///         Endpoint::telnet(4101),
///         // A peer that asks for the subprotocol `chat` gets it.
///         Endpoint::websocket(4102, &["chat"]),
///         Endpoint::udp_sessions(4103),
///         Endpoint::delimiter(4104, b"\0"),
///     ];
///     fn message(&self, turn: &mut Turn, _: &[u8]) -> Result {
///         let by = turn.fact("endpoint").unwrap_or_default();
///         turn.send_line(by);
///         Ok(())
///     }
/// }
///
/// Conversation::<Room>::new("{}").plays("
///     ann opens
///     ann says hello
///     ann hears line
///     bob opens telnet
///     bob says hello
///     bob hears telnet
///     eve opens ws
///     eve says hello
///     eve hears ws
/// ");
///
/// // The other kinds.
/// const MORE: [Endpoint; 6] = [
///     Endpoint::lines(4105),
///     Endpoint::raw(4106),
///     // Datagrams of the service itself, without sessions.
///     Endpoint::udp(4107),
///     // Two bytes of length, the high one first; or a length of any form.
///     Endpoint::length_prefix(4108, 2, ByteOrder::Big),
///     Endpoint::prefixed(4109, Prefix::base_128(4)),
///     Endpoint::new(4110, Framing::Telnet { bytes_max: 0 }),
/// ];
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// Port on loopback, unless the operator says otherwise; 0: none.
    pub(crate) port: u16,
    /// Framing of its streams.
    pub(crate) framing: Framing,
}

impl Endpoint {
    /// Endpoint with any framing, whose `bytes_max` is not used.
    pub const fn new(port: u16, framing: Framing) -> Endpoint {
        Endpoint { port, framing }
    }

    /// Endpoint of lines that end in LF or CRLF.
    pub const fn lines(port: u16) -> Endpoint {
        Endpoint::new(port, Framing::Lines { bytes_max: 0 })
    }

    /// Endpoint of datagrams over UDP, without sessions ([`Framing::Datagrams`]).
    pub const fn udp(port: u16) -> Endpoint {
        Endpoint::new(port, Framing::Datagrams { bytes_max: 0 })
    }

    /// Endpoint of datagrams over UDP, with a session for each peer ([`Framing::Peer`]).
    pub const fn udp_sessions(port: u16) -> Endpoint {
        Endpoint::new(port, Framing::Peer { bytes_max: 0 })
    }

    /// Endpoint of bytes as they arrive.
    pub const fn raw(port: u16) -> Endpoint {
        Endpoint::new(port, Framing::Raw { bytes_max: 0 })
    }

    /// Endpoint of lines over telnet.
    pub const fn telnet(port: u16) -> Endpoint {
        Endpoint::new(port, Framing::Telnet { bytes_max: 0 })
    }

    /// Endpoint of WebSocket messages, which speaks these subprotocols.
    pub const fn websocket(port: u16, protocols: &'static [&'static str]) -> Endpoint {
        Endpoint::new(port, Framing::WebSocket { protocols, bytes_max: 0 })
    }

    /// Endpoint of messages behind their length: `width` is 1, 2, 4 or 8 bytes.
    pub const fn length_prefix(port: u16, width: u8, order: ByteOrder) -> Endpoint {
        Endpoint::new(port, Framing::LengthPrefix { width, order, bytes_max: 0 })
    }

    /// Endpoint of messages behind a length of any form.
    pub const fn prefixed(port: u16, prefix: Prefix) -> Endpoint {
        Endpoint::new(port, Framing::Prefixed { prefix, bytes_max: 0 })
    }

    /// Endpoint of a framing of the author's own; a service has at most one such framing.
    ///
    /// ```
    /// use greenroom_handler::{CustomFraming, Cut, Endpoint, FramingState};
    ///
    /// /// Each byte is a message.
    /// struct Keys;
    /// impl CustomFraming for Keys {
    ///     fn cut<'i>(&self, input: &'i [u8], _: &mut FramingState) -> Cut<'i> {
    ///         input.first_chunk().map_or(Cut::More, |key: &[u8; 1]| Cut::message(key, 1))
    ///     }
    ///     fn encode(&self, message: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    ///         out.extend_from_slice(message);
    ///         Ok(())
    ///     }
    /// }
    ///
    /// const KEYS: Endpoint = Endpoint::custom(4111, &Keys);
    /// assert_eq!(KEYS, Endpoint::custom(4111, &Keys));
    /// ```
    pub const fn custom(port: u16, framing: &'static dyn CustomFraming) -> Endpoint {
        Endpoint::new(port, Framing::Custom { framing, bytes_max: 0 })
    }

    /// Endpoint of messages that end in a fixed string of 1 to 16 bytes.
    pub const fn delimiter(port: u16, delimiter: &'static [u8]) -> Endpoint {
        Endpoint::new(port, Framing::Delimiter { delimiter, bytes_max: 0 })
    }
}

/// Byte order of a number.
///
/// ```
/// use greenroom_handler::{ByteOrder, Endpoint};
///
/// // 00 05 h e l l o
/// const BIG: Endpoint = Endpoint::length_prefix(4108, 2, ByteOrder::Big);
/// // 05 00 h e l l o
/// const LITTLE: Endpoint = Endpoint::length_prefix(4108, 2, ByteOrder::Little);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteOrder {
    /// Most significant byte first, as network protocols mostly have it.
    Big,
    /// Least significant byte first.
    Little,
}

/// Form of a length before each message, for [`Framing::Prefixed`].
///
/// ```
/// use greenroom_handler::{ByteOrder, Framing, Prefix};
///
/// // MQTT: a byte that is the message's first, then the length of the rest in base-128.
/// const PACKET: Prefix = Prefix::base_128(4).behind(1);
/// const MQTT: Framing = Framing::Prefixed { prefix: PACKET, bytes_max: 65_536 };
/// // PostgreSQL: a byte, then a length that counts its own four bytes.
/// const TYPED: Prefix = Prefix::fixed(4, ByteOrder::Big).counting_itself().behind(1);
/// const POSTGRES: Framing = Framing::Prefixed { prefix: TYPED, bytes_max: 65_536 };
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// Parameters of the ABI.
    pub(crate) parameters: [u8; 4],
}

impl Prefix {
    /// Length in 1, 2, 4 or 8 bytes.
    pub const fn fixed(width: u8, order: ByteOrder) -> Prefix {
        Prefix { parameters: [width, matches!(order, ByteOrder::Little) as u8, 0, 0] }
    }

    /// Length in base-128, as LEB128 and MQTT have it: seven bits in each byte, the low ones first.
    /// `bytes_max`: the most bytes of a length, 1 to 10.
    pub const fn base_128(bytes_max: u8) -> Prefix {
        Prefix { parameters: [bytes_max, 2, 0, 0] }
    }

    /// Has the length count its own bytes.
    pub const fn counting_itself(self) -> Prefix {
        let [width, order, _, before] = self.parameters;
        Prefix { parameters: [width, order, 1, before] }
    }

    /// Has so many bytes stand before the length, at most 16. They are the message's first bytes,
    /// and the length does not count them.
    pub const fn behind(self, bytes: u8) -> Prefix {
        let [width, order, itself, _] = self.parameters;
        Prefix { parameters: [width, order, itself, bytes] }
    }
}
