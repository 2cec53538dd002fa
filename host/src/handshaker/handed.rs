//! Secrets of handshakes that are done, until a worker has committed their sessions.
//!
//! A worker may die at any moment, also with secrets that it has not committed. So each worker gets
//! all that none before it has acknowledged. Secrets are wiped when they are dropped.

use crate::protocol::handshaker::{Heard, encode, receive_numbers, send_bytes};
use greenroom_core::input::TlsBegin;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsRawFd, OwnedFd};
use zeroize::Zeroizing;

/// Secrets by number of the handshake, and the socket to the worker.
#[derive(Default)]
pub(super) struct Handed {
    secrets: BTreeMap<u64, Zeroizing<Vec<u8>>>,
    /// Numbers whose secrets the present worker was not sent, as its socket is full.
    unsent: BTreeSet<u64>,
    /// Socket to the worker; `None`: none serves.
    worker: Option<OwnedFd>,
}

impl Handed {
    /// Hands the outcome of a handshake to the worker.
    pub(super) fn hand(&mut self, number: u64, begin: &TlsBegin) {
        self.secrets.insert(number, encode(number, begin));
        self.unsent.insert(number);
        self.flush();
    }

    /// Takes another worker's socket, and sends it all that was not acknowledged.
    pub(super) fn give_to(&mut self, registry: &Registry, socket: OwnedFd, token: Token) {
        let both = Interest::READABLE | Interest::WRITABLE;
        if registry.register(&mut SourceFd(&socket.as_raw_fd()), token, both).is_err() {
            // The worker sees the end of its socket.
            return;
        }
        self.worker = Some(socket);
        self.unsent = self.secrets.keys().copied().collect();
        self.flush();
    }

    /// Hears what the worker has committed, and sends what waits for room.
    pub(super) fn hear(&mut self, registry: &Registry) {
        while let Some(worker) = &self.worker {
            match receive_numbers(worker) {
                Heard::Message(numbers) => self.forget(&numbers),
                Heard::Nothing => break,
                Heard::Closed => {
                    let _ = registry.deregister(&mut SourceFd(&worker.as_raw_fd()));
                    self.worker = None;
                }
            }
        }
        self.flush();
    }

    /// Forgets secrets: their sessions are committed, or their connections are over.
    pub(super) fn forget(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.secrets.remove(number);
            self.unsent.remove(number);
        }
    }

    /// Sends as much as the worker's socket takes.
    fn flush(&mut self) {
        let Some(worker) = &self.worker else { return };
        while let Some(number) = self.unsent.first() {
            if let Some(secrets) = self.secrets.get(number)
                && !send_bytes(worker, secrets)
            {
                return;
            }
            self.unsent.pop_first();
        }
    }
}
