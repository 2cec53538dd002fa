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
pub mod bytes;
pub mod closed;
pub mod connect;
pub mod endpoint;
pub mod fault;
pub mod framing;
pub mod job;
pub mod level;
pub mod started;
pub mod status;
pub mod table;
pub mod turn;

pub use bytes::{Bytes, Sink};
pub use endpoint::OfferedEndpoint;
pub use turn::Turn;

use std::ffi::c_void;
use std::sync::atomic::AtomicU32;

/// Raised when a change breaks libraries that are already built.
pub const MAJOR: u16 = 1;
/// Raised when something was appended. A host loads libraries of its own major version and of this
/// minor or an older one.
pub const MINOR: u16 = 6;

/// [`Host::broadcast`]: leave out the session whose turn this is.
pub const BROADCAST_OTHERS: u32 = 1;
/// [`Host::broadcast`], since 1.4: the data are a line, as [`Host::send_line`] takes it.
pub const BROADCAST_LINE: u32 = 2;
/// [`Service::flags`]: its sessions are connections that others ask for ([`Host::connect`]), so it
/// needs no port.
pub const SERVICE_DIALS: u16 = 1;
/// [`Host::set_timer`], [`Host::cancel_timer`]: the service's timer, not the session's.
pub const TIMER_OF_SERVICE: u32 = 1;
/// [`Host::start_job`]: at most once, rather than at least once: it isn't run again when the
/// process that ran it died.
pub const JOB_ONCE: u32 = 1;
/// Returned by [`Service::run`]: the failed turn may have changed the state that the turns before
/// it left. The host runs those again, without the failed one.
pub const RUN_STATE_LOST: u32 = 1;

/// Library, as its entry returns it. Valid until the process ends.
#[repr(C)]
pub struct Library {
    /// Size of this struct.
    pub size: u32,
    /// [`MAJOR`] that it was built for.
    pub abi_major: u16,
    /// [`MINOR`] that it was built for.
    pub abi_minor: u16,
    /// The library's name: its crate's.
    pub name: Bytes<'static>,
    /// An array of `service_count` items, each `service_stride` bytes apart.
    pub services: *const Service,
    /// Number of services.
    pub service_count: u32,
    /// Size of one.
    pub service_stride: u32,
}

/// Service of a library. Valid until the process ends.
#[repr(C)]
pub struct Service {
    /// Size of this struct.
    pub size: u32,
    /// Version of the state. The author raises it for more than fields added with defaults.
    pub state_version: u32,
    /// Unique in a host: letters, digits, `-` and `_`.
    pub name: Bytes<'static>,
    /// Default TCP port on loopback; 0: none, the operator must name an address.
    pub port: u16,
    /// Since 1.2 (0 before): 0 or [`SERVICE_DIALS`].
    pub flags: u16,
    /// Number from [`framing`].
    pub framing: u32,
    /// The longest message, in bytes, without its framing.
    pub frame_bytes_max: u32,
    /// Number of versions in [`Service::migrations`].
    pub migration_count: u32,
    /// The state versions from which this library can make the next one.
    pub migrations: *const u32,
    /// JSON Schema of the state; empty: the service keeps none.
    pub state_schema: Bytes<'static>,
    /// Builds the instance from its configuration (JSON). Null: refused, with the reason put into
    /// `error`.
    pub create: unsafe extern "C" fn(host: *const Host, config: Bytes<'_>, error: Sink) -> *mut c_void,
    /// Ends an instance that `create` made.
    pub destroy: unsafe extern "C" fn(instance: *mut c_void),
    /// Runs the actions of `batch` in order, a turn each; see [`Host::turn_ok`]. Returns 0 or
    /// [`RUN_STATE_LOST`].
    pub run: unsafe extern "C" fn(
        instance: *const c_void,
        host: *const Host,
        turn: *mut Turn,
        batch: *const Batch<'_>,
    ) -> u32,
    /// Since 1.1. Number of versions in [`Service::downgrades`].
    pub downgrade_count: u32,
    /// Since 1.1. Number of tables that the service owns.
    pub table_count: u32,
    /// Since 1.1. The state versions from which this library can make the one before.
    pub downgrades: *const u32,
    /// Since 1.1. An array of `table_count` items, each `table_stride` bytes apart.
    pub tables: *const table::Table,
    /// Since 1.1. Size of one.
    pub table_stride: u32,
    /// Must be zero.
    pub reserved2: u32,
    /// Since 1.1. Takes a value from version `from` to `to`, up or down, step by step. A value
    /// that arrives at this library's own version is read and written again. `which`: 0 for a
    /// state, n for the n-th table. Returns 0 with the value put into `result`, or 1 with the
    /// reason put into `error`.
    pub convert: Option<
        unsafe extern "C" fn(
            which: u32,
            from: u32,
            to: u32,
            value: Bytes<'_>,
            result: Sink,
            error: Sink,
        ) -> u32,
    >,
    /// Since 1.2. Runs a job, on any thread, while turns and other jobs run; it may block.
    /// Returns as [`Service::convert`] does. `cancelled` is valid for the call, and not 0 once
    /// nobody wants the result any more.
    pub job: Option<
        unsafe extern "C" fn(
            instance: *const c_void,
            name: Bytes<'_>,
            input: Bytes<'_>,
            cancelled: *const AtomicU32,
            result: Sink,
            error: Sink,
        ) -> u32,
    >,
    /// Since 1.3. Parameters of [`Service::framing`], at most [`framing::PARAMETERS_BYTES_MAX`]
    /// bytes; [`framing`] says which.
    pub framing_parameters: Bytes<'static>,
    /// Since 1.4. Number of endpoints beside [`Service::port`] and [`Service::framing`], which are
    /// the first one.
    pub endpoint_count: u32,
    /// Since 1.4. Size of one.
    pub endpoint_stride: u32,
    /// Since 1.4. An array of `endpoint_count` items, each `endpoint_stride` bytes apart.
    pub endpoints: *const OfferedEndpoint,
    /// Since 1.4. Runs the turn of [`action::PAGE`] for a path: it answers by [`Host::page`] if
    /// there is such a page, and ends the turn as [`Service::run`] does. There is no state.
    pub page: Option<
        unsafe extern "C" fn(instance: *const c_void, host: *const Host, turn: *mut Turn, path: Bytes<'_>),
    >,
    /// Since 1.4, for [`framing::CUSTOM`]. Cuts the next message off the beginning of `input`,
    /// which is not empty. Returns a number of [`framing::cut`]. A message that is no part of the
    /// input is put into `message`, a reason into `error`. Needs no instance, and depends on its
    /// arguments alone. Any thread may call.
    pub cut: Option<
        unsafe extern "C" fn(
            input: Bytes<'_>,
            frame: *mut framing::FrameCut,
            message: Sink,
            error: Sink,
        ) -> u32,
    >,
    /// Since 1.4, for [`framing::CUSTOM`]. Frames a message that is sent, likewise. Returns as
    /// [`Service::convert`] does.
    pub encode: Option<unsafe extern "C" fn(message: Bytes<'_>, result: Sink, error: Sink) -> u32>,
}

/// Size of [`Service`] in ABI 1.0.
pub const SERVICE_SIZE_1_0: usize = std::mem::offset_of!(Service, downgrade_count);

/// Actions of one session, oldest first.
#[repr(C)]
pub struct Batch<'a> {
    /// Size of this struct.
    pub size: u32,
    /// Version of `state`; meaningless when `has_state` is 0.
    pub state_version: u32,
    /// 0: the session has no state yet, start from the default.
    pub has_state: u32,
    /// Bytes from one action to the next.
    pub action_stride: u32,
    /// The actions.
    pub actions: *const Action<'a>,
    /// Number of actions. 0: a rehearsal, which reads the state, migrates it if it must, and hands
    /// it over; tables may be empty then.
    pub action_count: usize,
    /// The session's state as stored: a MessagePack map with field names.
    pub state: Bytes<'a>,
    /// Number of the session, never used twice in a host; 0: the service itself.
    pub session: u64,
    /// CLOCK_MONOTONIC, in nanoseconds, of this pass.
    pub now_ns: u64,
}

/// Action: one logical thing that happened to a session.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Action<'a> {
    /// Number from [`action`].
    pub kind: u32,
    /// Detail that `kind` names; else 0.
    pub detail: u32,
    /// The message.
    pub data: Bytes<'a>,
    /// Since 1.2. Name that `kind` calls for; else empty. UTF-8.
    pub name: Bytes<'a>,
    /// Since 1.2. Number that `kind` calls for; else 0.
    pub from: u64,
}

impl<'a> Action<'a> {
    /// An action that only has data.
    #[inline]
    pub fn new(kind: u32, data: Bytes<'a>) -> Action<'a> {
        Action { kind, detail: 0, data, name: Bytes::EMPTY, from: 0 }
    }
}

/// Functions that a turn may call on the host. Effects are staged, and applied together when the
/// turn succeeds.
///
/// `turn` is what [`Service::run`] got, and valid until it returns.
#[repr(C)]
pub struct Host {
    /// Size of this struct.
    pub size: u32,
    /// Most detailed [`level`] that the operator wants to see.
    pub log_level: u32,
    /// Ends a turn that succeeded: its effects count. 1: go on with the next action; 0: return now.
    pub turn_ok: unsafe extern "C" fn(turn: *mut Turn) -> u32,
    /// Ends a turn that failed: its effects are dropped. `run` must return now. After the last
    /// turn, with [`RUN_STATE_LOST`]: the state can't be handed over.
    pub turn_failed: unsafe extern "C" fn(turn: *mut Turn, fault: *const fault::Fault<'_>),
    /// State that the successful turns of this call left, if it changed. At most once in a `run`.
    pub state: unsafe extern "C" fn(turn: *mut Turn, state: Bytes<'_>),
    /// Address of the peer as text, valid until the next call with this turn.
    pub peer: unsafe extern "C" fn(turn: *mut Turn, text: *mut Bytes<'static>) -> u32,
    /// Sends `count` pieces to the session's peer, one after the other.
    pub send: unsafe extern "C" fn(turn: *mut Turn, parts: *const Bytes<'_>, count: usize) -> u32,
    /// Closes the session once its output is flushed. Ends the batch.
    pub close: unsafe extern "C" fn(turn: *mut Turn) -> u32,
    /// Adds the session to a topic, whose name is one line. Does nothing if it is there.
    pub subscribe: unsafe extern "C" fn(turn: *mut Turn, topic: Bytes<'_>) -> u32,
    /// Takes the session off a topic. Does nothing if it isn't there.
    pub unsubscribe: unsafe extern "C" fn(turn: *mut Turn, topic: Bytes<'_>) -> u32,
    /// Sends bytes to every subscriber of a topic. `flags`: 0, or [`BROADCAST_OTHERS`] and
    /// [`BROADCAST_LINE`] or either.
    pub broadcast:
        unsafe extern "C" fn(turn: *mut Turn, topic: Bytes<'_>, data: Bytes<'_>, flags: u32) -> u32,
    /// Reads a table, this batch's own writes included. `value` is valid until the next call with
    /// this turn.
    pub table_get: unsafe extern "C" fn(
        turn: *mut Turn,
        table: Bytes<'_>,
        key: Bytes<'_>,
        value: *mut Bytes<'static>,
    ) -> u32,
    /// Writes a value (MessagePack) under a key.
    pub table_put:
        unsafe extern "C" fn(turn: *mut Turn, table: Bytes<'_>, key: Bytes<'_>, value: Bytes<'_>) -> u32,
    /// Deletes a key. Does nothing if it isn't there.
    pub table_delete: unsafe extern "C" fn(turn: *mut Turn, table: Bytes<'_>, key: Bytes<'_>) -> u32,
    /// Finds the first key at or after `from` that starts with `prefix`, with its value. A scan
    /// goes on from that key with a zero byte appended. Both are valid until the next call with
    /// this turn.
    pub table_next: unsafe extern "C" fn(
        turn: *mut Turn,
        table: Bytes<'_>,
        prefix: Bytes<'_>,
        from: Bytes<'_>,
        key: *mut Bytes<'static>,
        value: *mut Bytes<'static>,
    ) -> u32,
    /// Logs an event. `turn` may be null outside a turn: in `create`, and in a job, on any thread.
    pub log: unsafe extern "C" fn(turn: *mut Turn, event: *const level::LogEvent<'_>),
    /// Since 1.2. Number of entries of a table, with this batch's writes.
    pub table_len: unsafe extern "C" fn(turn: *mut Turn, table: Bytes<'_>) -> u64,
    /// Since 1.2. Sets a timer of the session, or sets it again: it fires once, `after_ns`
    /// nanoseconds after this batch's `now_ns`. `flags`: 0 or [`TIMER_OF_SERVICE`].
    pub set_timer: unsafe extern "C" fn(turn: *mut Turn, name: Bytes<'_>, after_ns: u64, flags: u32) -> u32,
    /// Since 1.2. Cancels a timer: it does not fire any more. Does nothing if there is none.
    pub cancel_timer: unsafe extern "C" fn(turn: *mut Turn, name: Bytes<'_>, flags: u32) -> u32,
    /// Since 1.2. Sends a note to a session, this one or another, which runs a turn over it.
    pub note: unsafe extern "C" fn(turn: *mut Turn, session: u64, data: Bytes<'_>) -> u32,
    /// Since 1.2. Publishes a message: every subscriber of a topic runs a turn over it. `flags`: 0
    /// or [`BROADCAST_OTHERS`].
    pub publish: unsafe extern "C" fn(turn: *mut Turn, topic: Bytes<'_>, data: Bytes<'_>, flags: u32) -> u32,
    /// Since 1.2. Starts a job of the service on another thread; its number goes to `number`.
    /// `flags`: 0 or [`JOB_ONCE`].
    pub start_job: unsafe extern "C" fn(
        turn: *mut Turn,
        name: Bytes<'_>,
        input: Bytes<'_>,
        flags: u32,
        number: *mut u64,
    ) -> u32,
    /// Since 1.2. Cancels a job that this session started: its result does not come.
    pub cancel_job: unsafe extern "C" fn(turn: *mut Turn, number: u64) -> u32,
    /// Since 1.2. Opens a connection to an address (IP and port, as text). The connection becomes a
    /// session of `service`, and gets `context`. Its number goes to `number`.
    pub connect: unsafe extern "C" fn(
        turn: *mut Turn,
        service: Bytes<'_>,
        addr: Bytes<'_>,
        context: Bytes<'_>,
        number: *mut u64,
    ) -> u32,
    /// Since 1.2. Waits, for a relay: if another session's peer leaves too much output untaken, or
    /// too many notes wait for it, this session's input waits until they are taken.
    pub wait_for: unsafe extern "C" fn(turn: *mut Turn, session: u64) -> u32,
    /// Since 1.2. Holds the session's input, unread, and its peer's end (1), or releases them (0).
    pub hold: unsafe extern "C" fn(turn: *mut Turn, on: u32) -> u32,
    /// Since 1.4. Sends a line, given without its ending: the line and LF as one message, or one
    /// text message over WebSocket. There, bytes that are not UTF-8 become U+FFFD.
    pub send_line: unsafe extern "C" fn(turn: *mut Turn, line: Bytes<'_>) -> u32,
    /// Since 1.4. Closes the session as [`Host::close`] does, and tells the peer a code and a
    /// reason, if the framing has them. WebSocket has 1000 and 3000 to 4999, and UTF-8 of at most
    /// 123 bytes.
    pub close_with: unsafe extern "C" fn(turn: *mut Turn, code: u32, reason: Bytes<'_>) -> u32,
    /// Since 1.4. Fact about the connection by its name, valid until the next call with this turn.
    /// [`status::ABSENT`]: there is none. Over WebSocket, [`action::OPENED`] and [`action::PAGE`]
    /// know `path`, `query`, `protocol`, `host`, `origin`, `user-agent`, `cookie` and
    /// `x-forwarded-for`; [`action::CLOSED`] knows `close-code` and `close-reason`.
    pub fact: unsafe extern "C" fn(turn: *mut Turn, name: Bytes<'_>, value: *mut Bytes<'static>) -> u32,
    /// Since 1.4. Answers [`action::PAGE`], once: the value of Content-Type, and the page.
    pub page: unsafe extern "C" fn(turn: *mut Turn, content_type: Bytes<'_>, page: Bytes<'_>) -> u32,
    /// Since 1.4. Negotiates a telnet option: `verb` is WILL 251, WONT 252, DO 253 or DONT 254. An
    /// option that was asked for is agreed to whenever the peer offers it. Only telnet has any.
    pub negotiate: unsafe extern "C" fn(turn: *mut Turn, verb: u32, option: u32) -> u32,
    /// Since 1.4. Sends a subnegotiation of a telnet option; elsewhere nothing happens.
    pub subnegotiate: unsafe extern "C" fn(turn: *mut Turn, option: u32, data: Bytes<'_>) -> u32,
    /// Since 1.4. Sends a prompt: on telnet EOR or GA stands behind it, as was negotiated.
    pub prompt: unsafe extern "C" fn(turn: *mut Turn, text: Bytes<'_>) -> u32,
    /// Since 1.4. Sends a datagram to an address (IP and port, as text), from the UDP port that the
    /// turn's own datagram came to, else from the first one of the service; at most once. The
    /// host's limit allows other addresses than that of the turn's own datagram, or none.
    pub send_datagram: unsafe extern "C" fn(turn: *mut Turn, to: Bytes<'_>, data: Bytes<'_>) -> u32,
    /// Since 1.5. Makes the session's stream one of TLS, behind what was sent so far. The peer's
    /// bytes behind this message are its handshake. [`action::TLS_STARTED`] comes next, or the end.
    /// `server_name`: the name that a server's certificate must have; empty, unless the host has
    /// connected. Invalid over UDP, Unix sockets, WebSocket and TLS.
    pub start_tls: unsafe extern "C" fn(turn: *mut Turn, server_name: Bytes<'_>) -> u32,
    /// Since 1.5. Connects over TLS, like [`Host::connect`], to a server of this name.
    pub connect_tls: unsafe extern "C" fn(
        turn: *mut Turn,
        service: Bytes<'_>,
        addr: Bytes<'_>,
        server_name: Bytes<'_>,
        context: Bytes<'_>,
        number: *mut u64,
    ) -> u32,
    /// Since 1.5. Nanoseconds since 1970, UTC, by the machine's clock; 0: earlier. Read once
    /// for a pass: a turn that runs again in it is told the same. It may go back.
    pub wall: unsafe extern "C" fn(turn: *mut Turn) -> u64,
    /// Since 1.6. Finds an entry of a table in either direction.
    pub table_seek: table::Seek,
    /// Since 1.6. Drops all entries of a table whose keys start with a prefix.
    pub table_drop_prefix: table::DropPrefix,
    /// Since 1.6. Writes an entry with a deadline.
    pub table_put_until: table::PutUntil,
}

/// The one function that a library exports.
pub type Entry = unsafe extern "C" fn() -> *const Library;
