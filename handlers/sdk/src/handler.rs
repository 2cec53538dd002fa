//! The trait that a service implements, and what it is told.

use crate::fault::Fault;
use crate::migrate::Migrations;
use crate::table::Tables;
use crate::turn::Turn;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::atomic::{AtomicU32, Ordering};

/// A service: one type of connection.
///
/// The value is built once when the library is loaded, from its configuration, and is never changed: what a session must
/// remember is in its state, what sessions share is in tables.
pub trait Handler: Sized + Send + Sync + 'static {
    /// The service's name, unique in a host: letters, digits, `-` and `_`.
    const SERVICE: &'static str;
    /// The TCP port on loopback where it listens unless the operator says otherwise; 0: none.
    const PORT: u16;
    /// Its sessions are connections that turns ask for ([`Turn::connect`]): it needs no port, though it may have one.
    const DIALS: bool = false;
    /// How the stream is cut into messages.
    const FRAMING: Framing = Framing::Lines { bytes_max: 8 * 1024 };
    /// Raise it when the state's shape changes in any other way than by fields added with defaults, and add a migration.
    const STATE_VERSION: u32 = 1;

    /// What the host keeps for each session; `()` for nothing.
    type State: Default + Serialize + DeserializeOwned + JsonSchema + 'static;
    /// `[service.NAME.settings]` of the host's file; [`NoConfig`] for none. Fields without a default are required.
    type Config: DeserializeOwned;

    /// Builds the service. An error refuses the library and is shown to the operator.
    fn new(config: Self::Config) -> Result<Self, String>;

    /// The callback: one action, one turn.
    fn handle(&self, turn: &mut Turn<'_, Self::State>, action: Action<'_>) -> Result<(), Fault>;

    /// An action of the service itself, which has neither state nor peer: one of its timers, or a job that such a turn started. What
    /// would need a session (a send, a subscription) is refused.
    fn handle_service(&self, turn: &mut Turn<'_, ()>, action: Action<'_>) -> Result<(), Fault> {
        let _ = turn;
        Err(Fault::new(format!("the service has no handle_service for {action:?}")))
    }

    /// A job that a turn started: a function by its name. It runs on a thread of its own and may block, for a name to be resolved
    /// ([`std::net::ToSocketAddrs`]), a file or a computation; it sees nothing of sessions and tables but its input.
    fn job(&self, job: &Job<'_>) -> Result<Vec<u8>, Fault> {
        Err(Fault::new(format!("the service has no job {:?}", job.name)))
    }

    /// How states of older versions become those of the next one.
    fn migrations() -> Migrations {
        Migrations::none()
    }

    /// The tables that this service owns. A table has one owner in a host; without one nobody answers for its values' shape.
    fn tables() -> Tables {
        Tables::none()
    }
}

/// What happened to the session. More kinds may come, so a `match` needs an arm for the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action<'a> {
    /// A peer connected: the first turn of a session.
    Opened,
    /// A message arrived, without its framing. Bytes, which need not be UTF-8.
    Message(&'a [u8]),
    /// The session ends: its last turn.
    Closed(Closed),
    /// A timer of this name fired.
    Timer(&'a str),
    /// Another session, or this one, sent a note: [`Turn::note`].
    Note {
        /// The session that sent it; `None`: the service itself.
        from: Option<u64>,
        /// What it says.
        bytes: &'a [u8],
    },
    /// A session published something on a topic that this one is on: [`Turn::publish`].
    Published {
        /// The topic.
        topic: &'a str,
        /// The session that published it; `None`: the service itself.
        from: Option<u64>,
        /// What it says.
        bytes: &'a [u8],
    },
    /// Comes right behind [`Action::Opened`] if a session of this host has made the connection: [`Turn::connect`].
    Dialed {
        /// That session; `None`: the service itself.
        by: Option<u64>,
        /// What it gave along.
        context: &'a [u8],
    },
    /// A connection that this session asked for is open, or can't be made.
    Connect {
        /// Its number, as [`Turn::connect`] returned it.
        number: u64,
        /// The number of its session, or the reason.
        result: Result<u64, &'a str>,
    },
    /// A job that this session started is over.
    Job {
        /// Its number, as [`Turn::start_job`] returned it.
        number: u64,
        /// Its name.
        name: &'a str,
        /// How it ended.
        end: JobEnd<'a>,
    },
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobEnd<'a> {
    /// It returned this.
    Done(&'a [u8]),
    /// It failed or panicked, for this reason.
    Failed(&'a str),
    /// The process that ran it died, and it isn't run again, for this reason.
    Lost(&'a str),
}

/// A job: what [`Handler::job`] is to do.
pub struct Job<'a> {
    /// Which one.
    pub name: &'a str,
    /// What it works on.
    pub input: &'a [u8],
    pub(crate) cancelled: &'a AtomicU32,
}

impl Job<'_> {
    /// Nobody wants the result any more: a long job should look at this now and then, and return.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed) != 0
    }
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Closed {
    /// The peer ended it; what is sent now may still reach it.
    Peer,
    /// The connection broke.
    Broken,
    /// The handler closed it.
    Handler,
    /// A limit of the host closed it.
    Limit,
    /// The host is stopping.
    Stopping,
    /// An operator closed it.
    Operator,
}

/// Framing of a service's stream: how it is cut into messages, and how messages are sent.
///
/// One send is one message. Bad parameters refuse the library, with the reason.
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
    /// Messages behind their length, which does not count itself. A send goes out behind its length.
    LengthPrefix {
        /// Bytes of the length: 1, 2 or 4.
        width: u8,
        /// Byte order of the length.
        order: ByteOrder,
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
    /// Lines over telnet: the host refuses every option of the protocol, and skips its commands.
    /// A send goes out as text: LF becomes CR LF, and the byte 255 is doubled.
    Telnet {
        /// Longest line, in bytes, without its ending. A longer one closes the session.
        bytes_max: u32,
    },
}

/// Byte order of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteOrder {
    /// Most significant byte first, as network protocols mostly have it.
    Big,
    /// Least significant byte first.
    Little,
}

/// The configuration of a service that has none: any key is refused.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}
