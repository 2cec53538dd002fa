//! Framing: cuts a stream of bytes into messages, and frames what is sent.
//!
//! A cut is a pure function of the unconsumed bytes and of a little state. Both are stored with
//! the session, so a reload or a crash in the middle of a message needs nothing else. Cutting
//! the stream in other places changes no message and no reply; `raw` alone follows the places
//! of the cuts.
//!
//! | file | framing |
//! | --- | --- |
//! | [`frame`] | results of a cut, and the state between two |
//! | [`custom`] | answers of a library's own framing |
//! | [`delimiter`] | messages that end in a fixed string |
//! | [`length_prefix`] | messages behind their length |
//! | [`peer`] | datagrams of one peer |
//! | `lines` | lines that end in LF or CRLF |
//! | [`proxy_header`] | no framing: the header before the stream, which names the client |
//! | `raw` | whatever arrived |
//! | `scan` | place of a search in a message of WebSocket |
//! | `telnet` | lines between telnet commands |
//! | `websocket` | messages of WebSocket, behind an HTTP request |
//!
//! Costs: each byte is searched once, as long as the session keeps
//! [`frame::FrameState::searched`]. Messages are slices of the input, but for telnet lines with
//! commands in them. A message longer than its `bytes_max` ends the stream: behind it no
//! framing knows where the next message begins.
//!
//! A new framing is a file with `cut`, its parameters and its unit tests, and with `encode` if
//! it changes what is sent. Each `match` in this file gets an arm, and telnet shows how to
//! store state.

pub mod custom;
pub mod delimiter;
pub mod frame;
pub mod length_prefix;
mod lines;
pub mod peer;
pub mod proxy_header;
#[cfg(test)]
mod random_tests;
mod raw;
mod scan;
#[cfg(test)]
mod script;
pub(crate) mod telnet;
pub(crate) mod websocket;

use crate::framing::delimiter::Delimiter;
use crate::framing::frame::{Dialect, Frame, FrameBuffers, FrameState, each};
use crate::framing::length_prefix::LengthPrefix;
use greenroom_state::abi;
use serde::{Deserialize, Serialize};

/// Framing of a service's streams, with its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Framing {
    /// Lines that end in LF or CRLF.
    Lines {
        /// The longest message, without its line ending.
        bytes_max: u32,
    },
    /// Bytes as they arrived, without framing.
    Raw {
        /// The longest message.
        bytes_max: u32,
    },
    /// Messages behind their length.
    LengthPrefix {
        /// Form of the length.
        prefix: LengthPrefix,
        /// The longest message, without its length.
        bytes_max: u32,
    },
    /// Messages that end in a fixed string.
    Delimiter {
        /// End of each message.
        delimiter: Delimiter,
        /// The longest message, without its delimiter.
        bytes_max: u32,
    },
    /// Lines between telnet commands.
    Telnet {
        /// The longest message, without its line ending and with IAC as one byte.
        bytes_max: u32,
    },
    /// Messages of WebSocket, behind an HTTP request.
    WebSocket {
        /// The longest message, of all its fragments together.
        bytes_max: u32,
    },
    /// Messages that functions of the service's library cut and frame. They are no pure function
    /// of this value: `crate::turn::code` calls them, and [`custom`] judges what they answer.
    Custom {
        /// Version of the state that they keep. Builds of one version go on from each other's.
        version: u8,
        /// The longest message, without its framing.
        bytes_max: u32,
    },
    /// Datagrams of the service itself: no session has this framing.
    Datagrams {
        /// The longest datagram.
        bytes_max: u32,
    },
    /// Datagrams of one peer, as messages of its session ([`peer`]).
    Peer {
        /// The longest datagram.
        bytes_max: u32,
    },
}

impl Framing {
    /// Framing of a service that no library serves. No message is too long for it: a session's
    /// first one fails, and waits with the session for a build ([`crate::service::placeholder`]).
    pub(crate) const UNSERVED: Framing = Framing::Lines { bytes_max: u32::MAX };

    /// Framings without parameters.
    pub const ANY_SERVICE: [Framing; 6] = [
        Framing::Lines { bytes_max: 0 },
        Framing::Raw { bytes_max: 0 },
        Framing::Telnet { bytes_max: 0 },
        Framing::WebSocket { bytes_max: 0 },
        Framing::Datagrams { bytes_max: 0 },
        Framing::Peer { bytes_max: 0 },
    ];

    /// Returns the framing that a library offers: its number in [`abi::framing`], and its
    /// parameters. Fails if the number is not known, or if the parameters are not those of the
    /// framing. The error names the reason, without the service. `bytes_max` is judged with the
    /// whole offer, in `reload/judge.rs`.
    pub fn offered(number: u32, bytes_max: u32, parameters: &[u8]) -> Result<Framing, String> {
        let none = |name: &str, framing| match parameters.len() {
            0 => Ok(framing),
            len => Err(format!("framing {name} has no parameters, and was given {len} bytes of them")),
        };
        match number {
            abi::framing::LINES => none("lines", Framing::Lines { bytes_max }),
            abi::framing::RAW => none("raw", Framing::Raw { bytes_max }),
            abi::framing::LENGTH_PREFIX => match LengthPrefix::from_parameters(parameters) {
                Ok(prefix) => Ok(Framing::LengthPrefix { prefix, bytes_max }),
                Err(e) => Err(format!("framing length-prefix: {e}")),
            },
            abi::framing::DELIMITER => match Delimiter::new(parameters) {
                Ok(delimiter) => Ok(Framing::Delimiter { delimiter, bytes_max }),
                Err(e) => Err(format!("framing delimiter: {e}")),
            },
            abi::framing::TELNET => none("telnet", Framing::Telnet { bytes_max }),
            abi::framing::DATAGRAMS => none("datagram", Framing::Datagrams { bytes_max }),
            abi::framing::PEER => none("peer", Framing::Peer { bytes_max }),
            // The parameters are subprotocols, which are the offer's.
            abi::framing::WEBSOCKET => Ok(Framing::WebSocket { bytes_max }),
            abi::framing::CUSTOM => match *parameters {
                [] => Ok(Framing::Custom { version: 0, bytes_max }),
                [version] => Ok(Framing::Custom { version, bytes_max }),
                _ => Err(format!("framing custom: a version is wanted, not {} bytes", parameters.len())),
            },
            other => Err(format!("framing {other} is not known")),
        }
    }

    /// Returns the number and the parameters that [`Framing::offered`] reads back.
    pub(crate) fn as_offered(&self) -> (u32, Vec<u8>) {
        match self {
            Framing::Lines { .. } => (abi::framing::LINES, Vec::new()),
            Framing::Raw { .. } => (abi::framing::RAW, Vec::new()),
            Framing::LengthPrefix { prefix, .. } => (abi::framing::LENGTH_PREFIX, prefix.to_parameters()),
            Framing::Delimiter { delimiter, .. } => (abi::framing::DELIMITER, delimiter.bytes().to_vec()),
            Framing::Telnet { .. } => (abi::framing::TELNET, Vec::new()),
            Framing::Datagrams { .. } => (abi::framing::DATAGRAMS, Vec::new()),
            Framing::Peer { .. } => (abi::framing::PEER, Vec::new()),
            // Its subprotocols are the service's, and the build's.
            Framing::WebSocket { .. } => (abi::framing::WEBSOCKET, Vec::new()),
            Framing::Custom { version, .. } => (abi::framing::CUSTOM, vec![*version]),
        }
    }

    /// Cuts the next message, or the framing's own business, off the start of `input`.
    ///
    /// Appends to `buffers` and never clears them. After [`Frame::Message`] and
    /// [`Frame::Reply`] the caller skips the consumed bytes; the state is then that of the
    /// rest. The result depends on the input and on the stored bytes of `state`, never on how
    /// the input came.
    #[inline]
    pub fn cut<'i>(&self, input: &'i [u8], state: &mut FrameState, buffers: &mut FrameBuffers) -> Frame<'i> {
        match self {
            Framing::Telnet { bytes_max } => telnet::cut(input, state, *bytes_max as usize, buffers),
            Framing::LengthPrefix { prefix, bytes_max } if !prefix.cuts_slices() => {
                length_prefix::cut_behind(*prefix, input, *bytes_max as usize, buffers)
            }
            Framing::WebSocket { bytes_max } => websocket::cut(input, state, *bytes_max as usize, buffers),
            _ => self.cut_slice(input, state),
        }
    }

    /// Cuts message after message. [`Framing::cuts_slices`] must be true of the framing. `take`
    /// gets each message with the bytes of input that it took, and says whether to go on.
    ///
    /// Returns the last frame; [`Frame::More`] if `take` said no.
    #[inline]
    pub(crate) fn cut_slices<'i>(
        &self,
        input: &'i [u8],
        state: &mut FrameState,
        take: impl FnMut(&'i [u8], usize) -> bool,
    ) -> Frame<'i> {
        match self {
            // Lines have a loop of their own, so that their cut is inlined in it.
            Framing::Lines { bytes_max } => {
                let bytes_max = *bytes_max as usize;
                each(input, take, |rest| lines::cut(rest, state, bytes_max))
            }
            other => each(input, take, |rest| other.cut_slice(rest, state)),
        }
    }

    /// Cuts the next message of a framing that needs no buffers.
    fn cut_slice<'i>(&self, input: &'i [u8], state: &mut FrameState) -> Frame<'i> {
        match self {
            Framing::Lines { bytes_max } => lines::cut(input, state, *bytes_max as usize),
            Framing::Raw { bytes_max } => raw::cut(input, *bytes_max as usize),
            Framing::LengthPrefix { prefix, bytes_max } => {
                length_prefix::cut(*prefix, input, *bytes_max as usize)
            }
            Framing::Delimiter { delimiter, bytes_max } => {
                delimiter::cut(delimiter, input, state, *bytes_max as usize)
            }
            Framing::Peer { bytes_max } => peer::cut(input, *bytes_max as usize),
            // Unreachable: callers ask `cuts_slices` first, or come from the other arms of
            // `cut`. A framing of the library's is cut by its code, and no session has datagrams.
            Framing::Telnet { .. }
            | Framing::WebSocket { .. }
            | Framing::Custom { .. }
            | Framing::Datagrams { .. } => Frame::More,
        }
    }

    /// Returns whether all that a cut gives is slices of the input: no reply, no payload that
    /// differs from the input, no stored bytes. Callers need no buffers for such a framing.
    #[inline]
    pub fn cuts_slices(&self) -> bool {
        match self {
            Framing::LengthPrefix { prefix, .. } => prefix.cuts_slices(),
            Framing::Telnet { .. } | Framing::WebSocket { .. } | Framing::Custom { .. } => false,
            _ => true,
        }
    }

    /// Returns whether the code of the service that serves cuts and frames the messages.
    #[inline]
    pub fn calls_code(&self) -> bool {
        matches!(self, Framing::Custom { .. })
    }

    /// Returns the state of a place in the input that was cut before turns ran. `now` is the
    /// session's state behind those turns, which may have changed it.
    pub(crate) fn at_place(&self, place: FrameState, now: &FrameState) -> FrameState {
        match self {
            Framing::Telnet { .. } => telnet::at_place(&place, now),
            // The port, which is the same at all places.
            Framing::Peer { .. } => now.clone(),
            _ => place,
        }
    }

    /// Returns whether a session's first turn waits for a request of its peer. Such a framing also
    /// tells the peer why the session ends, and has text beside bytes.
    pub(crate) fn begins_with_request(&self) -> bool {
        matches!(self, Framing::WebSocket { .. })
    }

    /// Returns whether a stream of WebSocket may carry it. Telnet's negotiations are for terminals.
    pub fn may_be_inside(&self) -> bool {
        !matches!(self, Framing::Telnet { .. } | Framing::WebSocket { .. }) && !self.is_of_datagrams()
    }

    /// Returns whether its messages are datagrams, which come over UDP and nothing else does.
    pub fn is_of_datagrams(&self) -> bool {
        matches!(self, Framing::Datagrams { .. } | Framing::Peer { .. })
    }

    /// Returns whether another framing may go on from the state that this one left. The longest
    /// message may differ. A library's own framing is swapped with its code, and [`custom`] drops a
    /// state of another version.
    pub(crate) fn shares_state_with(&self, other: &Framing) -> bool {
        match (self, other) {
            (Framing::LengthPrefix { prefix, .. }, Framing::LengthPrefix { prefix: other, .. }) => {
                prefix == other
            }
            (Framing::Delimiter { delimiter, .. }, Framing::Delimiter { delimiter: other, .. }) => {
                delimiter == other
            }
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }

    /// Returns whether [`Framing::encode`] changes what is sent. If not, callers send it as it
    /// is.
    #[inline]
    pub fn encodes(&self) -> bool {
        !matches!(self, Framing::Lines { .. } | Framing::Raw { .. })
    }

    /// Returns how messages to a session of this framing are written, by the state of its framing.
    pub fn dialect(&self, state: &FrameState) -> Dialect {
        match self {
            Framing::Telnet { .. } if telnet::sends_binary(state) => Dialect::Binary,
            _ => Dialect::Plain,
        }
    }

    /// Returns all dialects that sessions of this framing may have.
    pub fn dialects(&self) -> &'static [Dialect] {
        match self {
            Framing::Telnet { .. } => &[Dialect::Plain, Dialect::Binary],
            _ => &[Dialect::Plain],
        }
    }

    /// Appends a message that a turn sends, in its framing. If the framing cannot express it,
    /// the error says why, and nothing is appended. O(bytes).
    pub fn encode(&self, message: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
        self.encode_in(Dialect::Plain, message, out)
    }

    /// Appends a message as [`Framing::encode`] does, in a dialect of the framing.
    pub fn encode_in(&self, dialect: Dialect, message: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
        match self {
            Framing::Lines { .. } | Framing::Raw { .. } => out.extend_from_slice(message),
            Framing::LengthPrefix { prefix, .. } => length_prefix::encode(*prefix, message, out)?,
            Framing::Delimiter { delimiter, .. } => delimiter::encode(delimiter, message, out)?,
            Framing::WebSocket { .. } => websocket::sent::encode(message, out),
            Framing::Custom { .. } => return Err("the message is framed by the service's library"),
            Framing::Datagrams { .. } => return Err("datagrams are no stream"),
            Framing::Peer { .. } => peer::encode(message, out)?,
            Framing::Telnet { .. } => match dialect {
                Dialect::Plain => telnet::encode(message, out),
                Dialect::Binary => telnet::encode_binary(message, out),
            },
        }
        Ok(())
    }

    /// Appends a line that a turn sends, as [`Framing::encode_in`] does. The line ends in LF. Where
    /// the framing has text, the line is a text without the LF.
    pub fn encode_line(&self, dialect: Dialect, line: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
        match self {
            Framing::WebSocket { .. } => {
                websocket::sent::encode_text(line.strip_suffix(b"\n").unwrap_or(line), out)
            }
            _ => self.encode_in(dialect, line, out)?,
        }
        Ok(())
    }

    /// Returns the name of its kind, as configurations and `status` have it.
    pub fn kind(&self) -> &'static str {
        match self {
            Framing::Lines { .. } => "line",
            Framing::Raw { .. } => "raw",
            Framing::LengthPrefix { .. } => "prefix",
            Framing::Delimiter { .. } => "delimiter",
            Framing::Telnet { .. } => "telnet",
            Framing::WebSocket { .. } => "ws",
            Framing::Custom { .. } => "custom",
            Framing::Datagrams { .. } => "datagram",
            Framing::Peer { .. } => "peer",
        }
    }

    /// Returns the framing of a kind that has no parameters, so that any service can be had in it.
    pub fn of_kind(kind: &str, bytes_max: u32) -> Option<Framing> {
        Framing::ANY_SERVICE.into_iter().find(|f| f.kind() == kind).map(|f| f.with_bytes_max(bytes_max))
    }

    /// Returns the framing with another longest message, in bytes.
    pub fn with_bytes_max(mut self, bytes_max: u32) -> Framing {
        match &mut self {
            Framing::Lines { bytes_max: b }
            | Framing::Raw { bytes_max: b }
            | Framing::LengthPrefix { bytes_max: b, .. }
            | Framing::Delimiter { bytes_max: b, .. }
            | Framing::Telnet { bytes_max: b }
            | Framing::WebSocket { bytes_max: b }
            | Framing::Custom { bytes_max: b, .. }
            | Framing::Datagrams { bytes_max: b }
            | Framing::Peer { bytes_max: b } => *b = bytes_max,
        }
        self
    }

    /// Returns the longest message, in bytes.
    pub fn bytes_max(&self) -> u32 {
        match *self {
            Framing::Lines { bytes_max }
            | Framing::Raw { bytes_max }
            | Framing::LengthPrefix { bytes_max, .. }
            | Framing::Delimiter { bytes_max, .. }
            | Framing::Telnet { bytes_max }
            | Framing::WebSocket { bytes_max }
            | Framing::Custom { bytes_max, .. }
            | Framing::Datagrams { bytes_max }
            | Framing::Peer { bytes_max } => bytes_max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every number of a framing with good parameters, and each kind of bad ones.
    #[test]
    fn offers_are_read_or_refused_by_name() {
        let prefix = LengthPrefix::new(2, true).unwrap();
        let delimiter = Delimiter::new(b"\r\n").unwrap();
        let prefixed =
            |prefix: Option<LengthPrefix>| Framing::LengthPrefix { prefix: prefix.unwrap(), bytes_max: 9 };
        for (number, parameters, expected) in [
            (1, &b""[..], Ok(Framing::Lines { bytes_max: 9 })),
            (2, b"", Ok(Framing::Raw { bytes_max: 9 })),
            (3, &[2, 1], Ok(Framing::LengthPrefix { prefix, bytes_max: 9 })),
            (3, &[8, 0], Ok(prefixed(LengthPrefix::new(8, false)))),
            (3, &[10, 2], Ok(prefixed(LengthPrefix::base_128(10)))),
            (3, &[4, 2, 0, 1], Ok(prefixed(LengthPrefix::base_128(4).and_then(|p| p.behind(1))))),
            (3, &[2, 1, 1, 0], Ok(prefixed(LengthPrefix::new(2, true).map(LengthPrefix::counting_itself)))),
            (4, b"\r\n", Ok(Framing::Delimiter { delimiter, bytes_max: 9 })),
            (5, b"", Ok(Framing::Telnet { bytes_max: 9 })),
            (0, b"", Err("framing 0 is not known")),
            (6, b"chat.v1", Ok(Framing::WebSocket { bytes_max: 9 })),
            (7, &[3], Ok(Framing::Custom { version: 3, bytes_max: 9 })),
            (7, &[3, 0], Err("framing custom: a version is wanted, not 2 bytes")),
            (8, b"", Ok(Framing::Datagrams { bytes_max: 9 })),
            (9, b"", Ok(Framing::Peer { bytes_max: 9 })),
            (10, b"", Err("framing 10 is not known")),
            (1, b"\n", Err("framing lines has no parameters, and was given 1 bytes of them")),
            (2, b"xy", Err("framing raw has no parameters, and was given 2 bytes of them")),
            (3, &[3, 0], Err("framing length-prefix: a width of 3 is none of 1, 2, 4 and 8")),
            (4, b"", Err("framing delimiter: a delimiter has 1 to 16 bytes, not 0")),
            (5, b"x", Err("framing telnet has no parameters, and was given 1 bytes of them")),
        ] {
            let offered = Framing::offered(number, 9, parameters);
            assert_eq!(offered, expected.map_err(str::to_owned), "{number} {parameters:?}");
            if let Ok(framing) = offered {
                assert_eq!(framing.bytes_max(), 9);
                // Subprotocols are the service's.
                let own = if number == abi::framing::WEBSOCKET { b"" } else { parameters };
                assert_eq!(framing.as_offered(), (number, own.to_vec()));
                assert_eq!(framing.with_bytes_max(7).bytes_max(), 7);
                let json = serde_json::to_string(&framing).unwrap();
                assert_eq!(serde_json::from_str::<Framing>(&json).unwrap(), framing, "{json}");
                assert_eq!(framing.encodes(), number > 2);
            }
        }
    }

    /// Handlers of these services write their own endings, so no byte is added or escaped.
    #[test]
    fn lines_and_raw_are_sent_as_they_are() {
        for framing in [Framing::Lines { bytes_max: 1 }, Framing::Raw { bytes_max: 1 }] {
            let mut out = b"before".to_vec();
            framing.encode(b"a\r\xff\n", &mut out).unwrap();
            assert_eq!(out, b"beforea\r\xff\n");
        }
    }

    /// The state is in each session, so its size is a part of the price of an idle one.
    #[test]
    fn state_is_bounded_and_empty_state_allocates_nothing() {
        let mut searched = FrameState::default();
        searched.set_searched(7);
        assert_eq!(FrameState::new(7, &[]), Some(searched));
        assert!(size_of::<FrameState>() <= 16);
        let most = [1; frame::STORED_BYTES_MAX];
        assert_eq!(FrameState::new(0, &most).unwrap().stored(), most);
        assert_eq!(FrameState::new(0, &[1; frame::STORED_BYTES_MAX + 1]), None);
    }
}
