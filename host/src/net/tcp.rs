//! TCP listeners and connections, by token.
//!
//! A connection's token is its slot. A slot that becomes free is used again only after the pass, because the events of one
//! poll may still name it. Listeners and the waker have tokens at the other end of the numbers.

use greenroom_core::ports::Port;
use greenroom_core::session::Slot;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use rustix::net::sockopt;
use std::io;
use std::net::SocketAddr;

/// The waker's token.
pub const WAKER: Token = Token(usize::MAX);
const LISTENERS: usize = usize::MAX / 2;

/// What a token names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Another thread has something for the loop.
    Waker,
    /// A listener, by its index.
    Listener(usize),
    /// A connection.
    Connection(Slot),
}

/// What is behind a token.
#[inline]
pub fn source(token: Token) -> Source {
    match token {
        WAKER => Source::Waker,
        Token(n) if n >= LISTENERS => Source::Listener(n - LISTENERS),
        Token(n) => Source::Connection(Slot(n as u32)),
    }
}

/// A port that is held.
#[derive(Debug)]
pub struct Listener {
    /// The service and the address that was asked for.
    pub port: Port,
    /// The address that the kernel gave.
    pub addr: SocketAddr,
    /// The socket.
    pub socket: TcpListener,
}

/// All sockets of a host.
#[derive(Debug, Default)]
pub struct Net {
    /// By index; an index isn't used again.
    pub listeners: Vec<Option<Listener>>,
    connections: Vec<Option<TcpStream>>,
    free: Vec<Slot>,
    /// Free from the next pass on.
    freed: Vec<Slot>,
}

impl Net {
    /// Starts to accept from a port that listens already.
    pub fn add_listener(
        &mut self,
        registry: &Registry,
        port: Port,
        socket: std::net::TcpListener,
    ) -> io::Result<()> {
        let addr = socket.local_addr()?;
        let mut socket = TcpListener::from_std(socket);
        registry.register(&mut socket, Token(LISTENERS + self.listeners.len()), Interest::READABLE)?;
        self.listeners.push(Some(Listener { port, addr, socket }));
        Ok(())
    }

    /// Lets another service accept from a port.
    pub fn hand_over(&mut self, old: &Port, new: Port) {
        if let Some(listener) = self.listeners.iter_mut().flatten().find(|l| l.port == *old) {
            listener.port = new;
        }
    }

    /// Closes a port.
    pub fn remove_listener(&mut self, registry: &Registry, port: &Port) {
        for place in &mut self.listeners {
            if place.as_ref().is_some_and(|l| l.port == *port)
                && let Some(mut l) = place.take()
            {
                let _ = registry.deregister(&mut l.socket);
            }
        }
    }

    /// The ports held.
    pub fn ports(&self) -> impl Iterator<Item = &Listener> {
        self.listeners.iter().flatten()
    }

    /// Takes a connection in.
    pub fn add(&mut self, registry: &Registry, mut socket: TcpStream) -> io::Result<Slot> {
        socket.set_nodelay(true)?;
        // A peer that vanished without a word is found out in the end.
        sockopt::set_socket_keepalive(&socket, true)?;
        // Urgent data (telnet's Synch) is data like any other.
        sockopt::set_socket_oobinline(&socket, true)?;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            Slot(self.connections.len() as u32 - 1)
        });
        // All at once: edge-triggered, so writability costs no event until a write was cut short.
        let all = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        if let Err(e) = registry.register(&mut socket, Token(slot.0 as usize), all) {
            self.free.push(slot);
            return Err(e);
        }
        self.connections[slot.0 as usize] = Some(socket);
        Ok(slot)
    }

    /// A connection's socket.
    #[inline]
    pub fn get(&mut self, slot: Slot) -> Option<&mut TcpStream> {
        self.connections.get_mut(slot.0 as usize)?.as_mut()
    }

    /// Closes a connection.
    pub fn close(&mut self, registry: &Registry, slot: Slot) {
        let Some(mut socket) = self.connections.get_mut(slot.0 as usize).and_then(Option::take) else {
            return;
        };
        let _ = registry.deregister(&mut socket);
        self.freed.push(slot);
    }

    /// The pass is over: its events are gone, so slots may be used again.
    pub fn end_pass(&mut self) {
        self.free.append(&mut self.freed);
    }
}
