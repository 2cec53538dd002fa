//! TCP connections, by token.
//!
//! A connection's token is its slot. A slot that becomes free is used again only after the pass,
//! because the events of one poll may still name it. The waker and the keeper's socket have tokens
//! at the other end of the numbers.

use greenroom_core::ids::Slot;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::io;

/// The waker's token.
pub const WAKER: Token = Token(usize::MAX);
/// The token of the socket to the keeper.
pub const LINK: Token = Token(usize::MAX - 1);

/// What a token names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Another thread has something for the loop.
    Waker,
    /// The keeper has.
    Link,
    /// A connection.
    Connection(Slot),
}

/// What is behind a token.
#[inline]
pub fn source(token: Token) -> Source {
    match token {
        WAKER => Source::Waker,
        LINK => Source::Link,
        Token(n) => Source::Connection(Slot(n as u32)),
    }
}

/// A connection and the keeper's key for it.
#[derive(Debug)]
struct Connection {
    socket: TcpStream,
    key: u32,
}

/// All connections of a worker. The keeper has another descriptor for each.
#[derive(Debug, Default)]
pub struct Net {
    connections: Vec<Option<Connection>>,
    free: Vec<Slot>,
    /// Free from the next pass on.
    freed: Vec<Slot>,
}

impl Net {
    /// Takes a connection in, at any slot that is free.
    pub fn add(&mut self, registry: &Registry, socket: TcpStream, key: u32) -> io::Result<Slot> {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            Slot(self.connections.len() as u32 - 1)
        });
        let put = self.put(registry, slot, socket, key);
        if put.is_err() {
            self.free.push(slot);
        }
        put.map(|()| slot)
    }

    /// Makes this many slots, all free but to be filled by [`Net::put`].
    pub fn reserve(&mut self, slots: usize) {
        self.connections.resize_with(slots, || None);
    }

    /// Takes a connection in at this slot.
    pub fn put(
        &mut self,
        registry: &Registry,
        slot: Slot,
        mut socket: TcpStream,
        key: u32,
    ) -> io::Result<()> {
        // All at once: edge-triggered, so writability costs no event until a write was cut short.
        let all = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        registry.register(&mut socket, Token(slot.0 as usize), all)?;
        self.connections[slot.0 as usize] = Some(Connection { socket, key });
        Ok(())
    }

    /// A slot that was reserved and isn't filled is free.
    pub fn give_back(&mut self, slot: Slot) {
        self.free.push(slot);
    }

    /// A connection's socket.
    #[inline]
    pub fn get(&mut self, slot: Slot) -> Option<&mut TcpStream> {
        Some(&mut self.connections.get_mut(slot.0 as usize)?.as_mut()?.socket)
    }

    /// Closes a connection, as far as this process goes: the keeper is to be told its key.
    pub fn close(&mut self, registry: &Registry, slot: Slot) -> Option<u32> {
        let mut c = self.connections.get_mut(slot.0 as usize).and_then(Option::take)?;
        // The keeper's descriptor keeps it alive, and in the poll.
        let _ = registry.deregister(&mut c.socket);
        self.freed.push(slot);
        Some(c.key)
    }

    /// The pass is over: its events are gone, so slots may be used again.
    pub fn end_pass(&mut self) {
        self.free.append(&mut self.freed);
    }
}
