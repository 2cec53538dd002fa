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
use rustls::server::{ServerConfig, ServerConnection};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

/// Bytes of a record's header.
const HEADER: usize = 5;
/// Longest body of a record: an encrypted one of TLS 1.2.
const BODY_MAX: usize = (1 << 14) + 2048;

/// Handshake under way.
pub(super) struct Handshake {
    socket: OwnedFd,
    connection: ServerConnection,
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
    /// Begins a handshake. Fails if the poll cannot watch the socket.
    pub(super) fn begin(
        registry: &Registry,
        token: Token,
        socket: OwnedFd,
        config: Arc<ServerConfig>,
        until: Instant,
    ) -> Result<Handshake, String> {
        let connection = ServerConnection::new(config).map_err(|e| e.to_string())?;
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut SourceFd(&socket.as_raw_fd()), token, both).map_err(|e| e.to_string())?;
        let (record, logged) = (Vec::new(), Logged::default());
        Ok(Handshake { socket, connection, record, logged, counts: (0, 0), failed: None, until })
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
                return Step::Done;
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
        let read = recv(&self.socket, &mut self.record[from..], RecvFlags::empty());
        let n = read.map_or(0, |(n, _)| n);
        self.record.truncate(from + n);
        self.counts.0 += n as u64;
        match read {
            Ok((0, _)) => return Err(io::Error::other("the peer has left")),
            Err(rustix::io::Errno::AGAIN) => return Ok(false),
            Err(rustix::io::Errno::INTR) => return Ok(true),
            Err(e) => return Err(e.into()),
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
        if let Some(name) = connection.server_name() {
            all.push(("tls-server-name", name.into()));
        }
        if let Some(name) = connection.alpn_protocol() {
            all.push(("tls-alpn", name.to_vec()));
        }
        if let Some(certificate) = connection.peer_certificates().and_then(|all| all.first()) {
            all.push(("tls-client", fingerprint(certificate).into_bytes()));
        }
        facts::encode(all.iter().map(|(name, value)| (*name, &value[..])))
    }
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
