//! The trait that a service implements, and what it is told.

use crate::{Fault, Migrations, Tables, Turn};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A service: one type of connection.
///
/// The value is built once when the library is loaded, from its configuration, and is never changed: what a session must
/// remember is in its state, what sessions share is in tables.
pub trait Handler: Sized + Send + Sync + 'static {
    /// The service's name, unique in a host: letters, digits, `-` and `_`.
    const SERVICE: &'static str;
    /// The TCP port on loopback where it listens unless the operator says otherwise; 0: none.
    const PORT: u16;
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

/// How a stream is cut into messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Framing {
    /// Lines that end in LF or CRLF.
    Lines {
        /// The longest line, in bytes, without its ending. A longer one closes the session.
        bytes_max: u32,
    },
}

/// The configuration of a service that has none: any key is refused.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}
