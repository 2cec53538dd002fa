//! Connections: descriptor, number and endpoint of each, by the key that workers name it with.
//!
//! The keeper holds one descriptor of each connection, and the worker another. So a connection
//! outlives any worker, and ends only when the keeper drops it, too.
//!
//! A key is an index: small, and used again. A number is unique in the life of the host, and is the
//! session's number. Worker and keeper name a connection by both, so a message about an earlier
//! connection of the same key has no effect.
//!
//! A connection costs 16 bytes and a descriptor. Places are kept for the largest number of
//! connections so far. The traffic of a connection costs the keeper nothing.

use crate::protocol::keeper::EndpointId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::{BTreeSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Connections that the keeper holds. A key is used again once its connection is over; a number
/// never.
#[derive(Default)]
pub(super) struct Connections {
    /// Descriptors, by key. `None`: the key is free.
    descriptors: Vec<Option<OwnedFd>>,
    /// Numbers, by key. A free key keeps the number of its last connection.
    numbers: Vec<u64>,
    /// Endpoints that accepted them, by key.
    endpoints: Vec<EndpointId>,
    /// Free keys, the one to be used next at the end.
    free: Vec<u32>,
    /// Keys that are not free.
    count: usize,
    /// Keys of UDP ports, which are handed over like connections.
    ports: BTreeSet<u32>,
    /// The highest number so far.
    last: u64,
}

/// Connections to hand to a worker, in the order of the keys that were asked for.
pub(super) struct Batch<'a> {
    /// Key and number of each.
    pub(super) connections: Vec<(u32, u64)>,
    /// Endpoint of each, in runs: the endpoint, and the number of connections in a row.
    pub(super) endpoints: Vec<(EndpointId, u32)>,
    /// Descriptor of each.
    pub(super) descriptors: Vec<BorrowedFd<'a>>,
}

impl Connections {
    /// Adds a connection that this endpoint accepted, with the next number. Returns its key and
    /// number. An outbound connection has [`EndpointId::NONE`].
    pub(super) fn add(&mut self, fd: OwnedFd, endpoint: EndpointId) -> (u32, u64) {
        self.last += 1;
        let key = self.free.pop().unwrap_or_else(|| {
            self.descriptors.push(None);
            self.numbers.push(0);
            self.endpoints.push(EndpointId::NONE);
            self.descriptors.len() as u32 - 1
        });
        self.descriptors[key as usize] = Some(fd);
        self.numbers[key as usize] = self.last;
        self.endpoints[key as usize] = endpoint;
        self.count += 1;
        (key, self.last)
    }

    /// Adds a UDP port like a connection, to be handed to each worker. Returns its key.
    pub(super) fn add_port(&mut self, fd: OwnedFd, endpoint: EndpointId) -> u32 {
        let (key, _) = self.add(fd, endpoint);
        self.ports.insert(key);
        key
    }

    /// Continues the numbers above this one. Numbers never go down.
    pub(super) fn number_above(&mut self, number: u64) {
        self.last = self.last.max(number);
    }

    /// Skips so many numbers, and returns the first of them: they are for sessions without a
    /// connection.
    pub(super) fn number_block(&mut self, count: u32) -> u64 {
        let first = self.last + 1;
        self.last += u64::from(count);
        first
    }

    /// Returns another descriptor of a connection. `None`: the key holds another number, or none.
    pub(super) fn duplicate(&self, key: u32, number: u64) -> Option<std::io::Result<OwnedFd>> {
        let fd = self.descriptors.get(key as usize)?.as_ref()?;
        (self.numbers[key as usize] == number).then(|| fd.try_clone())
    }

    /// Drops a connection. A key that holds another number, or none, is left alone.
    pub(super) fn drop(&mut self, key: u32, number: u64) {
        let Some(fd) = self.descriptors.get_mut(key as usize) else { return };
        if self.numbers[key as usize] == number && fd.take().is_some() {
            self.count -= 1;
            self.ports.remove(&key);
            self.free.push(key);
        }
    }

    /// Connections whose peers have ended at least their own direction: key and number of each. One
    /// system call, O(connections). None if the kernel does not say.
    pub(super) fn left(&self) -> Vec<(u32, u64)> {
        let held = |key: usize| Some((key, self.descriptors[key].as_ref()?));
        let held: Vec<_> = (0..self.descriptors.len()).filter_map(held).collect();
        let mut polled: Vec<_> = held.iter().map(|(_, fd)| PollFd::new(*fd, PollFlags::RDHUP)).collect();
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut polled, Some(&now)).is_err() {
            return Vec::new();
        }
        let gone = polled.iter().zip(held).filter(|(p, _)| !p.revents().is_empty());
        gone.map(|(_, (key, _))| (key as u32, self.numbers[key])).collect()
    }

    /// Number of connections and UDP ports: descriptors.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Number of connections.
    pub(super) fn without_ports(&self) -> usize {
        self.count - self.ports.len()
    }

    /// Keys of all connections, in the order of their numbers. O(n log n), once for each start of a
    /// process.
    pub(super) fn keys(&self) -> VecDeque<u32> {
        let held = |key: &u32| self.descriptors[*key as usize].is_some();
        let mut keys: Vec<_> = (0..self.descriptors.len() as u32).filter(held).collect();
        keys.sort_unstable_by_key(|key| self.numbers[*key as usize]);
        keys.into()
    }

    /// The connections of these keys, without those that are over. O(keys). Consecutive connections
    /// of one endpoint make one run.
    pub(super) fn batch(&self, keys: impl Iterator<Item = u32>) -> Batch<'_> {
        let mut batch = Batch { connections: Vec::new(), endpoints: Vec::new(), descriptors: Vec::new() };
        for key in keys {
            let Some(Some(fd)) = self.descriptors.get(key as usize) else { continue };
            batch.connections.push((key, self.numbers[key as usize]));
            batch.descriptors.push(fd.as_fd());
            let endpoint = self.endpoints[key as usize];
            match batch.endpoints.last_mut() {
                Some((last, run)) if *last == endpoint => *run += 1,
                _ => batch.endpoints.push((endpoint, 1)),
            }
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn connections_whose_peers_have_left_are_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connections = Connections::default();
        let mut peers: Vec<_> = (0..3)
            .map(|_| {
                let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                connections.add(listener.accept().unwrap().0.into(), EndpointId::NONE);
                peer
            })
            .collect();
        assert_eq!(connections.left(), []);
        drop(peers.remove(1));
        // The segment takes its time, also on one machine.
        while connections.left().is_empty() {
            std::thread::yield_now();
        }
        assert_eq!(connections.left(), [(1, 2)]);
    }

    /// A descriptor that stands for a connection.
    fn fd() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn numbers_go_up_and_keys_are_used_again() {
        let mut connections = Connections::default();
        let added: Vec<_> = (0..5).map(|n| connections.add(fd(), EndpointId(n / 2))).collect();
        assert_eq!(added, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]);
        connections.drop(1, 2);
        // Repeated, or with the number of an earlier connection.
        connections.drop(1, 2);
        assert_eq!(connections.batch([0, 1, 2].into_iter()).connections, [(0, 1), (2, 3)]);
        assert_eq!(connections.add(fd(), EndpointId(9)), (1, 6));
        connections.drop(1, 2);
        connections.drop(99, 1);
        assert_eq!(connections.len(), 5);
        assert_eq!(connections.keys(), [0, 2, 3, 4, 1]);
        let batch = connections.batch([1, 99, 0].into_iter());
        assert_eq!((batch.connections, batch.descriptors.len()), (vec![(1, 6), (0, 1)], 2));
        // A key that is used again has the endpoint of its new connection.
        let runs = connections.batch([0, 2, 3, 1, 4].into_iter()).endpoints;
        let expected = [(0, 1), (1, 2), (9, 1), (2, 1)].map(|(endpoint, run)| (EndpointId(endpoint), run));
        assert_eq!(runs, expected);
        connections.number_above(40);
        assert_eq!(connections.add(fd(), EndpointId::NONE), (5, 41));
    }
}
