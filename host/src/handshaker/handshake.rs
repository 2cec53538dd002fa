//! Handshake of one connection: reads exactly the records that it needs, and nothing behind them.
//!
//! Bytes behind the client's last record stay in the kernel, for the worker. So no byte is handed
//! over, and the kernel's counts are those of the handshake.

use crate::tls::secrets::{Logged, extract};
use greenroom_core::input::TlsBegin;
use greenroom_core::tls::facts;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustls::Connection;
use rustls::client::{ClientConfig, ClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{ServerConfig, ServerConnection};
use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;
use x509_cert::der::Decode;

/// Bytes of a record's header.
const HEADER: usize = 5;
/// Longest body of a record: an encrypted one of TLS 1.2.
const BODY_MAX: usize = (1 << 14) + 2048;

/// Handshake under way.
pub(super) struct Handshake {
    socket: OwnedFd,
    connection: Connection,
    /// Beginning of what the peer says, which the worker has read.
    beginning: VecDeque<u8>,
    /// Record that is being read.
    record: Vec<u8>,
    logged: Logged,
    /// Bytes read and written.
    counts: (u64, u64),
    /// Reason why it fails, once an alert is on its way.
    failed: Option<String>,
    /// Time when it has failed.
    pub(super) until: Instant,
}

/// Side that the host has in a handshake.
pub(super) enum Side {
    /// Server, with its certificates.
    Server(Arc<ServerConfig>),
    /// Client of the server of this name.
    Client(Arc<ClientConfig>, String),
}

/// State of a handshake behind a step.
pub(super) enum Step {
    /// Waits for its peer.
    Waits,
    /// Done: the worker goes on.
    Done,
    /// Failed, for this reason.
    Failed(String),
}

impl Handshake {
    /// Begins a handshake. `beginning`: what the worker has read of it. Fails if the poll cannot
    /// watch the socket, and for a name that no server has.
    pub(super) fn begin(
        (registry, token): (&Registry, Token),
        socket: OwnedFd,
        side: Side,
        beginning: Vec<u8>,
        until: Instant,
    ) -> Result<Handshake, String> {
        let connection = match side {
            Side::Server(config) => ServerConnection::new(config).map(Connection::from),
            Side::Client(config, name) => {
                let name = ServerName::try_from(name).map_err(|e| e.to_string())?;
                ClientConnection::new(config, name).map(Connection::from)
            }
        };
        let connection = connection.map_err(|e| e.to_string())?;
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut SourceFd(&socket.as_raw_fd()), token, both).map_err(|e| e.to_string())?;
        let (record, logged) = (Vec::new(), Logged::default());
        let (beginning, counts) = (beginning.into(), (0, 0));
        Ok(Handshake { socket, connection, beginning, record, logged, counts, failed: None, until })
    }

    /// Goes on as far as the socket lets it.
    pub(super) fn step(&mut self) -> Step {
        loop {
            while self.connection.wants_write() {
                let mut out = Counted { socket: &self.socket, written: &mut self.counts.1 };
                match self.connection.write_tls(&mut out) {
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Step::Waits,
                    Err(e) => return Step::Failed(self.failed.take().unwrap_or_else(|| e.to_string())),
                }
            }
            if let Some(why) = self.failed.take() {
                return Step::Failed(why);
            }
            if !self.connection.is_handshaking() {
                return match self.beginning.is_empty() {
                    true => Step::Done,
                    false => Step::Failed("the peer has sent more before it was to".into()),
                };
            }
            match self.read() {
                Ok(true) => {}
                Ok(false) => return Step::Waits,
                Err(e) => return Step::Failed(e.to_string()),
            }
        }
    }

    /// Reads a part of a record, and gives rustls a record that is whole. False: nothing is there.
    fn read(&mut self) -> io::Result<bool> {
        let whole = match self.record.first_chunk::<HEADER>() {
            None => HEADER,
            Some(head) => HEADER + body_len(head),
        };
        let from = self.record.len();
        self.record.resize(whole, 0);
        let read = self.read_some(from);
        self.record.truncate(from + read.as_ref().map_or(0, |n| *n));
        match read {
            Ok(0) => return Err(io::Error::other("the peer has left")),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(e) => return Err(e),
            Ok(_) => {}
        }
        let is_whole = match self.record.first_chunk::<HEADER>() {
            None => false,
            Some(head) => self.record.len() == HEADER + body_len(head),
        };
        if is_whole {
            self.give();
        }
        Ok(true)
    }

    /// Reads into the record from a place on: the worker's part first, then the socket. Counts what
    /// the socket has given.
    fn read_some(&mut self, from: usize) -> io::Result<usize> {
        if !self.beginning.is_empty() {
            return self.beginning.read(&mut self.record[from..]);
        }
        let (n, _) = recv(&self.socket, &mut self.record[from..], RecvFlags::empty())?;
        self.counts.0 += n as u64;
        Ok(n)
    }

    /// Gives rustls a record. A failure is told to the peer first.
    fn give(&mut self) {
        let Handshake { connection, record, logged, .. } = self;
        let mut bytes = &record[..];
        let given = logged.during(|| {
            while !bytes.is_empty() {
                connection.read_tls(&mut bytes).map_err(|e| e.to_string())?;
                connection.process_new_packets().map_err(|e| e.to_string())?;
            }
            Ok(())
        });
        self.record.clear();
        self.failed = given.err();
    }

    /// Takes the outcome of a handshake that is done. The socket is closed here: the keeper has
    /// another descriptor.
    pub(super) fn finish(self, registry: &Registry) -> Result<TlsBegin, String> {
        self.leave(registry);
        let facts = self.facts();
        let state = extract(self.connection, &self.logged, self.counts)?;
        Ok(TlsBegin { state, facts })
    }

    /// Takes the socket out of the poll: the keeper's descriptor would keep it there, and each
    /// message of its session would wake this process.
    pub(super) fn leave(&self, registry: &Registry) {
        let _ = registry.deregister(&mut SourceFd(&self.socket.as_raw_fd()));
    }

    /// Facts for handlers and operators.
    fn facts(&self) -> Vec<u8> {
        let connection = &self.connection;
        let mut all: Vec<(&str, Vec<u8>)> = Vec::new();
        if let Some(version) = connection.protocol_version().and_then(|v| v.as_str().map(str::to_owned)) {
            all.push(("tls-version", version.replace("TLSv1_", "1.").into_bytes()));
        }
        if let Some(suite) = connection.negotiated_cipher_suite() {
            all.push(("tls-suite", suite.suite().as_str().unwrap_or_default().into()));
        }
        let asked = match connection {
            Connection::Server(connection) => connection.server_name(),
            Connection::Client(_) => None,
        };
        if let Some(name) = asked {
            all.push(("tls-server-name", name.into()));
        }
        if let Some(name) = connection.alpn_protocol() {
            all.push(("tls-alpn", name.to_vec()));
        }
        let own = connection.peer_certificates().filter(|_| matches!(connection, Connection::Server(_)));
        if let Some(certificate) = own.and_then(|all| all.first()) {
            all.push(("tls-client", fingerprint(certificate).into_bytes()));
            all.extend(subject(certificate).map(|name| ("tls-client-subject", name.into_bytes())));
        }
        facts::encode(all.iter().map(|(name, value)| (*name, &value[..])))
    }
}

/// Subject of a certificate, in the form of RFC 4514. `None`: it has none that can be read.
fn subject(certificate: &[u8]) -> Option<String> {
    let certificate = x509_cert::Certificate::from_der(certificate).ok()?;
    Some(certificate.tbs_certificate.subject.to_string()).filter(|name| !name.is_empty())
}

/// SHA-256 of a certificate, in hexadecimal.
fn fingerprint(certificate: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(certificate).iter().map(|b| format!("{b:02x}")).collect()
}

/// Length of the body that a header names. What is no record, or too long for one, has none: rustls
/// refuses it by its header, and the peer need not be waited for.
fn body_len(head: &[u8; HEADER]) -> usize {
    let len = usize::from(u16::from_be_bytes([head[3], head[4]]));
    match (20..=23).contains(&head[0]) && head[1] == 3 && len <= BODY_MAX {
        true => len,
        false => 0,
    }
}

/// Socket that counts what it takes.
struct Counted<'s> {
    socket: &'s OwnedFd,
    written: &'s mut u64,
}

impl io::Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = rustix::io::retry_on_intr(|| send(self.socket, bytes, SendFlags::NOSIGNAL))?;
        *self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
