//! Tokens of the keeper's own descriptors in its poll.
//!
//! All are below 16, where the tokens of listeners begin ([`super::acceptor`]).

use mio::Token;

/// Mailbox of other threads.
pub(super) const WAKER: Token = Token(0);
/// Socket to the worker.
pub(super) const LINK: Token = Token(1);
/// End of the worker process.
pub(super) const ENDED: Token = Token(2);
/// Socket to a worker on trial.
pub(super) const TRIAL: Token = Token(3);
/// Socket to the handshaker.
pub(super) const HANDSHAKER: Token = Token(4);
/// Socket to the observer.
pub(super) const OBSERVER: Token = Token(5);
