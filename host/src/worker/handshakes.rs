//! Handshakes that are done: secrets come from the handshaker, and connections from the keeper.
//!
//! | secrets | connection | becomes |
//! | --- | --- | --- |
//! | there | there | a session, in the pass that brought the second of the two |
//! | not there yet | there | waits: this process is a successor, and gets all secrets anew |
//! | lost with their handshaker | there | the connection is released |
//! | there | has a session that waits for TLS | puts TLS around its stream |
//! | there | has a session over TLS already | acknowledged, and wiped |
//!
//! *Invariant*: secrets are acknowledged behind the commit of their session. So they are in the
//! records, or with the handshaker, or the connection is closed. No secrets begin two sessions: a
//! connection whose bytes are not exactly those of its handshake is released.

use crate::net::sockets::HANDSHAKER;
use crate::protocol::handshaker::{Heard, encode_numbers, receive_secrets, send_bytes};
use crate::protocol::keeper::EndpointId;
use crate::sys::tcp;
use greenroom_core::input::TlsBegin;
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Numbers in one acknowledgement, at most.
const NUMBERS_MAX: usize = 4096;

/// Connection that waits for its secrets.
pub(super) struct Waiting {
    /// The keeper's key.
    pub(super) key: u32,
    /// Number of the connection.
    pub(super) number: u64,
    /// Endpoint that accepted it.
    pub(super) endpoint: EndpointId,
    /// Descriptor.
    pub(super) fd: OwnedFd,
}

/// Secrets and connections that wait for each other, by number of the handshake. Nothing of it
/// outlives the process.
#[derive(Default)]
pub(super) struct HandshakesDone {
    /// Socket to the handshaker; `None`: none runs, as far as this process knows.
    socket: Option<OwnedFd>,
    /// Handshakes below this number have nobody who could send their secrets.
    first: u64,
    secrets: HashMap<u64, TlsBegin>,
    waiting: HashMap<u64, Waiting>,
    /// Handshakes by number of the connection, for connections about to come, or that wait.
    of_connections: HashMap<u64, u64>,
    /// Connections by number of the handshake: the other direction.
    connections: HashMap<u64, u64>,
    /// Handshakes to acknowledge behind the next commit.
    committed: Vec<u64>,
}

impl HandshakesDone {
    /// Notes connections over TLS that come next: numbers of connection and handshake.
    pub(super) fn expect(&mut self, shaken: Vec<(u64, u64)>) {
        self.connections.extend(shaken.iter().map(|(connection, handshake)| (*handshake, *connection)));
        self.of_connections.extend(shaken);
    }

    /// Number of a connection's handshake; `None`: it is not over TLS.
    pub(super) fn of(&self, connection: u64) -> Option<u64> {
        match self.of_connections.is_empty() {
            true => None,
            false => self.of_connections.get(&connection).copied(),
        }
    }

    /// Takes the secrets of a handshake, if they are there.
    pub(super) fn take(&mut self, handshake: u64) -> Option<TlsBegin> {
        self.secrets.remove(&handshake)
    }

    /// Lets a connection wait for its secrets.
    pub(super) fn wait(&mut self, handshake: u64, waiting: Waiting) {
        self.waiting.insert(handshake, waiting);
    }

    /// Whether a connection waits for its secrets.
    pub(super) fn waits(&self, handshake: u64) -> bool {
        self.waiting.contains_key(&handshake)
    }

    /// Notes that a connection has become a session, or is released: its secrets are not wanted any
    /// more, once that is committed.
    pub(super) fn is_over(&mut self, connection: u64, handshake: u64) {
        self.of_connections.remove(&connection);
        self.connections.remove(&handshake);
        self.secrets.remove(&handshake);
        self.committed.push(handshake);
    }

    /// Forgets a connection that is closed: nobody wants the secrets of its handshake.
    pub(super) fn closed(&mut self, connection: u64) {
        if let Some(handshake) = self.of(connection) {
            self.is_over(connection, handshake);
        }
    }

    /// Acknowledges the handshakes whose connections are dealt with. The caller has committed.
    pub(super) fn acknowledge(&mut self) {
        let Some(socket) = &self.socket else { return };
        while !self.committed.is_empty() {
            let from = self.committed.len().saturating_sub(NUMBERS_MAX);
            if !send_bytes(socket, &encode_numbers(&self.committed[from..])) {
                return;
            }
            self.committed.truncate(from);
        }
    }

    /// Takes the socket to another handshaker, whose handshakes begin at `first`. What the one
    /// before has sent was heard already. Fails if the poll can't watch it.
    pub(super) fn join(&mut self, registry: &Registry, socket: OwnedFd, first: u64) -> std::io::Result<()> {
        self.leave(registry);
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut SourceFd(&socket.as_raw_fd()), HANDSHAKER, both)?;
        (self.socket, self.first) = (Some(socket), first);
        Ok(())
    }

    /// Closes the socket to a handshaker that has ended.
    fn leave(&mut self, registry: &Registry) {
        if let Some(socket) = self.socket.take() {
            let _ = registry.deregister(&mut SourceFd(&socket.as_raw_fd()));
        }
    }

    /// Receives the secrets that have come. Returns the connections that have theirs now.
    pub(super) fn receive(&mut self, registry: &Registry) -> Vec<(u64, Waiting)> {
        let mut ready = Vec::new();
        while let Some(socket) = &self.socket {
            match receive_secrets(socket) {
                Heard::Message((handshake, begin)) => {
                    self.secrets.insert(handshake, begin);
                    ready.extend(self.waiting.remove(&handshake).map(|w| (handshake, w)));
                }
                Heard::Nothing => break,
                Heard::Closed => self.leave(registry),
            }
        }
        ready
    }

    /// Takes the connections that wait in vain: the handshaker that had their secrets has ended.
    pub(super) fn take_lost(&mut self) -> Vec<(u64, Waiting)> {
        let lost: Vec<_> = self.waiting.keys().copied().filter(|n| *n < self.first).collect();
        lost.into_iter().filter_map(|n| Some((n, self.waiting.remove(&n)?))).collect()
    }

    /// Connections that have a session, as `has` says, and whose handshake is among the lost ones.
    /// O(connections that are expected or wait).
    pub(super) fn lost_of(&self, has: impl Fn(u64) -> bool) -> Vec<(u64, u64)> {
        let is_lost =
            |(_, handshake): &(u64, u64)| *handshake < self.first && !self.secrets.contains_key(handshake);
        let all = self.of_connections.iter().map(|(connection, handshake)| (*connection, *handshake));
        all.filter(is_lost).filter(|(connection, _)| has(*connection)).collect()
    }

    /// Handshakes whose secrets are here, and whose connections have a session, as `has` says.
    /// O(secrets that are here): a successor knows the handshakes of all its sessions.
    pub(super) fn take_known(&mut self, has: impl Fn(u64) -> bool) -> Vec<(u64, u64)> {
        let here = self.secrets.keys().filter_map(|n| Some((*self.connections.get(n)?, *n)));
        here.filter(|(connection, _)| has(*connection)).collect()
    }
}

/// Checks that a stream is where its handshake left it, by the kernel's counts. Else a session may
/// have had it before, and its keys must not be used again.
pub(super) fn check_counts(fd: impl AsFd, read: u64, written: u64) -> Result<(), String> {
    let counts = tcp::counts(&fd).map_err(|e| format!("the peer is gone: {e}"))?;
    match counts.read == read && counts.sent.is_none_or(|sent| sent == written) {
        true => Ok(()),
        false => Err("its stream is not where its handshake left it".into()),
    }
}
