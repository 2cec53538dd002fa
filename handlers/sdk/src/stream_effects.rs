//! Effects on streams: connections that the host makes, TLS on one in use, terms for a peer.

use crate::turn::Turn;
use std::net::SocketAddr;
use std::time::Duration;

impl<S> Turn<'_, S> {
    /// Connects to an address; the connection becomes a session of `service`, of this library or
    /// another one. That session gets [`crate::Action::Dialed`] with `context` and the number of
    /// this session. This session gets [`crate::Action::Connect`] with the outcome, once, and with
    /// the number that this method returns.
    ///
    /// Names are not resolved here: that may take long, so it is a job.
    ///
    /// ```
    /// use greenroom_handler::testing::TestHost;
    /// use greenroom_handler::{Action, Handler, OrTell, Result, Turn, handler};
    /// use std::net::SocketAddr;
    ///
    /// struct Probe;
    /// #[handler]
    /// impl Handler for Probe {
    ///     const SERVICE: &'static str = "probe";
    ///     fn message(&self, turn: &mut Turn, line: &[u8]) -> Result {
    ///         let line = String::from_utf8_lossy(line);
    ///         let addr: SocketAddr = line.parse().or_tell("An address, please.")?;
    ///         match addr.port() {
    ///             443 => _ = turn.connect_tls("probe", addr, "example.org", b""),
    ///             _ => _ = turn.connect("probe", addr, b""),
    ///         }
    ///         Ok(())
    ///     }
    ///     fn other(&self, turn: &mut Turn, action: Action) -> Result {
    ///         match action {
    ///             Action::Connect { result: Err(why), .. } => turn.send_line(why),
    ///             // Comes to the session that is the connection.
    ///             Action::Dialed { .. } => turn.send_line("HELO"),
    ///             _ => {}
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut host = TestHost::<Probe>::new("{}").unwrap();
    /// let peer = host.open();
    /// host.line(peer, "127.0.0.1:443");
    /// assert_eq!(host.connects()[0].2, "127.0.0.1:443 as example.org");
    /// // A test host connects nothing. The test says what becomes of it.
    /// host.turn(peer, Action::Connect { number: 1, result: Err("connection refused") });
    /// assert_eq!(host.output(peer), "connection refused\n");
    /// ```
    pub fn connect(&mut self, service: &str, addr: SocketAddr, context: impl AsRef<[u8]>) -> u64 {
        let begun = self.host.connect(service, &addr.to_string(), context.as_ref());
        begun.unwrap_or_else(|status| {
            self.note_refusal("a connection", status);
            0
        })
    }

    /// Connects to an address over TLS, like [`Turn::connect`]. The server's certificate must have
    /// the name that is given, and be signed by one of the system's roots, or by those of the
    /// service's configuration (`roots`). A handshake that fails is a connection that failed.
    pub fn connect_tls(
        &mut self,
        service: &str,
        addr: SocketAddr,
        server_name: &str,
        context: impl AsRef<[u8]>,
    ) -> u64 {
        let begun = self.host.connect_tls(service, &addr.to_string(), server_name, context.as_ref());
        begun.unwrap_or_else(|status| {
            self.note_refusal("a connection over TLS", status);
            0
        })
    }

    /// Makes this session's stream one of TLS (STARTTLS). What was sent so far goes out as it is;
    /// all that is sent later goes over TLS. Bytes of the peer behind this message are those of its
    /// handshake, so no command can be slipped in. Nothing runs for the session until
    /// [`crate::Action::TlsStarted`] comes. If the handshake fails, the session is closed.
    ///
    /// The framing begins anew with TLS: options of telnet are those of a fresh session. A session
    /// that ends before drops what its peer has not taken. Notes and timers of the meantime have
    /// their turns before [`crate::Action::TlsStarted`].
    ///
    /// The service needs a certificate (`tls` in its configuration). The turn fails on a session
    /// over UDP, a Unix socket, WebSocket or TLS, and on one that the host has connected.
    ///
    /// ```
    /// use greenroom_handler::testing::TestHost;
    /// use greenroom_handler::{Action, Handler, Result, Turn, handler};
    ///
    /// struct Mail;
    /// #[handler]
    /// impl Handler for Mail {
    ///     const SERVICE: &'static str = "mail";
    ///     /// Whether TLS has started.
    ///     type State = bool;
    ///     fn message(&self, turn: &mut Turn<bool>, line: &[u8]) -> Result {
    ///         match line {
    ///             b"STARTTLS" if *turn.state => turn.send_line("503 again?"),
    ///             b"STARTTLS" => {
    ///                 turn.send_line("220 go ahead");
    ///                 // On a connection that we made: `start_tls_as_client("mail.example.org")`.
    ///                 turn.start_tls();
    ///             }
    ///             _ => turn.send_line("500 what?"),
    ///         }
    ///         Ok(())
    ///     }
    ///     fn other(&self, turn: &mut Turn<bool>, action: Action) -> Result {
    ///         *turn.state |= action == Action::TlsStarted;
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut host = TestHost::<Mail>::new("{}").unwrap();
    /// let peer = host.open();
    /// assert_eq!(host.line(peer, "STARTTLS"), "220 go ahead\n");
    /// assert_eq!(host.line(peer, "STARTTLS"), "503 again?\n");
    /// ```
    pub fn start_tls(&mut self) {
        let status = self.host.start_tls("");
        self.note_refusal("TLS", status);
    }

    /// Makes the stream of a session that the host has connected one of TLS, as the client. The
    /// server's certificate must have the name that is given, as in [`Turn::connect_tls`]. The rest
    /// is as in [`Turn::start_tls`].
    pub fn start_tls_as_client(&mut self, server_name: &str) {
        let status = self.host.start_tls(server_name);
        self.note_refusal("TLS", status);
    }

    /// Bounds the messages that this session's peer may send, in bytes, from the next one on. The
    /// peer of a longer one is treated as one that breaks the service's own bound: its session is
    /// closed by a limit. The bound stays until another call, over reloads and crashes; 0 takes it
    /// away. The service's bound always holds.
    ///
    /// ```
    /// use greenroom_handler::{Action, Turn};
    /// use std::time::Duration;
    ///
    /// /// A stranger may send short lines, and is asked for a sign of life after a minute.
    /// fn guard(turn: &mut Turn<'_, bool>, action: Action<'_>) {
    ///     match action {
    ///         Action::Opened => {
    ///             turn.frame_max(100);
    ///             turn.idle_after(Duration::from_secs(60));
    ///         }
    ///         Action::Message(b"secret") => turn.frame_max(0),
    ///         Action::Idle if *turn.state => turn.close(),
    ///         Action::Idle => {
    ///             *turn.state = true;
    ///             turn.send_line("PING");
    ///             turn.idle_after(Duration::from_secs(10));
    ///         }
    ///         _ => {}
    ///     }
    /// }
    /// ```
    pub fn frame_max(&mut self, bytes: usize) {
        let status = self.host.frame_max(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.note_refusal("a bound of messages", status);
    }

    /// Runs a turn of [`crate::Action::Idle`] once nothing came from this session's peer for so
    /// long. Any byte counts, also a pong of WebSocket. Each silence is told once. The time counts
    /// from the last byte, or from this call if that is later: so a call in the turn of
    /// [`crate::Action::Idle`] is told of the next stretch of the same silence. It goes on over
    /// reloads and crashes. `None`, or no time, takes it away.
    ///
    /// While this session's input waits, as [`Turn::hold`] has it, its peer is not silent.
    pub fn idle_after(&mut self, silence: impl Into<Option<Duration>>) {
        let ns = silence.into().map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX));
        let status = self.host.idle_after(ns);
        self.note_refusal("to be told of a silence", status);
    }
}
