//! Given sockets: those that systemd holds and has passed to the host.
//!
//! An endpoint whose socket is given is not bound again. A free socket is found in this order:
//!
//! | socket | taken by |
//! | --- | --- |
//! | at the endpoint's address | that endpoint, unless it is named as another service that asks |
//! | named as the service | its endpoints in their order, whatever their addresses |
//!
//! A socket that no endpoint takes stays open, and so does one whose endpoint is closed: a later
//! build or configuration may want it. Its clients wait in the kernel's queue. The files of given
//! Unix sockets, their modes and the stacks of IPv6 sockets are systemd's: nothing here changes or
//! deletes them.

use crate::keeper::bind::set_tcp_options;
use crate::sys::activation::GivenDescriptor;
use greenroom_core::reload::ports::Port;
use greenroom_state::address::Address;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, sockopt};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

/// Socket that systemd gave.
#[derive(Debug)]
pub(super) struct GivenSocket {
    /// The socket.
    pub(super) socket: OwnedFd,
    /// Address of the socket. `None`: it has none that an endpoint could name.
    pub(super) addr: Option<Address>,
    /// Number and name, in words.
    label: String,
    name: String,
    /// Reason why it can't serve at all. `None`: it can.
    unfit: Option<&'static str>,
}

/// Given sockets that no endpoint has.
#[derive(Debug, Default)]
pub(super) struct GivenSockets(Vec<GivenSocket>);

impl From<Vec<GivenDescriptor>> for GivenSockets {
    fn from(given: Vec<GivenDescriptor>) -> GivenSockets {
        GivenSockets(given.into_iter().map(GivenSocket::from).collect())
    }
}

impl GivenSockets {
    /// Takes the socket of a port, made ready to listen. `all`: the ports of the request. `None`:
    /// none is given for it. Fails if one is given that can't serve it. O(sockets x ports).
    pub(super) fn take(&mut self, port: &Port, all: &[Port]) -> Option<Result<GivenSocket, String>> {
        let (service, address) = port;
        let is_others =
            |given: &GivenSocket| given.name != *service && all.iter().any(|(other, _)| *other == given.name);
        let fits = |given: &GivenSocket| given.why_unfit(address).is_none();
        // For another endpoint of the service.
        let is_wanted = |g: &GivenSocket| all.iter().any(|(s, a)| s == service && g.why_unfit(a).is_none());
        let at = |g: &GivenSocket| fits(g) && g.addr.as_ref() == Some(address) && !is_others(g);
        let named = |g: &GivenSocket| fits(g) && g.name == *service;
        // The same address of another type, unless an endpoint wants just that.
        let is_like = |g: &GivenSocket| {
            let same = g.addr.as_ref().is_some_and(|a| a.socket_addr() == address.socket_addr());
            same && !is_others(g) && !all.iter().any(|(_, other)| g.addr.as_ref() == Some(other))
        };
        let unfit = |g: &GivenSocket| !fits(g) && (g.name == *service && !is_wanted(g) || is_like(g));
        let found = self.0.iter().position(at).or_else(|| self.0.iter().position(named));
        match found {
            Some(found) => Some(self.0.remove(found).prepare(port)),
            None => {
                let given = self.0.iter().find(|g| unfit(g))?;
                let (label, why) = (&given.label, given.why_unfit(address).unwrap_or_default());
                Some(Err(format!("service {service} can't listen on {address}: {label} {why}")))
            }
        }
    }

    /// Takes a socket back whose endpoint is closed.
    pub(super) fn put_back(&mut self, given: GivenSocket) {
        self.0.push(given);
    }

    /// Sockets in words.
    pub(super) fn labels(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|given| given.label.as_str())
    }
}

impl GivenSocket {
    /// Reason why it can't serve at an address. `None`: it can.
    fn why_unfit(&self, address: &Address) -> Option<&'static str> {
        let is_udp = |a: &Address| matches!(a, Address::Udp(_));
        let mismatch = match (self.addr.as_ref().is_some_and(is_udp), is_udp(address)) {
            (true, false) => Some("is a datagram socket; give a stream socket (ListenStream=)"),
            (false, true) => Some("is a stream socket; give a datagram socket (ListenDatagram=)"),
            _ => None,
        };
        self.unfit.or(mismatch)
    }

    /// Makes the socket nonblocking, and gives it the options of a socket of our own.
    fn prepare(self, port: &Port) -> Result<GivenSocket, String> {
        let is_tcp = matches!(self.addr, Some(Address::Tcp(_)));
        let prepared = rustix::io::ioctl_fionbio(&self.socket, true).map_err(Into::into);
        let prepared = prepared.and_then(|()| match is_tcp {
            true => set_tcp_options(&self.socket),
            false => Ok(()),
        });
        match prepared {
            Ok(()) => Ok(self),
            Err(e) => Err(format!("service {} can't listen on {}: {}: {e}", port.0, port.1, self.label)),
        }
    }
}

impl From<GivenDescriptor> for GivenSocket {
    fn from(given: GivenDescriptor) -> GivenSocket {
        let GivenDescriptor { fd: socket, number, name } = given;
        let unfit = unfit(&socket);
        let addr = address(&socket);
        let at = addr.as_ref().map(|addr| format!(", {addr}")).unwrap_or_default();
        let label = format!("systemd's descriptor {number} ({name}{at})");
        GivenSocket { socket, addr, label, name, unfit }
    }
}

/// Reason why a descriptor can't serve any endpoint. `None`: it can serve one of its type.
fn unfit(socket: impl AsFd) -> Option<&'static str> {
    match sockopt::socket_type(socket.as_fd()) {
        Err(_) => Some("is no socket"),
        Ok(SocketType::DGRAM) if matches!(address(&socket), Some(Address::Udp(_))) => None,
        Ok(SocketType::DGRAM) => Some("is a datagram socket; give a stream socket (ListenStream=)"),
        Ok(SocketType::STREAM) => match sockopt::socket_acceptconn(socket.as_fd()) {
            Ok(true) => None,
            _ => Some("is a connection, not a socket that listens; set Accept=no"),
        },
        Ok(_) => Some("is no stream socket; give one (ListenStream=)"),
    }
}

/// Address of a socket, of whatever type. `None`: it has none that an endpoint could name.
fn address(socket: impl AsFd) -> Option<Address> {
    let at = rustix::net::getsockname(socket.as_fd()).ok()?;
    if at.address_family() == AddressFamily::UNIX {
        let path = SocketAddrUnix::try_from(at).ok()?;
        return Address::unix(path.path()?.to_str().ok()?).ok();
    }
    let addr = SocketAddr::try_from(at).ok()?;
    match sockopt::socket_type(socket) {
        Ok(SocketType::DGRAM) => Some(Address::Udp(addr)),
        _ => Some(Address::Tcp(addr)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    fn given(fd: impl Into<OwnedFd>, name: &str) -> GivenSocket {
        GivenDescriptor { fd: fd.into(), number: 3, name: name.into() }.into()
    }

    #[test]
    fn an_address_comes_before_a_name_and_the_type_must_fit() {
        let listener = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (a, b) = (listener(), listener());
        let addr = |l: &TcpListener| Address::Tcp(l.local_addr().unwrap());
        let (at_a, at_b) = (addr(&a), addr(&b));
        let connected = TcpStream::connect(a.local_addr().unwrap()).unwrap();
        let datagram = UdpSocket::bind(b.local_addr().unwrap()).unwrap();
        let mut sockets = GivenSockets(vec![
            given(datagram, "unknown"),
            given(b, "chat"),
            given(a, "unknown"),
            given(connected, "odd"),
            given(std::fs::File::open("/dev/null").unwrap(), "none"),
        ]);
        let elsewhere: Address = "127.0.0.1:1".parse().unwrap();
        let port = |service: &str, at: &Address| (service.to_owned(), at.clone());
        let mut take = |ports: &[Port]| {
            let taken = sockets.take(&ports[0], ports);
            taken.map(|taken| taken.map(|given| given.addr.unwrap()))
        };
        // The name of another service that asks counts more than the address.
        let chat = port("chat", &elsewhere);
        assert_eq!(take(&[port("echo", &elsewhere)]), None);
        let refused = take(&[port("echo", &at_b), chat.clone()]).unwrap().unwrap_err();
        assert!(refused.contains("is a datagram socket"), "{refused}");
        assert_eq!(take(std::slice::from_ref(&chat)), Some(Ok(at_b.clone())));
        assert_eq!(take(&[port("echo", &at_a)]), Some(Ok(at_a.clone())));
        let udp = Address::Udp(at_b.socket_addr().unwrap());
        assert_eq!(take(&[port("echo", &at_b), port("dns", &udp)]), None, "each has its type");
        assert_eq!(take(&[port("dns", &udp), port("echo", &at_b)]), Some(Ok(udp)));
        for (service, says) in [("odd", "set Accept=no"), ("none", "is no socket")] {
            let said = take(&[port(service, &elsewhere)]).unwrap().unwrap_err();
            assert!(said.contains(says) && said.contains(&format!("({service}")), "{said}");
        }
        assert_eq!(sockets.labels().count(), 2);
    }
}
