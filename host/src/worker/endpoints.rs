//! Endpoints: numbers of this worker's ports, and the endpoints of connections about to come.
//!
//! The keeper tells with each connection which endpoint accepted it. The service is the one that
//! has that endpoint now: a port may have gone over to another service since, or be closed.
//!
//! *Invariant*: a number names one listening socket, and is never given twice while the host lives.
//! Numbers are recorded with the ports, and the keeper remembers the highest that it was told. An
//! address alone would not do: a port may be closed, and opened again for another service.
//!
//! Every call is O(ports) or O(connections of one message).

use crate::protocol::keeper::{EndpointId, HeldPort};
use greenroom_state::address::Address;
use std::net::SocketAddr;

/// Numbers given so far, and the endpoints that the keeper has announced.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    /// Highest number so far; 0: none.
    last: EndpointId,
    /// Endpoints of the next connections, in runs: the endpoint, and the number of connections in a
    /// row.
    announced: Vec<(EndpointId, u32)>,
}

impl Endpoints {
    /// Continues above the highest number that the keeper knows of.
    pub(super) fn above(last: EndpointId) -> Endpoints {
        Endpoints { last, announced: Vec::new() }
    }

    /// Numbers the ports that have no number yet. Returns whether there were any: the caller
    /// records the ports then. Numbers count from the next commit on.
    pub(super) fn number(&mut self, ports: &mut [HeldPort]) -> bool {
        // A predecessor may have recorded numbers that the keeper was never told.
        let highest = ports.iter().map(|p| p.endpoint).max().unwrap_or_default();
        self.last = self.last.max(highest);
        let mut numbered = false;
        for port in ports.iter_mut().filter(|p| p.endpoint.is_none()) {
            self.last.0 += 1;
            (port.endpoint, numbered) = (self.last, true);
        }
        numbered
    }

    /// Notes the endpoints of the next connections. Replaces those of a message that never came.
    pub(super) fn announce(&mut self, runs: Vec<(EndpointId, u32)>) {
        self.announced = runs;
    }

    /// Takes the endpoints of the next `n` connections. Beyond those announced, a connection has
    /// none. Runs that are longer than the message are dropped.
    pub(super) fn take(&mut self, n: usize) -> impl Iterator<Item = EndpointId> + use<> {
        let announced = std::mem::take(&mut self.announced).into_iter();
        let each = announced.flat_map(|(endpoint, run)| std::iter::repeat_n(endpoint, run as usize));
        each.chain(std::iter::repeat(EndpointId::NONE)).take(n)
    }
}

/// Port whose service serves a connection of this endpoint. `None`: its port is closed.
///
/// `local` is the connection's local address, if it has one. It counts in two cases:
/// - The endpoint is gone: the keeper accepted before it heard of a commit. If the port has moved
///   to an address that overlaps, the connection is the new port's.
/// - There is none: the keeper, or the worker that it accepted for, is of an earlier version.
pub(super) fn port_of(
    ports: &[HeldPort],
    endpoint: EndpointId,
    local: Option<SocketAddr>,
) -> Option<&HeldPort> {
    ports.iter().find(|p| p.endpoint == endpoint).or_else(|| at(ports, local?))
}

/// The port at an address, or else the one at all addresses of the same family. `None`: no port of
/// the host listens there.
fn at(ports: &[HeldPort], local: SocketAddr) -> Option<&HeldPort> {
    let any =
        |a: SocketAddr| a.ip().is_unspecified() && a.port() == local.port() && a.is_ipv4() == local.is_ipv4();
    let exact = Address::Tcp(local);
    let is_any = |p: &&HeldPort| p.addr.socket_addr().is_some_and(any);
    ports.iter().find(|p| p.addr == exact).or_else(|| ports.iter().find(is_any))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(service: &str, addr: &str, endpoint: u32) -> HeldPort {
        let addr: Address = addr.parse().unwrap();
        HeldPort {
            port: (service.into(), addr.clone()),
            addr,
            endpoint: EndpointId(endpoint),
            kind: "".into(),
        }
    }

    #[test]
    fn a_number_is_never_given_twice() {
        let mut endpoints = Endpoints::above(EndpointId(3));
        let mut ports =
            [port("a", "127.0.0.1:1", 2), port("b", "127.0.0.1:2", 0), port("c", "127.0.0.1:3", 0)];
        assert!(endpoints.number(&mut ports));
        assert_eq!(ports.each_ref().map(|p| p.endpoint.0), [2, 4, 5]);
        assert!(!endpoints.number(&mut ports));
        // The highest one is closed, and another is opened.
        let mut ports = [port("a", "127.0.0.1:1", 2), port("d", "127.0.0.1:3", 0)];
        assert!(endpoints.number(&mut ports));
        assert_eq!(ports[1].endpoint.0, 6);
        // A record may have a higher number than the keeper heard of.
        let mut ports = [port("a", "127.0.0.1:1", 9), port("d", "127.0.0.1:3", 0)];
        endpoints.number(&mut ports);
        assert_eq!(ports[1].endpoint.0, 10);
    }

    #[test]
    fn runs_give_each_connection_its_endpoint_and_the_last_ones_count() {
        let mut endpoints = Endpoints::default();
        let mut take = |runs: &[(u32, u32)], n| {
            for (endpoint, run) in runs {
                let all = vec![(EndpointId(*endpoint), *run), (EndpointId::NONE, 1), (EndpointId(8), 9)];
                endpoints.announce(all);
            }
            endpoints.take(n).map(|e| e.0).collect::<Vec<_>>()
        };
        assert_eq!(take(&[(1, 5), (3, 2)], 5), [3, 3, 0, 8, 8]);
        assert_eq!(take(&[], 2), [0, 0], "they count for one message");
    }

    #[test]
    fn the_endpoint_decides_and_the_address_only_without_one_that_listens() {
        let ports = [port("a", "127.0.0.1:7", 1), port("b", "127.0.0.2:7", 2), port("c", "0.0.0.0:8", 3)];
        let addr = |text: &str| text.parse().unwrap();
        let found = |endpoint, local| {
            port_of(&ports, EndpointId(endpoint), Some(addr(local))).map(|p| p.port.0.as_str())
        };
        assert_eq!(found(2, "127.0.0.1:7"), Some("b"));
        assert_eq!(found(9, "127.0.0.1:9"), None, "its port is closed");
        assert_eq!((found(9, "127.0.0.1:7"), found(9, "127.0.0.1:8")), (Some("a"), Some("c")), "it moved");
        assert_eq!((found(0, "127.0.0.1:7"), found(0, "127.0.0.2:7")), (Some("a"), Some("b")));
        assert_eq!(
            (found(0, "10.0.0.1:8"), found(0, "[::1]:8"), found(0, "10.0.0.1:9")),
            (Some("c"), None, None)
        );
    }
}
