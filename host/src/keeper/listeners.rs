//! Ports: bound when a reload asks for them, accepted from once the reload is committed.

use crate::protocol::keeper::{EndpointId, HeldPort};
use greenroom_core::reload::ports::Port;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};

/// Connections that the kernel queues for one port.
const BACKLOG: i32 = 4096;

/// A port.
struct Listener {
    /// The service, and the address that was asked for.
    port: Port,
    socket: TcpListener,
    addr: SocketAddr,
    /// The number that the worker gave it, once it is accepted from.
    endpoint: EndpointId,
    /// Accepted from. False: opened for a reload that is not committed yet.
    accepts: bool,
}

/// All ports, by index. An index is never used again.
#[derive(Default)]
pub(super) struct Listeners {
    places: Vec<Option<Listener>>,
}

impl Listeners {
    /// Opens ports: all of them, or none. A port that is open already is reused: a worker that died
    /// may have asked for it.
    pub(super) fn open(&mut self, ports: Vec<Port>) -> Result<Vec<SocketAddr>, String> {
        let (mut opened, mut addrs) = (Vec::new(), Vec::new());
        for port in ports {
            if let Some(held) = self.places.iter().flatten().find(|l| l.port == port) {
                addrs.push(held.addr);
                continue;
            }
            let listener = open(port)?;
            addrs.push(listener.addr);
            opened.push(Some(listener));
        }
        self.places.append(&mut opened);
        Ok(addrs)
    }

    /// Closes ports that were opened for a reload that is not committed.
    pub(super) fn discard(&mut self, addrs: &[SocketAddr]) {
        for place in &mut self.places {
            if place.as_ref().is_some_and(|l| !l.accepts && addrs.contains(&l.addr)) {
                *place = None;
            }
        }
    }

    /// Accepts from these ports, and closes the others. `all`: also closes those that were opened
    /// for a reload that is not committed. Returns the indexes that are accepted from for the first
    /// time.
    pub(super) fn follow(
        &mut self,
        registry: &Registry,
        token: impl Fn(usize) -> Token,
        ports: &[HeldPort],
        all: bool,
    ) -> Vec<usize> {
        let mut fresh = Vec::new();
        for (index, place) in self.places.iter_mut().enumerate() {
            let Some(l) = place else { continue };
            let wanted = ports.iter().any(|p| p.addr == l.addr);
            let fd = l.socket.as_raw_fd();
            if let Some(wanted) = ports.iter().find(|p| p.addr == l.addr) {
                l.port = wanted.port.clone();
                l.endpoint = wanted.endpoint;
            }
            if wanted && !l.accepts {
                match registry.register(&mut SourceFd(&fd), token(index), Interest::READABLE) {
                    Ok(()) => {
                        l.accepts = true;
                        fresh.push(index);
                    }
                    Err(e) => tracing::error!("{} can't be polled: {e}", l.addr),
                }
            } else if !wanted && (l.accepts || all) {
                if l.accepts {
                    let _ = registry.deregister(&mut SourceFd(&fd));
                }
                *place = None;
            }
        }
        fresh
    }

    /// Indexes of the ports that are accepted from.
    pub(super) fn accepting(&self) -> Vec<usize> {
        let accepts = |l: &Option<Listener>| l.as_ref().is_some_and(|l| l.accepts);
        (0..self.places.len()).filter(|i| accepts(&self.places[*i])).collect()
    }

    /// Accepts a connection, and tells its endpoint. `None`: the port is closed.
    pub(super) fn accept(&self, index: usize) -> Option<io::Result<(OwnedFd, EndpointId)>> {
        let l = self.places.get(index)?.as_ref()?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let accepted = rustix::net::accept_with(&l.socket, flags);
        Some(accepted.map(|fd| (fd, l.endpoint)).map_err(Into::into))
    }
}

/// Binds and listens: both together reserve a port. Connections inherit the socket's options.
fn open(port: Port) -> Result<Listener, String> {
    let (service, addr) = &port;
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let made = || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        if addr.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        sockopt::set_tcp_nodelay(&socket, true)?;
        // Finds a peer that is gone without closing, after hours.
        sockopt::set_socket_keepalive(&socket, true)?;
        // Urgent data (telnet's Synch) comes in order, and the kernel counts it as other bytes.
        sockopt::set_socket_oobinline(&socket, true)?;
        bind(&socket, addr)?;
        listen(&socket, BACKLOG)?;
        let socket = TcpListener::from(socket);
        let addr = socket.local_addr()?;
        Ok((socket, addr))
    };
    let (socket, held_addr) =
        made().map_err(|e: io::Error| format!("service {service} can't listen on {addr}: {e}"))?;
    Ok(Listener { port, socket, addr: held_addr, endpoint: EndpointId::NONE, accepts: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The loop and the kernel's byte counts rely on these options from the first byte.
    #[test]
    fn connections_inherit_their_options() {
        let mut listeners = Listeners::default();
        let addr = listeners.open(vec![("s".into(), ([127, 0, 0, 1], 0).into())]).unwrap()[0];
        let _peer = std::net::TcpStream::connect(addr).unwrap();
        let (fd, _) = listeners.accept(0).unwrap().unwrap();
        assert!(sockopt::tcp_nodelay(&fd).unwrap());
        assert!(sockopt::socket_keepalive(&fd).unwrap());
        assert!(sockopt::socket_oobinline(&fd).unwrap());
    }

    #[test]
    fn all_ports_are_opened_or_none() {
        let mut listeners = Listeners::default();
        let any = || ("s".to_owned(), SocketAddr::from(([127, 0, 0, 1], 0)));
        let addr = listeners.open(vec![any()]).unwrap()[0];
        let taken = ("other".to_owned(), addr);
        let said = listeners.open(vec![any(), taken.clone()]).unwrap_err();
        assert!(said.contains(&format!("service other can't listen on {addr}")), "{said}");
        assert_eq!(listeners.places.len(), 1);
        // A repeated request gets the same port.
        assert_eq!(listeners.open(vec![any()]), Ok(vec![addr]));
        assert_eq!(listeners.places.len(), 1);
        listeners.discard(&[addr]);
        listeners.open(vec![taken]).unwrap();
    }
}
