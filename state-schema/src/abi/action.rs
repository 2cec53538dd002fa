//! Kinds of actions ([`super::Action::kind`]).

/// Session opened; `data` is empty.
pub const OPENED: u32 = 1;
/// A whole frame arrived; `data` is the message without its framing.
pub const MESSAGE: u32 = 2;
/// Session ended; `data` is empty and [`super::Action::detail`] is one of [`super::closed`]. The
/// session's last turn.
pub const CLOSED: u32 = 3;
/// Since 1.2. A timer is due; [`super::Action::name`] is its name. It comes to a session, or to the
/// service itself.
pub const TIMER: u32 = 4;
/// Since 1.2. A note came from session [`super::Action::from`]; `data` is what it says.
pub const NOTE: u32 = 5;
/// Since 1.2. Session [`super::Action::from`] published `data` on topic [`super::Action::name`].
pub const PUBLISHED: u32 = 6;
/// Since 1.2. Job [`super::Action::from`], whose function is [`super::Action::name`], is over;
/// [`super::Action::detail`] is one of [`super::job`], and `data` the result or the reason.
pub const JOB: u32 = 7;
/// Since 1.2. The first action behind [`OPENED`] of a session that session [`super::Action::from`]
/// connected; `data` is what it gave along.
pub const DIALED: u32 = 8;
/// Since 1.2. Connection [`super::Action::from`] is open or has failed; [`super::Action::detail`]
/// is one of [`super::connect`], and `data` its session's number in decimal digits, or the reason.
pub const CONNECT: u32 = 9;
/// Since 1.4. A peer of a WebSocket service asks for a page by GET or HEAD. In no batch:
/// [`super::Service::page`] runs the turn. Without an answer of the turn the peer gets status 404.
/// There is no other turn of such a session, neither before nor after.
pub const PAGE: u32 = 10;
/// Since 1.4. The peer said something about a telnet option, [`super::Action::detail`]: an option
/// went on or off, a request was answered, or an offer was refused. `data` are two bytes: what it
/// said, WILL 251, WONT 252, DO 253 or DONT 254, and 1 if the option is on now, else 0.
pub const NEGOTIATED: u32 = 11;
/// Since 1.4. The peer sent a subnegotiation of telnet option [`super::Action::detail`], which is
/// on; `data` are its bytes behind the option.
pub const SUBNEGOTIATION: u32 = 12;
/// Since 1.4. A datagram came to the service itself: `data` are its bytes, [`super::Action::name`]
/// is the address that it came from, as IP and port. What the turn sends goes back there, a
/// datagram for each send. [`super::Action::detail`] and [`super::Action::from`] are the host's.
pub const DATAGRAM: u32 = 13;
/// Since 1.5. The session's stream is one of TLS from here on, as [`super::Host::start_tls`] asked;
/// `data` is empty. [`super::Host::fact`] knows what was agreed on.
pub const TLS_STARTED: u32 = 14;
/// Since 1.5. First turn of the service itself under the build that serves from here on;
/// [`super::Action::detail`] is one of [`super::started`]. Not sent when a process takes over.
pub const STARTED: u32 = 15;
/// Since 1.6. Session was woken, by [`super::Host::wake`] of itself or another one; `data` is
/// empty.
pub const WOKEN: u32 = 16;
/// Since 1.6. Peer of the session was silent as long as [`super::Host::idle_after`] says; `data` is
/// empty.
pub const IDLE: u32 = 17;
/// Since 1.6. Notes and messages to the session were dropped behind the actions before this one, as
/// too many waited; [`super::Action::from`] is their number, and `data` is empty.
pub const MISSED: u32 = 18;
/// Since 1.6. An entry of table [`super::Action::name`] is over, and gone; `data` is its key. It
/// comes to the service itself that owns the table, if the table has
/// [`super::table::HEARS_OF_EXPIRY`]. Not for an entry that a turn wrote again, deleted or dropped
/// before.
pub const EXPIRED: u32 = 24;
/// Since 1.8. In a rehearsal alone, to a session whose state has a map with a key `asked` that is
/// not null: a dialogue whose question waits. The library runs that dialogue along its answers and
/// no further. The turn ends as one that failed, with [`super::fault::DIALOGUE`]; or it succeeds,
/// if there is no dialogue. The host drops all its effects. `data` is empty.
pub const DIALOGUE: u32 = 25;
