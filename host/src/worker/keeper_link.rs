//! Link to the keeper: the worker's end of the socket, and state that both ends share.
//!
//! Messages keep their order in both directions. A message that the socket does not take waits in
//! memory, and goes out once the poll reports room. So sending never blocks the loop and cannot
//! fail; a keeper that is gone shows where messages are received.
//!
//! *Invariant*: a message that reports a change leaves behind the commit of that change. If the
//! worker dies in between, its successor reports ports and configuration anew, dials again, and
//! releases the connections of ended sessions.

use crate::net::sockets::LINK;
use crate::protocol::keeper::{ClientTls, HandshakeWanted, HeldPort, Hello, Load, ToKeeper, ToWorker};
use crate::protocol::link::{Link, Received};
use greenroom_state::address::Address;
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use std::collections::HashMap;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

/// Connections that one message releases at most. Each takes up to 34 bytes of JSON, and a message
/// may have 64 KiB.
const DROPS_PER_MESSAGE: usize = 1000;

/// Characters of a refusal's reason in `status`.
const REASON_CHARS_MAX: usize = 500;

/// The link to the keeper. Nothing of it outlives the process.
pub(super) struct KeeperLink {
    /// The socket, and messages that wait for room in it.
    link: Link<ToWorker, ToKeeper>,
    /// The keeper understands [`ToKeeper::NotConfigured`]. An earlier one would replace the worker.
    hears_refusals: bool,
    /// The keeper understands [`ToKeeper::Builds`].
    holds_builds: bool,
    /// The keeper understands [`ToKeeper::Runs`] and [`ToKeeper::Refused`].
    knows_files: bool,
    /// The keeper understands [`ToKeeper::GiveUp`].
    gives_up: bool,
    /// The keeper understands [`ToKeeper::Failing`] and [`ToKeeper::Saving`].
    hears_failures: bool,
    /// The keeper understands [`ToKeeper::ConnectTls`] and [`ToKeeper::StartTls`].
    starts_tls: bool,
    /// Connections that the keeper is to release: key and number.
    drops: Vec<(u32, u64)>,
    /// Outbound connections about to come: number of the request, by number of the connection. All
    /// others are inbound.
    dialed: HashMap<u64, u64>,
    /// The worker serves, and the keeper knows.
    ready: bool,
    /// The worker has asked for a fresh process. Asked once: without a process of its own there is
    /// no answer.
    recycling: bool,
    /// Further connections are left to a fresh process.
    leaves_connections: bool,
    /// Messages may be left that the poll does not report again: the pass before had enough to do.
    pub(super) has_rest: bool,
}

impl KeeperLink {
    /// Takes a link over and has the poll of `registry` watch it. Fails if the poll cannot. The
    /// poll is edge-triggered: each event is followed by sends and receives until nothing is left.
    pub(super) fn new(
        link: Link<ToWorker, ToKeeper>,
        hello: &Hello,
        registry: &Registry,
    ) -> io::Result<KeeperLink> {
        let fd = link.fd().as_raw_fd();
        registry.register(&mut SourceFd(&fd), LINK, Interest::READABLE | Interest::WRITABLE)?;
        let (drops, dialed) = (Vec::new(), HashMap::new());
        let Hello { hears_refusals, holds_builds, knows_files, gives_up, hears_failures, starts_tls, .. } =
            *hello;
        let (ready, recycling, leaves_connections, has_rest) = (false, false, false, false);
        Ok(KeeperLink {
            link,
            hears_refusals,
            holds_builds,
            knows_files,
            gives_up,
            hears_failures,
            starts_tls,
            drops,
            dialed,
            ready,
            recycling,
            leaves_connections,
            has_rest,
        })
    }

    /// Sends a message, or queues it until the socket takes it.
    pub(super) fn send(&mut self, message: &ToKeeper) {
        self.link.send(message);
    }

    /// Sends what is queued, as far as the socket takes it.
    pub(super) fn flush(&mut self) {
        self.link.flush();
    }

    /// Receives the next message, if one is there. Fails if a message was cut off or cannot be
    /// read.
    pub(super) fn receive(&mut self) -> io::Result<Received<ToWorker>> {
        self.link.receive()
    }

    /// Says that the worker serves, with the ports that count and the highest connection number.
    /// The keeper then accepts, closes all other ports, and numbers connections above that one.
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

    /// Leaves all further connections to a fresh process, and asks for it, for a reason that the
    /// keeper logs.
    pub(super) fn leave_connections(&mut self, why: String) {
        self.leaves_connections = true;
        if !self.recycling {
            self.recycle(why);
        }
    }

    /// Returns whether connections are left to a fresh process.
    pub(super) fn leaves_connections(&self) -> bool {
        self.leaves_connections
    }

    /// Says that a proposed configuration changes nothing or was refused, if the keeper
    /// understands. The keeper then forgets it, and proposes it to no successor.
    pub(super) fn say_not_configured(&mut self, number: u64) {
        if self.hears_refusals {
            self.link.send(&ToKeeper::NotConfigured(number));
        }
    }

    /// Tells the keeper which private copies a library's committed record names. An earlier keeper
    /// holds none, and is told nothing.
    pub(super) fn say_builds(&mut self, library: PathBuf, copies: Vec<PathBuf>) {
        if self.holds_builds {
            self.link.send(&ToKeeper::Builds(library, copies));
        }
    }

    /// Tells the keeper which build of a library runs, for `status`.
    pub(super) fn say_runs(&mut self, path: PathBuf, library: String, build: String) {
        if self.knows_files {
            self.link.send(&ToKeeper::Runs(path, library, build));
        }
    }

    /// Tells the keeper that a library's file was refused, for `status`. A long reason is cut off
    /// there; log and ledger have the whole.
    pub(super) fn say_refused(&mut self, path: PathBuf, build: String, reason: &str) {
        if self.knows_files {
            let short: String = reason.chars().take(REASON_CHARS_MAX).collect();
            self.link.send(&ToKeeper::Refused(path, build, short));
        }
    }

    /// Tells the keeper which loads are under way.
    pub(super) fn say_loads(&mut self, loads: Vec<Load>) {
        self.link.send(&ToKeeper::Loads(loads));
    }

    /// Asks for an outbound connection of this number. False: it is one over TLS, and an earlier
    /// keeper makes none.
    #[must_use]
    pub(super) fn connect(&mut self, number: u64, addr: Address, over_tls: Option<ClientTls>) -> bool {
        match over_tls {
            None => self.link.send(&ToKeeper::Connect(number, addr)),
            Some(tls) if self.starts_tls => self.link.send(&ToKeeper::ConnectTls(number, addr, tls)),
            Some(_) => return false,
        }
        true
    }

    /// Asks for the handshake of a session's connection. False: an earlier keeper knows none.
    #[must_use]
    pub(super) fn start_tls(&mut self, connection: (u32, u64), wanted: HandshakeWanted) -> bool {
        if self.starts_tls {
            self.link.send(&ToKeeper::StartTls(connection, wanted));
        }
        self.starts_tls
    }

    /// Tells the keeper that nobody waits for an outbound connection. It answers with the outcome.
    /// An earlier keeper goes on until the connection is open, fails, or is late.
    pub(super) fn give_up_connect(&mut self, number: u64) {
        if self.gives_up {
            self.link.send(&ToKeeper::GiveUp(number));
        }
    }

    /// Tells the keeper that a part of the host fails, for this reason, or does no longer. An
    /// earlier keeper is told nothing.
    pub(super) fn say_failing(&mut self, what: &str, why: Option<String>) {
        if self.hears_failures {
            self.link.send(&ToKeeper::Failing(what.to_owned(), why));
        }
    }

    /// Tells the keeper that the save at the end moves. An earlier keeper is told nothing.
    pub(super) fn say_saving(&mut self) {
        if self.hears_failures {
            self.link.send(&ToKeeper::Saving);
        }
    }

    /// Tells the keeper that the tables could not be saved. The worker ends next.
    pub(super) fn say_not_saved(&mut self, why: String) {
        self.link.send(&ToKeeper::NotSaved(why));
    }

    /// Notes a connection that the keeper is to release at the end of the pass. The number guards
    /// against a key that has another connection by then. May be repeated.
    pub(super) fn release(&mut self, key: u32, number: u64) {
        self.drops.push((key, number));
    }

    /// Tells the keeper which connections to release. The caller has committed their ends.
    /// O(connections that ended).
    pub(super) fn send_releases(&mut self) {
        for drops in std::mem::take(&mut self.drops).chunks(DROPS_PER_MESSAGE) {
            self.link.send(&ToKeeper::Drop(drops.to_vec()));
        }
    }

    /// Notes outbound connections that come next: connection numbers and request numbers.
    pub(super) fn expect_dialed(&mut self, dialed: Vec<(u64, u64)>) {
        self.dialed.extend(dialed);
    }

    /// Number of the request that a connection answers; `None`: the connection is inbound.
    pub(super) fn dialed(&self, number: u64) -> Option<u64> {
        self.dialed.get(&number).copied()
    }

    /// Takes the number of the request that a connection answers, like [`KeeperLink::dialed`].
    pub(super) fn take_dialed(&mut self, number: u64) -> Option<u64> {
        self.dialed.remove(&number)
    }

    /// Forgets the outbound connections that were expected, but for those that still wait for their
    /// secrets. Ends a takeover: those that have a session are never opened again.
    pub(super) fn forget_dialed(&mut self, waits: impl Fn(u64) -> bool) {
        self.dialed.retain(|connection, _| waits(*connection));
    }
}
