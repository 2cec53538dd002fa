//! Effects of a turn. They take effect together when the callback returns `Ok`, and not at all
//! otherwise.
//!
//! Each method stages one effect with the host and returns at once. A turn may run twice, if
//! the worker dies before the pass is committed; its effects happen once. If the host refuses
//! an effect, the first refusal fails the turn after the callback has returned.

use crate::fault::Fault;
use crate::host::Host;
use greenroom_state::abi::{TIMER_OF_SERVICE, status};
use greenroom_state::dialogue_report::Retraced;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// State of the session. Writing to it marks it changed; a turn that only reads encodes nothing.
///
/// ```
/// use greenroom_handler::Turn;
///
/// #[derive(Default)]
/// struct Count {
///     lines: u64,
/// }
///
/// /// Reads through `Deref`, and marks nothing.
/// fn is_new(turn: &Turn<Count>) -> bool {
///     turn.state.lines == 0
/// }
///
/// /// Writes through `DerefMut`: the state is stored behind the turn.
/// fn count(turn: &mut Turn<Count>) {
///     turn.state.lines += 1;
/// }
/// ```
pub struct State<'a, S> {
    /// Decoded state, shared by the turns of a batch.
    pub(crate) value: &'a mut S,
    /// Whether the turn had mutable access. Writing the same value counts, too.
    pub(crate) touched: bool,
}

impl<S> Deref for State<'_, S> {
    type Target = S;
    fn deref(&self) -> &S {
        self.value
    }
}

impl<S> DerefMut for State<'_, S> {
    fn deref_mut(&mut self) -> &mut S {
        self.touched = true;
        self.value
    }
}

/// Turn: one run of the callback.
///
/// When the host refuses an effect because a limit is reached, the turn fails after the callback
/// returned, with the limit's name. So most methods return nothing to check.
///
/// ```
/// use greenroom_handler::testing::TestHost;
/// use greenroom_handler::{Handler, Result, Turn, handler};
/// use std::time::Duration;
///
/// struct Clock;
/// #[handler]
/// impl Handler for Clock {
///     const SERVICE: &'static str = "clock";
///     type State = Duration;
///     fn opened(&self, turn: &mut Turn<Duration>) -> Result {
///         *turn.state = turn.now();
///         let (number, peer) = (turn.session(), turn.peer());
///         let by = turn.fact("endpoint").unwrap_or_default();
///         turn.send_line(format!("session {number}, from {peer}, by {by}"));
///         Ok(())
///     }
///     fn message(&self, turn: &mut Turn<Duration>, line: &[u8]) -> Result {
///         match line {
///             b"bye" => {
///                 turn.send("bye\n");
///                 turn.close();
///             }
///             b"go" => turn.close_with(4000, "as you say"),
///             _ => {
///                 let here = turn.now() - *turn.state;
///                 turn.send_line(format!("{} s", here.as_secs()));
///             }
///         }
///         Ok(())
///     }
/// }
///
/// let mut host = TestHost::<Clock>::new("{}").unwrap();
/// let (ann, bob) = (host.open(), host.open());
/// assert_eq!(host.output(ann), "session 1, from 127.0.0.1:1, by line\n");
/// host.advance(Duration::from_secs(5));
/// assert_eq!(host.line(ann, "?"), "5 s\n");
/// assert_eq!(host.line(ann, "bye"), "bye\n");
/// host.line(bob, "go");
/// assert!(host.is_closed(ann) && host.is_closed(bob));
/// ```
pub struct Turn<'a, S = ()> {
    /// The session's state.
    pub state: State<'a, S>,
    /// Host that stages the effects.
    pub(crate) host: &'a mut dyn Host,
    pub(crate) session: u64,
    pub(crate) now_ns: u64,
    /// First effect that the host refused, in words.
    pub(crate) refused: Option<&'static str>,
    /// Place for what becomes of the dialogue, in a rehearsal that asks for it.
    pub(crate) retraces: Option<&'a mut Option<Retraced>>,
}

impl<S> Turn<'_, S> {
    /// Number of the session, never used twice in a host.
    pub fn session(&self) -> u64 {
        self.session
    }

    /// Time on a clock that never goes back and that survives reloads; it has no relation to the
    /// calendar, and begins anew with the machine. [`Turn::wall`] is for what is stored.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.now_ns)
    }

    /// Time of the calendar, since 1970, UTC. It is read once for a pass of the host, so a turn
    /// that runs again is told the same. Operators and time services set this clock: it may go
    /// back.
    ///
    /// ```
    /// use greenroom_handler::{Fault, Table, Turn};
    /// use std::time::Duration;
    ///
    /// /// Ends of bans, in seconds since 1970: saved tables outlive the machine.
    /// const BANS: Table<u64> = Table::new("bans");
    ///
    /// fn ban(turn: &mut Turn<'_, ()>, who: &str) -> Result<(), Fault> {
    ///     let until = turn.wall() + Duration::from_secs(3600);
    ///     BANS.put(turn, who, &until.as_secs())
    /// }
    /// ```
    pub fn wall(&mut self) -> Duration {
        Duration::from_nanos(self.host.wall())
    }

    /// Address of the peer, as text: `127.0.0.1:54321` for TCP, `udp://127.0.0.1:54321` for UDP,
    /// `unix:pid=7,uid=8,gid=9` for a Unix socket. A client behind a PROXY header comes before its
    /// proxy: `203.0.113.7:4000 via 10.0.0.1:5000`.
    pub fn peer(&mut self) -> String {
        self.host.peer()
    }

    /// Returns a fact about the connection; `None`: there is none of the name. Bytes that are not
    /// UTF-8 become U+FFFD.
    ///
    /// Over WebSocket, [`crate::Action::Opened`] knows `path`, `query`, `protocol`, `host`,
    /// `origin`, `user-agent`, `cookie` and `x-forwarded-for`. [`crate::Action::Closed`] knows
    /// `close-code` and `close-reason` if the peer gave them. Other turns know none of these: keep
    /// in the state what is needed later.
    ///
    /// Over TLS, each turn knows `tls-version` and `tls-suite`; `tls-server-name`, `tls-alpn` and
    /// `tls-client` (SHA-256 of the client's certificate), if there are any.
    ///
    /// Each turn knows `endpoint`, the kind by which the session came (`line`, `ws`, `datagram`),
    /// and `generation`, the number of the build that runs. It knows `transport` (`tcp`, `unix` or
    /// `udp`), which is the proxy's behind a PROXY header; `tls` (`yes` or `no`: TLS that a proxy
    /// ends is not seen), and `outbound` (`yes`: the host has connected).
    pub fn fact(&mut self, name: &str) -> Option<String> {
        self.host.fact(name).map(|value| String::from_utf8_lossy(&value).into_owned())
    }

    /// Sends bytes to the peer. In the turn of a datagram: a datagram to where that came from.
    #[inline]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let status = self.host.send(bytes.as_ref());
        self.note_refusal("a send", status);
    }

    /// Sends a line to the peer: the bytes and LF. Over WebSocket it is one message of text,
    /// without LF; bytes that are not UTF-8 become U+FFFD.
    #[inline]
    pub fn send_line(&mut self, line: impl AsRef<[u8]>) {
        let status = self.host.send_line(line.as_ref());
        self.note_refusal("a send", status);
    }

    /// Sends a datagram to any address, from the UDP port that the turn's own datagram came to,
    /// else from the service's first one. At most once, and silently lost if the service has
    /// none.
    ///
    /// Limit `datagram_amplification_max` refuses addresses other than that of the turn's own
    /// datagram, unless the operator lifts it: the host must not be an amplifier.
    ///
    /// ```
    /// use greenroom_handler::testing::TestHost;
    /// use greenroom_handler::{Action, Endpoint, Handler, Result, Turn, handler};
    /// use std::net::SocketAddr;
    ///
    /// struct Meet;
    /// #[handler]
    /// impl Handler for Meet {
    ///     const SERVICE: &'static str = "meet";
    ///     const ENDPOINTS: &'static [Endpoint] = &[Endpoint::udp(4025)];
    ///     fn handle_service(&self, turn: &mut Turn, action: Action) -> Result {
    ///         if let Action::Datagram { from, bytes } = action {
    ///             let other: SocketAddr = std::str::from_utf8(bytes)?.parse()?;
    ///             // The operator must allow this: `datagram_amplification_max`.
    ///             turn.send_datagram(other, from.to_string());
    ///             turn.send("told");
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut host = TestHost::<Meet>::new("{}").unwrap();
    /// let (ann, bob) = ("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap());
    /// let sent = host.datagram(ann, "10.0.0.2:2");
    /// assert_eq!(sent, [(bob, b"10.0.0.1:1".to_vec()), (ann, b"told".to_vec())]);
    /// ```
    pub fn send_datagram(&mut self, to: SocketAddr, bytes: impl AsRef<[u8]>) {
        let status = self.host.send_datagram(&to.to_string(), bytes.as_ref());
        self.note_refusal("a datagram", status);
    }

    /// Closes the session once its output is flushed. Its last turn, [`crate::Action::Closed`],
    /// follows.
    pub fn close(&mut self) {
        let status = self.host.close();
        self.note_refusal("a close", status);
    }

    /// Closes the session as [`Turn::close`] does, and tells the peer a code and a reason, if its
    /// framing has them. WebSocket has 1000 and 3000 to 4999, and a reason of 123 bytes at most.
    pub fn close_with(&mut self, code: u16, reason: &str) {
        let status = self.host.close_with(code, reason);
        self.note_refusal("a close", status);
    }

    /// Sets a timer of this session: after that time it fires once, [`crate::Action::Timer`]. A
    /// timer of the same name is set again. A session's timers end with it.
    ///
    /// ```
    /// use greenroom_handler::testing::TestHost;
    /// use greenroom_handler::{Action, Handler, Result, Started, Turn, handler};
    /// use std::time::Duration;
    ///
    /// struct Nap;
    /// #[handler]
    /// impl Handler for Nap {
    ///     const SERVICE: &'static str = "nap";
    ///     fn message(&self, turn: &mut Turn, line: &[u8]) -> Result {
    ///         match line {
    ///             b"stay" => turn.cancel_timer("sleepy"),
    ///             // Set again, it fires later.
    ///             _ => turn.set_timer("sleepy", Duration::from_secs(60)),
    ///         }
    ///         turn.subscribe("all");
    ///         Ok(())
    ///     }
    ///     fn timer(&self, turn: &mut Turn, name: &str) -> Result {
    ///         turn.send_line(name);
    ///         Ok(())
    ///     }
    ///     fn handle_service(&self, turn: &mut Turn, action: Action) -> Result {
    ///         match action {
    ///             Action::Started(Started::Host) => {
    ///                 turn.set_service_timer("noon", Duration::from_secs(100));
    ///             }
    ///             Action::Started(_) => turn.cancel_service_timer("noon"),
    ///             Action::Timer(name) => turn.broadcast_line("all", name),
    ///             _ => {}
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut host = TestHost::<Nap>::new("{}").unwrap();
    /// host.turn(0, Action::Started(Started::Host));
    /// let (ann, bob) = (host.open(), host.open());
    /// host.line(ann, "hm");
    /// host.line(bob, "hm");
    /// host.line(bob, "stay");
    /// host.advance(Duration::from_secs(100));
    /// assert_eq!(host.output(ann), "sleepy\nnoon\n");
    /// assert_eq!(host.output(bob), "noon\n");
    /// ```
    pub fn set_timer(&mut self, name: &str, after: Duration) {
        let status = self.host.set_timer(name, nanoseconds(after), 0);
        self.note_refusal("a timer", status);
    }

    /// Cancels a timer: from here on it does not fire, even if its time is over.
    pub fn cancel_timer(&mut self, name: &str) {
        let status = self.host.cancel_timer(name, 0);
        self.note_refusal("a timer", status);
    }

    /// Sets a timer of the service, which fires in [`crate::Handler::handle_service`] and outlives
    /// any session. Set it again there for a tick.
    pub fn set_service_timer(&mut self, name: &str, after: Duration) {
        let status = self.host.set_timer(name, nanoseconds(after), TIMER_OF_SERVICE);
        self.note_refusal("a timer", status);
    }

    /// Cancels a timer of the service.
    pub fn cancel_service_timer(&mut self, name: &str) {
        let status = self.host.cancel_timer(name, TIMER_OF_SERVICE);
        self.note_refusal("a timer", status);
    }

    /// Waits for another session's output. If that session's peer leaves too much of its output
    /// untaken, or too many notes wait for it, this session's input waits until they are taken. A
    /// relay calls this each time behind the note that passes data on. Otherwise the other
    /// session's output grows to its limit, or notes are dropped.
    ///
    /// ```
    /// use greenroom_handler::{Action, Result, Turn};
    ///
    /// /// A relay: passes lines on, and takes no more than the other side does.
    /// fn message(turn: &mut Turn<Option<u64>>, line: &[u8]) -> Result {
    ///     match *turn.state {
    ///         Some(other) => {
    ///             turn.note(other, line);
    ///             turn.wait_for(other);
    ///         }
    ///         // No line is read before the other side is there.
    ///         None => turn.hold(),
    ///     }
    ///     Ok(())
    /// }
    ///
    /// fn other(turn: &mut Turn<Option<u64>>, action: Action) -> Result {
    ///     if let Action::Connect { result: Ok(session), .. } = action {
    ///         *turn.state = Some(session);
    ///         turn.go_on();
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn wait_for(&mut self, session: u64) {
        let status = self.host.wait_for(session);
        self.note_refusal("to wait", status);
    }

    /// Holds this session's input: no message comes, and nothing is read from the peer, until a
    /// turn calls [`Turn::go_on`]. Timers, notes and results still come.
    pub fn hold(&mut self) {
        let status = self.host.hold(true);
        self.note_refusal("to hold the input", status);
    }

    /// Ends [`Turn::hold`]: this session's input goes on.
    pub fn go_on(&mut self) {
        let status = self.host.hold(false);
        self.note_refusal("to go on", status);
    }

    /// Notes a refusal of the host. The first one counts.
    #[inline]
    pub(crate) fn note_refusal(&mut self, what: &'static str, status: u32) {
        if status != status::OK {
            self.refused.get_or_insert(what);
        }
    }

    /// Outcome of the turn: a refusal of the host fails it, unless the callback failed before.
    pub(crate) fn outcome(&mut self, result: Result<(), Fault>) -> Result<(), Fault> {
        result?;
        match self.refused {
            None => Ok(()),
            Some(what) => {
                let message = format!("the host refused {what}");
                Err(Fault::bare(greenroom_state::abi::fault::ERROR, message))
            }
        }
    }
}

/// Nanoseconds of a duration, at most `u64::MAX` of them.
pub(crate) fn nanoseconds(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}
