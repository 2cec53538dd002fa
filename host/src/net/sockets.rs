//! Connections of a worker, by token.
//!
//! A connection's token is its slot, so an event leads to its session without a search. A slot that
//! becomes free is used again only after the pass, because the events of one poll may still name
//! it. The waker and the keeper's socket have tokens at the other end of the numbers.
//!
//! | slot | begins with | ends with |
//! | --- | --- | --- |
//! | free | `end_pass`, `give_back` | `add` |
//! | reserved for a survivor | `reserve` | `put` or `give_back` |
//! | in use | `add`, `put` | `close` |
//! | freed in this pass | `close` | `end_pass` |
//!
//! All calls are O(1) but for `reserve` and `end_pass`. A connection costs a descriptor here and
//! another in the keeper. Only the loop's thread uses this.

use super::stream::Stream;
use greenroom_core::ids::Slot;
use mio::{Interest, Registry, Token};
use std::io;

/// The waker's token.
pub const WAKER: Token = Token(usize::MAX);
/// The token of the socket to the keeper.
pub const LINK: Token = Token(usize::MAX - 1);

/// The token of the socket to the handshaker.
pub const HANDSHAKER: Token = Token(usize::MAX - 2);

/// Source of a poll event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A message of another thread.
    Waker,
    /// The socket to the keeper.
    Link,
    /// A UDP port, by its place.
    Datagrams(usize),
    /// The socket to the handshaker.
    Handshaker,
    /// The connection of a slot, which may have been closed in this pass.
    Connection(Slot),
}

/// Tokens above this one are the waker's, the link's, and those of UDP ports.
const CONNECTIONS_MAX: usize = u32::MAX as usize;

/// The token of the UDP port at a place.
pub fn datagrams_token(place: usize) -> Token {
    Token(HANDSHAKER.0 - 1 - place)
}

/// The source that a token names.
#[inline]
pub fn source(token: Token) -> Source {
    match token {
        WAKER => Source::Waker,
        LINK => Source::Link,
        HANDSHAKER => Source::Handshaker,
        Token(n) if n > CONNECTIONS_MAX => Source::Datagrams(HANDSHAKER.0 - 1 - n),
        Token(n) => Source::Connection(Slot(n as u32)),
    }
}

/// A connection and the keeper's key for it.
#[derive(Debug)]
struct Connection {
    socket: Stream,
    /// Key by which the keeper releases its descriptor.
    key: u32,
}

/// All connections of a worker. The keeper has another descriptor for each.
#[derive(Debug, Default)]
pub struct Net {
    /// Connections by slot. `None`: free, freed or reserved.
    connections: Vec<Option<Connection>>,
    /// Free slots, the one to be used next at the end.
    free: Vec<Slot>,
    /// Slots that are free from the next pass on.
    freed: Vec<Slot>,
}

impl Net {
    /// Takes a connection in, at any slot that is free. If the poll refuses the connection, it is
    /// closed here, and nothing has changed.
    pub fn add(&mut self, registry: &Registry, socket: Stream, key: u32) -> io::Result<Slot> {
        let slot = self.take_slot();
        let put = self.put(registry, slot, socket, key);
        if put.is_err() {
            self.free.push(slot);
        }
        put.map(|()| slot)
    }

    /// Takes a free slot for a session without a connection. [`Net::give_back_later`] frees it.
    pub fn take_slot(&mut self) -> Slot {
        self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            Slot(self.connections.len() as u32 - 1)
        })
    }

    /// Frees the slot of a session without a connection, from the next pass on.
    pub fn give_back_later(&mut self, slot: Slot) {
        self.freed.push(slot);
    }

    /// Makes this many slots, each to be filled by [`Net::put`] or freed by [`Net::give_back`]. For
    /// a successor, before it takes in any connection: slots beyond the number are dropped.
    pub fn reserve(&mut self, slots: usize) {
        self.connections.resize_with(slots, || None);
    }

    /// Takes a connection in at this slot, which is reserved: a survivor keeps its slot. Fails if
    /// the poll refuses the connection.
    pub fn put(&mut self, registry: &Registry, slot: Slot, mut socket: Stream, key: u32) -> io::Result<()> {
        // All interests at once: the poll is edge-triggered, so writability costs no event until a
        // write was cut short. Urgent data needs its own interest, as a read stops before it.
        let all = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        registry.register(&mut socket, Token(slot.0 as usize), all)?;
        self.connections[slot.0 as usize] = Some(Connection { socket, key });
        Ok(())
    }

    /// Frees a slot that was reserved and is not filled.
    pub fn give_back(&mut self, slot: Slot) {
        self.free.push(slot);
    }

    /// A connection's socket. `None`: the slot has none, as it was closed in this pass.
    #[inline]
    pub fn get(&mut self, slot: Slot) -> Option<&mut Stream> {
        Some(&mut self.connections.get_mut(slot.0 as usize)?.as_mut()?.socket)
    }

    /// Key by which the keeper knows a connection. `None`: the slot has none.
    pub fn key(&self, slot: Slot) -> Option<u32> {
        Some(self.connections.get(slot.0 as usize)?.as_ref()?.key)
    }

    /// Closes this process's descriptor of a connection. Returns the key by which the caller has
    /// the keeper close its own: only then does the peer see the end. `None`: closed before.
    pub fn close(&mut self, registry: &Registry, slot: Slot) -> Option<u32> {
        let mut c = self.connections.get_mut(slot.0 as usize).and_then(Option::take)?;
        // The keeper's descriptor keeps the connection alive. Without this, the poll would go on
        // reporting it.
        let _ = registry.deregister(&mut c.socket);
        self.freed.push(slot);
        Some(c.key)
    }

    /// Ends a pass: its events are gone, so slots that were freed may be used again.
    pub fn end_pass(&mut self) {
        self.free.append(&mut self.freed);
    }
}
