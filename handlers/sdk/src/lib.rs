//! SDK for the authors of Greenroom handlers.
//!
//! A handler is a library crate with `crate-type = ["cdylib"]` that holds code only. For each
//! service it implements [`Handler`]: a name, a port, a framing, a state (an ordinary serde struct)
//! and callbacks; [`macro@handler`] fills in what is left out, and [`export!`] does the rest.
//!
//! ```
//! use greenroom_handler::{Handler, Result, Turn, export, handler};
//! use schemars::JsonSchema;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Default, Serialize, Deserialize, JsonSchema)]
//! struct Seen {
//!     lines: u64,
//! }
//!
//! struct Count;
//!
//! #[handler]
//! impl Handler for Count {
//!     const SERVICE: &'static str = "count";
//!     const PORT: u16 = 4010;
//!     type State = Seen;
//!
//!     fn message(&self, turn: &mut Turn<Seen>, _: &[u8]) -> Result {
//!         turn.state.lines += 1;
//!         let reply = turn.state.lines.to_string();
//!         turn.send_line(reply);
//!         Ok(())
//!     }
//! }
//!
//! export!(Count);
//!
//! let mut host = greenroom_handler::testing::TestHost::<Count>::new("{}").unwrap();
//! let peer = host.open();
//! assert_eq!(host.line(peer, "hello"), "1\n");
//! ```
//!
//! A turn is one run of the callback over one action, and a transaction. If the callback returns an
//! error or panics, the state is as before and nothing is sent.
//!
//! Data that must be remembered lives in the state or in a [`Table`]. Statics, threads, sockets and
//! files do not survive a reload and have no place in a handler.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `handler.rs`, `action.rs`, `page.rs` | the trait, actions, pages for browsers |
//! | `bounds.rs` | bounds on its types, with errors that say what to write |
//! | `framing.rs`, `custom_framing.rs` | framings, and those of an author's own |
//! | [`telnet`] | telnet's options and subnegotiations |
//! | `turn.rs` | a turn, and most of its effects |
//! | `telnet_effects.rs`, `job_effects.rs` | those on telnet sessions, and jobs |
//! | `topic_effects.rs`, `session_effects.rs` | those on topics, and on other sessions |
//! | `stream_effects.rs` | those on streams: connections, TLS, terms for a peer |
//! | `host_questions.rs` | tokens, random numbers, numbers of the host |
//! | `dialogue.rs`, `dialogue_steps.rs` | questions to a peer, and their steps |
//! | `talk.rs` | the record of its answers |
//! | `dialogue_run.rs` | the run of a dialogue in a turn, and in a rehearsal |
//! | `values.rs` | typed values on the way from turn to turn |
//! | `table.rs`, `table_scan.rs` | tables, who owns them, scans |
//! | `map.rs`, `key.rs` | tables with typed keys, and the keys' bytes |
//! | `bytes.rs` | bytes as a value |
//! | `migrate.rs` | migrations: data of one version becomes data of another, up and down |
//! | `convert.rs` | converts states and values when the host asks |
//! | `encode.rs` | encodes states and values, and refuses what could not be read again |
//! | `carried.rs` | finds types whose values do not come back |
//! | `file.rs` | files in settings |
//! | `fault.rs` | errors and caught panics |
//! | `log.rs` | hands `tracing` events to the host |
//! | `host.rs`, `run.rs` | the host as a batch sees it; the run of a batch, on any host |
//! | `testing.rs` | a host in memory, for a handler's own tests |
//! | `book.rs` | the code of `handlers/book`, for doc tests |
//! | `export/` | the C ABI; the only unsafe code |
#![deny(unsafe_code)]

mod action;
#[cfg(doctest)]
mod book;
mod bounds;
mod bytes;
mod carried;
mod convert;
mod custom_framing;
mod dialogue;
mod dialogue_run;
mod dialogue_steps;
mod encode;
mod fault;
mod file;
mod framing;
mod handler;
mod host;
mod host_questions;
mod job_effects;
mod key;
mod log;
mod map;
mod migrate;
mod page;
mod run;
mod session_effects;
mod stream_effects;
mod table;
mod table_scan;
mod talk;
pub mod telnet;
mod telnet_effects;
mod topic_effects;
mod turn;
mod values;

#[allow(unsafe_code)]
pub mod export;
pub mod testing;

pub use action::{Action, Closed, Job, JobEnd, Started};
pub use bounds::{HasSchema, NoConfig, Settings};
pub use bytes::Bytes;
pub use custom_framing::{CustomFraming, Cut, FramingState};
pub use dialogue::{Dialogue, Named, Step};
pub use fault::{Fault, OrTell};
pub use file::File;
pub use framing::{ByteOrder, Endpoint, Framing, Prefix};
/// ```
/// use greenroom_handler::{Handler, handler};
///
/// /// Discards all that comes.
/// struct Discard;
/// #[handler]
/// impl Handler for Discard {
///     const SERVICE: &'static str = "discard";
///     // Filled in: type State = (); type Config = NoConfig;
///     // fn new(_: NoConfig) -> Result<Self, String> { Ok(Self {}) }
/// }
///
/// /// With settings: `[service.hello.settings]`, `greeting = "Hello."`
/// #[derive(serde::Deserialize)]
/// struct Hello {
///     greeting: String,
/// }
/// #[handler]
/// impl Handler for Hello {
///     const SERVICE: &'static str = "hello";
///     type Config = Self;
///     // Filled in: `new`, by `From`.
/// }
/// assert_eq!(Hello::new(Hello { greeting: "Hi.".into() }).unwrap().greeting, "Hi.");
/// ```
pub use greenroom_handler_macros::handler;
pub use handler::Handler;
pub use host_questions::Stats;
pub use key::{Key, KeyPart};
pub use map::{Map, Under};
pub use migrate::Migrations;
pub use page::Page;
pub use table::{Table, Tables};
pub use talk::Talk;
pub use topic_effects::Broadcast;
pub use turn::{State, Turn};
pub use values::timer_value;

/// Result of a turn; of anything that fails with a [`Fault`].
///
/// ```
/// use greenroom_handler::{Result, Turn};
///
/// /// `?` makes a fault of any error.
/// fn double(turn: &mut Turn, line: &[u8]) -> Result {
///     let number: u64 = std::str::from_utf8(line)?.parse()?;
///     turn.send_line((2 * number).to_string());
///     Ok(())
/// }
/// ```
pub type Result<T = (), E = Fault> = std::result::Result<T, E>;
