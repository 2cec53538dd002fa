//! Functions of the host, which a library calls during a turn.

use super::bytes::Bytes;
use super::turn::Turn;
use super::{fault, level, table};
use std::sync::atomic::AtomicU32;

/// Functions that a turn may call on the host. Effects are staged, and applied together when the
/// turn succeeds.
///
/// `turn` is what [`super::Service::run`] got, and valid until it returns.
#[repr(C)]
pub struct Host {
    /// Size of this struct.
    pub size: u32,
    /// Most detailed [`level`] that the operator wants to see of this library. It changes while the
    /// library runs, so read it when an event happens. A `uint32_t` for C.
    pub log_level: AtomicU32,
    /// Ends a turn that succeeded: its effects count. 1: go on with the next action; 0: return now.
    pub turn_ok: unsafe extern "C" fn(turn: *mut Turn) -> u32,
    /// Ends a turn that failed: its effects are dropped. `run` must return now. After the last
    /// turn, with [`super::RUN_STATE_LOST`]: the state can't be handed over.
    pub turn_failed: unsafe extern "C" fn(turn: *mut Turn, fault: *const fault::Fault<'_>),
    /// State that the successful turns of this call left, if it changed. At most once in a `run`.
    pub state: unsafe extern "C" fn(turn: *mut Turn, state: Bytes<'_>),
    /// Address of the peer as text, valid until the next call with this turn.
    pub peer: unsafe extern "C" fn(turn: *mut Turn, text: *mut Bytes<'static>) -> u32,
    /// Sends `count` pieces to the session's peer, one after the other.
    pub send: unsafe extern "C" fn(turn: *mut Turn, parts: *const Bytes<'_>, count: usize) -> u32,
    /// Closes the session once its output is flushed. Ends the batch.
    pub close: unsafe extern "C" fn(turn: *mut Turn) -> u32,
    /// Adds the session to a topic of its library. A name is any bytes; before 1.6, it is UTF-8
    /// without a line feed. Does nothing if the session is there.
    pub subscribe: unsafe extern "C" fn(turn: *mut Turn, topic: Bytes<'_>) -> u32,
    /// Takes the session off a topic. Does nothing if it isn't there.
    pub unsubscribe: unsafe extern "C" fn(turn: *mut Turn, topic: Bytes<'_>) -> u32,
    /// Sends bytes to every subscriber of a topic. `flags`: 0, or [`super::BROADCAST_OTHERS`],
    /// [`super::BROADCAST_LINE`] and [`super::BROADCAST_DROP_IF_SLOW`], or any of them.
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
    /// nanoseconds after this batch's `now_ns`. `flags`: 0 or [`super::TIMER_OF_SERVICE`].
    pub set_timer: unsafe extern "C" fn(turn: *mut Turn, name: Bytes<'_>, after_ns: u64, flags: u32) -> u32,
    /// Since 1.2. Cancels a timer: it does not fire any more. Does nothing if there is none.
    pub cancel_timer: unsafe extern "C" fn(turn: *mut Turn, name: Bytes<'_>, flags: u32) -> u32,
    /// Since 1.2. Sends a note to a session, this one or another, which runs a turn over it.
    pub note: unsafe extern "C" fn(turn: *mut Turn, session: u64, data: Bytes<'_>) -> u32,
    /// Since 1.2. Publishes a message: every subscriber of a topic runs a turn over it. `flags`: 0
    /// or [`super::BROADCAST_OTHERS`].
    pub publish: unsafe extern "C" fn(turn: *mut Turn, topic: Bytes<'_>, data: Bytes<'_>, flags: u32) -> u32,
    /// Since 1.2. Starts a job of the service on another thread; its number goes to `number`.
    /// `flags`: 0 or [`super::JOB_ONCE`].
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
    /// Since 1.4. Fact about the connection by its name, valid until the next call with this
    /// turn. [`super::status::ABSENT`]: there is none. Over WebSocket, [`super::action::OPENED`]
    /// and [`super::action::PAGE`] know `path`, `query`, `protocol`, `host`, `origin`,
    /// `user-agent`, `cookie` and `x-forwarded-for`; [`super::action::CLOSED`] knows `close-code`
    /// and `close-reason`.
    pub fact: unsafe extern "C" fn(turn: *mut Turn, name: Bytes<'_>, value: *mut Bytes<'static>) -> u32,
    /// Since 1.4. Answers [`super::action::PAGE`], once: the value of Content-Type, and the page.
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
    /// bytes behind this message are its handshake. [`super::action::TLS_STARTED`] comes next, or
    /// the end. `server_name`: the name that a server's certificate must have; empty, unless the
    /// host has connected. Invalid over UDP, Unix sockets, WebSocket and TLS.
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
    /// Since 1.6. Gives a name of the service to the session. The session that held it loses it,
    /// and its number goes to `before`; 0: nobody did. A name goes with its session.
    pub register_name: unsafe extern "C" fn(turn: *mut Turn, name: Bytes<'_>, before: *mut u64) -> u32,
    /// Since 1.6. Gives up a name. Does nothing if the session does not hold it.
    pub unregister_name: unsafe extern "C" fn(turn: *mut Turn, name: Bytes<'_>) -> u32,
    /// Since 1.6. Returns the session that holds a name of the service; 0: nobody does.
    pub whereis: unsafe extern "C" fn(turn: *mut Turn, name: Bytes<'_>) -> u64,
    /// Since 1.6. Finds the first name of the service that is not before `from`, and returns the
    /// session that holds it; 0: there is none. `name` is valid until the next call with this turn.
    pub name_next: unsafe extern "C" fn(turn: *mut Turn, from: Bytes<'_>, name: *mut Bytes<'static>) -> u64,
    /// Since 1.6. Wakes a session of this library, this one or another: it runs a turn of
    /// [`super::action::WOKEN`]. Wakes that wait for one turn are one, and none is dropped. A
    /// session that wakes itself has that turn in the next pass, before its next message.
    pub wake: unsafe extern "C" fn(turn: *mut Turn, session: u64) -> u32,
    /// Since 1.6. Broadcasts, like [`Host::broadcast`], to every subscriber of any of `count`
    /// topics, once.
    pub broadcast_any: unsafe extern "C" fn(
        turn: *mut Turn,
        topics: *const Bytes<'_>,
        count: usize,
        data: Bytes<'_>,
        flags: u32,
    ) -> u32,
    /// Since 1.6. Sends bytes to a session of this library. `flags`: those of [`Host::broadcast`].
    pub send_to: unsafe extern "C" fn(turn: *mut Turn, session: u64, data: Bytes<'_>, flags: u32) -> u32,
    /// Since 1.6. Closes a session of this library, behind the actions that wait for it.
    pub close_session: unsafe extern "C" fn(turn: *mut Turn, session: u64) -> u32,
    /// Since 1.6. Returns the number of sessions on a topic, as this batch found it.
    pub topic_len: unsafe extern "C" fn(turn: *mut Turn, topic: Bytes<'_>) -> u64,
    /// Since 1.6. Finds the first topic of this library that is not before `from`, as this batch
    /// found them. `name` is valid until the next call with this turn. [`super::status::ABSENT`]:
    /// there is none.
    pub topic_next: unsafe extern "C" fn(turn: *mut Turn, from: Bytes<'_>, name: *mut Bytes<'static>) -> u32,
    /// Since 1.6. Wakes this session once its output is sent. A wake that waits already is that
    /// turn, and a takeover brings it earlier: [`Host::unsent`] tells.
    pub wake_when_drained: unsafe extern "C" fn(turn: *mut Turn) -> u32,
    /// Since 1.6. Returns the bytes of output that the kernel had not taken when the batch began.
    pub unsent: unsafe extern "C" fn(turn: *mut Turn) -> u64,
    /// Since 1.6. Returns the first open session of the service whose number is above `after`; 0:
    /// there is none.
    pub session_next: unsafe extern "C" fn(turn: *mut Turn, after: u64) -> u64,
    /// Since 1.6. Finds an entry of a table in either direction.
    pub table_seek: table::Seek,
    /// Since 1.6. Drops all entries of a table whose keys start with a prefix.
    pub table_drop_prefix: table::DropPrefix,
    /// Since 1.6. Writes an entry with a deadline.
    pub table_put_until: table::PutUntil,
    /// Since 1.6. Bounds the messages that the session's peer may send, from the next one on. A
    /// longer one ends the session, as one beyond the service's bound does, which holds as well.
    /// 0: that bound alone.
    pub frame_max: unsafe extern "C" fn(turn: *mut Turn, bytes: u32) -> u32,
    /// Since 1.6. Has the session told by [`super::action::IDLE`] once nothing came from its peer
    /// for `after_ns` nanoseconds, which count from this pass at the earliest. Each silence is
    /// told once; another call begins another one. 0: none is told.
    pub idle_after: unsafe extern "C" fn(turn: *mut Turn, after_ns: u64) -> u32,
    /// Since 1.6. Takes a token of a key's bucket in the service. The bucket holds `burst` tokens,
    /// and gets one back each `interval_ns`. [`super::status::ABSENT`]: none is left. Buckets begin
    /// anew with each process of the host.
    pub allow: unsafe extern "C" fn(turn: *mut Turn, key: Bytes<'_>, interval_ns: u64, burst: u32) -> u32,
    /// Since 1.6. Returns the next random number of this turn. A turn that runs again gets the same
    /// ones; no peer can tell them before.
    pub random: unsafe extern "C" fn(turn: *mut Turn) -> u64,
    /// Since 1.6. Writes numbers of the host, as this batch found them, into what the library has:
    /// as many bytes as [`Stats::size`] says.
    pub stats: unsafe extern "C" fn(turn: *mut Turn, stats: *mut Stats) -> u32,
    /// Since 1.7. Says what happens if the turn under way fails, beside that its effects are
    /// dropped: the peer is sent this line, unless it is empty, and with [`super::FAULT_CLOSES`]
    /// in `flags` the session is closed. The last call counts.
    pub fault_reply: unsafe extern "C" fn(turn: *mut Turn, line: Bytes<'_>, flags: u32) -> u32,
}

/// Numbers of the host, for handlers that show them.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Size of this struct, as the library knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// Sessions of the host, closing ones included.
    pub sessions: u64,
    /// Sessions of the service, closing ones included.
    pub service_sessions: u64,
    /// Turns that the service has run, failed ones included.
    pub turns: u64,
    /// Turns of the service that failed.
    pub faults: u64,
    /// Generation of the build that runs.
    pub generation: u64,
    /// Nanoseconds since the host began.
    pub uptime_ns: u64,
    /// Bytes of the store.
    pub store_bytes: u64,
    /// Bytes that the store may have.
    pub store_bytes_max: u64,
}
