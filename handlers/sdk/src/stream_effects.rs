//! Effects on streams: connections that the host makes, and TLS on one in use.

use crate::turn::Turn;
use std::net::SocketAddr;

impl<S> Turn<'_, S> {
    /// Connects to an address; the connection becomes a session of `service`, of this library or
    /// another one. That session gets [`crate::Action::Dialed`] with `context` and the number of
    /// this session. This session gets [`crate::Action::Connect`] with the outcome, once, and with
    /// the number that this method returns.
    ///
    /// Names are not resolved here: that may take long, so it is a job.
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
    /// The service needs a certificate (`tls` in its configuration). The turn fails on a session
    /// over UDP, a Unix socket, WebSocket or TLS, and on one that the host has connected.
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
}
