//! Messages of the handshaker: JSON from and to the keeper, and secrets to the worker.
//!
//! | time | to the handshaker | from it |
//! | --- | --- | --- |
//! | start, and another configuration | `Configure` | `Configured` |
//! | a connection over TLS | `Begin` | `Done` or `Failed` |
//! | a worker, or another one | `Worker` | |
//! | a connection is over | `Forget` | |
//! | a pair of files changes | | `Failing` |
//!
//! The secrets of a handshake go to the worker alone, by a socket of their own, in no JSON: number
//! of the handshake (u64, little-endian), the state of the core, the facts. The worker answers with
//! the numbers that it has committed. Until then the secrets are repeated to each worker.

use crate::config::tls::TlsSettings;
use crate::protocol::keeper::HandshakeWanted;
use greenroom_core::input::TlsBegin;
use greenroom_core::tls::state::{MESSAGE_BYTES, TlsState};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::AsFd;
use zeroize::{Zeroize, Zeroizing};

/// Messages from the keeper to the handshaker.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToHandshaker {
    /// Certificates and limits. Answered by [`FromHandshaker::Configured`].
    Configure(TlsSettings),
    /// Do a handshake of this number. With the descriptor. Answered by [`FromHandshaker::Done`] or
    /// [`FromHandshaker::Failed`].
    Begin(u64, HandshakeWanted),
    /// A worker serves. With a socket to it, for secrets.
    Worker,
    /// The connections of these handshakes are over: those under way are given up.
    Forget(Vec<u64>),
}

/// Messages from the handshaker to the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromHandshaker {
    /// Answer to [`ToHandshaker::Configure`]: why a service has no certificate, for each that has
    /// none.
    Configured(Vec<String>),
    /// The handshake of this number is done, and its secrets are sent.
    Done(u64),
    /// The handshake of this number has failed, for this reason. True: it took too long. Its
    /// connection is over.
    Failed(u64, String, bool),
    /// The handshake of this number was given up for another one.
    GivenUp(u64),
    /// Files of a service cannot be used, for this reason, or can again. Those read before stay.
    Failing(String, Option<String>),
}

/// Longest message with secrets, in bytes.
const SECRETS_BYTES_MAX: usize = 64 * 1024;

/// Encodes the outcome of a handshake for the worker.
pub fn encode(number: u64, begin: &TlsBegin) -> Zeroizing<Vec<u8>> {
    let mut state = begin.state.encode_message();
    let mut bytes = Zeroizing::new(Vec::with_capacity(8 + MESSAGE_BYTES + begin.facts.len()));
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&state);
    bytes.extend_from_slice(&begin.facts);
    state.zeroize();
    bytes
}

/// Decodes what [`encode`] made.
fn decode(bytes: &[u8]) -> Option<(u64, TlsBegin)> {
    let (number, rest) = bytes.split_first_chunk()?;
    let (state, facts) = rest.split_at_checked(MESSAGE_BYTES)?;
    let state = TlsState::decode(state)?;
    Some((u64::from_le_bytes(*number), TlsBegin { state, facts: facts.to_vec() }))
}

/// Outcome of receiving on the socket between worker and handshaker.
pub enum Heard<T> {
    /// A message.
    Message(T),
    /// Nothing yet.
    Nothing,
    /// End: nobody is there, or says what cannot be understood.
    Closed,
}

/// Sends a message to the other side. False: there is no room now, or the other side is gone.
pub fn send_bytes(socket: impl AsFd, bytes: &[u8]) -> bool {
    rustix::io::retry_on_intr(|| send(&socket, bytes, SendFlags::NOSIGNAL)).is_ok()
}

/// Receives the secrets of one handshake.
pub fn receive_secrets(socket: impl AsFd) -> Heard<(u64, TlsBegin)> {
    let mut buffer = Zeroizing::new(vec![0; SECRETS_BYTES_MAX]);
    match receive(socket, &mut buffer) {
        Heard::Message(len) => decode(&buffer[..len]).map_or(Heard::Closed, Heard::Message),
        Heard::Nothing => Heard::Nothing,
        Heard::Closed => Heard::Closed,
    }
}

/// Encodes the numbers of handshakes whose sessions are committed.
pub fn encode_numbers(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

/// Receives numbers of handshakes whose sessions are committed.
pub fn receive_numbers(socket: impl AsFd) -> Heard<Vec<u64>> {
    let mut buffer = vec![0; SECRETS_BYTES_MAX];
    match receive(socket, &mut buffer) {
        Heard::Message(len) => {
            let (words, _) = buffer[..len].as_chunks();
            Heard::Message(words.iter().map(|w| u64::from_le_bytes(*w)).collect())
        }
        Heard::Nothing => Heard::Nothing,
        Heard::Closed => Heard::Closed,
    }
}

fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Heard<usize> {
    match rustix::io::retry_on_intr(|| recv(&socket, &mut *buffer, RecvFlags::empty())) {
        Ok((0, _)) => Heard::Closed,
        Ok((len, _)) => Heard::Message(len),
        Err(e) if io::Error::from(e).kind() == io::ErrorKind::WouldBlock => Heard::Nothing,
        Err(_) => Heard::Closed,
    }
}
