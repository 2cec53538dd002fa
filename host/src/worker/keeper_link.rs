//! The worker's end of the socket to the keeper, and what the two have agreed on.

use crate::net::sockets::LINK;
use crate::protocol::keeper::{HeldPort, ToKeeper, ToWorker};
use crate::protocol::link::{Link, Received};
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use std::collections::HashMap;
use std::io;
use std::os::fd::AsRawFd;

/// Connections that one message releases at most.
const DROPS_PER_MESSAGE: usize = 1000;

/// The link to the keeper.
pub(super) struct KeeperLink {
    link: Link<ToWorker, ToKeeper>,
    /// The keeper understands [`ToKeeper::NotConfigured`]. An earlier one would replace the worker.
    hears_refusals: bool,
    /// Connections that the keeper is to release: key and number.
    drops: Vec<(u32, u64)>,
    /// Outbound connections about to come: number of the request, by number of the connection.
    dialed: HashMap<u64, u64>,
    /// The worker serves, and the keeper knows.
    ready: bool,
    /// The worker has asked for a fresh process.
    recycling: bool,
}

impl KeeperLink {
    /// Takes a link over and has the poll of `registry` watch it.
    pub(super) fn new(
        link: Link<ToWorker, ToKeeper>,
        hears_refusals: bool,
        registry: &Registry,
    ) -> io::Result<KeeperLink> {
        let fd = link.fd().as_raw_fd();
        registry.register(&mut SourceFd(&fd), LINK, Interest::READABLE | Interest::WRITABLE)?;
        let (drops, dialed) = (Vec::new(), HashMap::new());
        Ok(KeeperLink { link, hears_refusals, drops, dialed, ready: false, recycling: false })
    }

    /// Sends a message, or queues it until the socket takes it.
    pub(super) fn send(&mut self, message: &ToKeeper) {
        self.link.send(message);
    }

    /// Sends what is queued, as far as the socket takes it.
    pub(super) fn flush(&mut self) {
        self.link.flush();
    }

    /// Receives the next message, if one is there.
    pub(super) fn receive(&mut self) -> io::Result<Received<ToWorker>> {
        self.link.receive()
    }

    /// Says that the worker serves, with the ports that count and the highest connection number.
    pub(super) fn say_ready(&mut self, ports: Vec<HeldPort>, served: u64) {
        self.ready = true;
        self.link.send(&ToKeeper::Ready(ports, served));
    }

    /// Returns whether a fresh process may be asked for: the worker serves and has not asked yet.
    pub(super) fn may_recycle(&self) -> bool {
        self.ready && !self.recycling
    }

    /// Asks for a fresh process, for a reason that the keeper logs.
    pub(super) fn recycle(&mut self, why: String) {
        self.recycling = true;
        self.link.send(&ToKeeper::Recycle(why));
    }

    /// Says that a proposed configuration changes nothing or was refused, if the keeper
    /// understands.
    pub(super) fn say_not_configured(&mut self, number: u64) {
        if self.hears_refusals {
            self.link.send(&ToKeeper::NotConfigured(number));
        }
    }

    /// Notes a connection that the keeper is to release at the end of the pass.
    pub(super) fn release(&mut self, key: u32, number: u64) {
        self.drops.push((key, number));
    }

    /// Tells the keeper which connections to release.
    pub(super) fn send_releases(&mut self) {
        for drops in std::mem::take(&mut self.drops).chunks(DROPS_PER_MESSAGE) {
            self.link.send(&ToKeeper::Drop(drops.to_vec()));
        }
    }

    /// Notes outbound connections that come next: connection numbers and request numbers.
    pub(super) fn expect_dialed(&mut self, dialed: Vec<(u64, u64)>) {
        self.dialed.extend(dialed);
    }

    /// Returns whether a connection that comes next is outbound.
    pub(super) fn is_dialed(&self, number: u64) -> bool {
        self.dialed.contains_key(&number)
    }

    /// Takes the number of the request that a connection answers; `None`: the connection is
    /// inbound.
    pub(super) fn take_dialed(&mut self, number: u64) -> Option<u64> {
        self.dialed.remove(&number)
    }

    /// Forgets the outbound connections that were expected.
    pub(super) fn forget_dialed(&mut self) {
        self.dialed.clear();
    }
}
