//! The C ABI between the host and a handler library.
//!
//! A library exports one function, named by its ELF note ([`crate::elf_note`]), that returns a
//! pointer to a [`Library`]. From there the host reaches one [`Service`] table for each service.
//! Each of its functions gets the host's own table, [`Host`], to ask for effects.
//!
//! The rules, for both sides:
//!
//! - Every struct starts with its `size` in bytes. Within a major version fields are only appended,
//!   so a reader looks at `size` before it touches a field that its writer may not know. Arrays
//!   state the stride of their items.
//! - Strings and bytes are pointer and length, never NUL-terminated, and valid for the call that
//!   carries them, unless the field says otherwise. Strings are UTF-8.
//! - Memory is freed by the side that allocated it: results travel through a [`Sink`].
//! - Nothing unwinds across: each side catches its own panics.
//! - A library keeps nothing between turns: an instance is built once from its configuration and
//!   never changes. The host may call `run` of one instance from one thread, `job` of it from
//!   others, and `create` of another one from yet another.
//!
//! `include/greenroom.h` says the same in C; a test compares the two.

pub mod action;
pub mod batch;
pub mod bytes;
pub mod closed;
pub mod connect;
pub mod fault;
pub mod framing;
pub mod host;
pub mod job;
pub mod level;
pub mod library;
pub mod started;
pub mod status;
pub mod table;
pub mod turn;

pub use batch::{Action, Batch};
pub use bytes::{Bytes, Sink};
pub use host::{Host, Stats};
pub use library::{Library, OfferedEndpoint, SERVICE_SIZE_1_0, Service};
pub use turn::Turn;

/// Raised when a change breaks libraries that are already built.
pub const MAJOR: u16 = 1;
/// Raised when something was appended. A host loads libraries of its own major version and of this
/// minor or an older one.
pub const MINOR: u16 = 9;

/// [`Host::broadcast`]: leave out the session whose turn this is.
pub const BROADCAST_OTHERS: u32 = 1;
/// [`Host::broadcast`], since 1.4: the data are a line, as [`Host::send_line`] takes it.
pub const BROADCAST_LINE: u32 = 2;
/// [`Host::broadcast`], since 1.6: leave out sessions whose unsent output is over limit
/// `output_bytes_pause`.
pub const BROADCAST_DROP_IF_SLOW: u32 = 4;
/// [`Service::flags`]: its sessions are connections that others ask for ([`Host::connect`]), so it
/// needs no port.
pub const SERVICE_DIALS: u16 = 1;
/// [`Host::set_timer`], [`Host::cancel_timer`]: the service's timer, not the session's.
pub const TIMER_OF_SERVICE: u32 = 1;
/// [`Host::start_job`]: at most once, rather than at least once: it isn't run again when the
/// process that ran it died.
pub const JOB_ONCE: u32 = 1;
/// [`Host::fault_reply`]: close the session.
pub const FAULT_CLOSES: u32 = 1;
/// Returned by [`Service::run`]: the failed turn may have changed the state that the turns before
/// it left. The host runs those again, without the failed one.
pub const RUN_STATE_LOST: u32 = 1;

/// The one function that a library exports.
pub type Entry = unsafe extern "C" fn() -> *const Library;
