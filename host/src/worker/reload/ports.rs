//! Ports that listen, and ports being opened for a reload.
//!
//! The keeper binds and holds all listening sockets. A reload that adds ports asks for them first,
//! and the keeper opens all of them or none. Accepting from new ports and closing old ones begins
//! with the commit, so clients of a refused reload notice nothing.
//!
//! | state of a port | event | becomes |
//! | --- | --- | --- |
//! | wanted | The keeper has opened it. | prepared: it listens, and nothing accepts |
//! | wanted | The keeper cannot open it. | gone: a reload is refused, a rollback goes on |
//! | prepared | The reload commits. | held: recorded, and accepted from |
//! | prepared | The reload is refused. | gone: the keeper closes it |
//! | held | A commit leaves it out. | gone: the keeper closes it |
//!
//! *Invariant*: the record of the ports names exactly the held ones, in the same epoch as the
//! builds that serve them. If the worker dies before the keeper hears of a commit, its successor
//! reports the recorded ports once it is ready. The keeper then closes all others, prepared ones
//! included. Lists are short, so searches are linear.

use crate::config::Config;
use crate::config::socket_file::SocketFile;
use crate::protocol::keeper::{EndpointId, HeldPort, ToKeeper};
use crate::worker::endpoints::{Endpoints, port_of};
use crate::worker::keeper_link::KeeperLink;
use crate::worker::reload::wanted_ports::{Wanted, identity};
use greenroom_core::core::Core;
use greenroom_core::ledger::ProbationCounts;
use greenroom_core::reload::ports::{self, Port};
use greenroom_core::reload::request::LibraryId;
use greenroom_core::service::offer::{Build, Offer};
use greenroom_core::store::kind::Kind;
use greenroom_state::address::Address;
use greenroom_state::endpoint::Endpoint;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;

/// Changes of ports that a reload or a rollback makes with its commit. Dropping them leaves opened
/// ports in the keeper: [`Ports::discard`] has it close those.
#[derive(Debug, Default)]
pub(in crate::worker) struct PreparedPorts {
    /// Ports to open, each with the kind of its endpoint, in the order of the configuration. Empty
    /// once the keeper has opened them.
    open: Vec<(Port, Box<str>)>,
    /// Ports that listen already. The keeper accepts from them after the commit.
    opened: Vec<HeldPort>,
    /// Ports that the keeper closes after the commit.
    close: Vec<Port>,
    /// Listening ports that pass from one service to another: old and new port. The socket stays,
    /// so connections that wait in the kernel get the new service.
    hand_over: Vec<(Port, Port)>,
    /// Endpoints that these services will have, by [`identity`](super::wanted_ports::identity).
    endpoints: BTreeMap<Port, Endpoint>,
    /// Access to the files of their Unix sockets.
    files: BTreeMap<Address, SocketFile>,
}

impl PreparedPorts {
    /// Returns whether the keeper has ports to open first. The commit waits for its answer then.
    pub(in crate::worker) fn need_opening(&self) -> bool {
        !self.open.is_empty()
    }
}

/// A build that is to be rolled back. While the keeper opens ports, another build may take charge,
/// so the build is compared again before the rollback.
#[derive(Debug, Clone)]
pub(in crate::worker) struct FailedBuild {
    /// Library of the build.
    pub id: LibraryId,
    /// The build.
    pub build: Build,
    /// Counts of the probation.
    pub record: ProbationCounts,
    /// Reason of the rollback.
    pub why: String,
}

/// Moved ports that are remembered.
const MOVED_MAX: usize = 64;

/// Purpose of ports that the keeper is opening.
#[derive(Debug)]
pub(in crate::worker) enum Opening {
    /// A reload of these libraries.
    Reload(Vec<LibraryId>),
    /// A rollback to the previous build.
    RollBack(FailedBuild),
    /// A build that was rolled back when this process began. The previous build serves already, and
    /// its ports follow in a commit of their own.
    TakenOver,
}

/// The ports that count, and the changes under way. Only `held` is recorded.
#[derive(Default)]
pub(in crate::worker) struct Ports {
    /// The ports that count.
    held: Vec<HeldPort>,
    /// Changes that the keeper is opening ports for, in the order of the requests. The keeper
    /// answers in that order, so an answer needs no number.
    opening: VecDeque<(Opening, PreparedPorts)>,
    /// Changes whose ports listen, by the first library of the reload.
    prepared: HashMap<LibraryId, PreparedPorts>,
    /// Endpoints of ports that have moved to an address that overlaps, and of those that they moved
    /// to. The keeper may have accepted there before it heard of the commit.
    moved: VecDeque<(EndpointId, EndpointId)>,
    /// Access to the files of Unix sockets, as this process has told the keeper or is to tell it.
    files: BTreeMap<Address, SocketFile>,
    /// Numbers of the ports, and the endpoints of connections about to come.
    endpoints: Endpoints,
}

impl Ports {
    /// No ports yet. Endpoints are numbered above the highest number that the keeper knows of.
    pub(in crate::worker) fn above(last: EndpointId) -> Ports {
        Ports { endpoints: Endpoints::above(last), ..Ports::default() }
    }

    /// The ports that count.
    pub(in crate::worker) fn held(&self) -> &[HeldPort] {
        &self.held
    }

    /// The port that a connection came to, by its endpoint, or by its local address if it has none.
    /// `None`: the port is closed. O(ports).
    pub(in crate::worker) fn of_connection(
        &self,
        endpoint: EndpointId,
        local: Option<SocketAddr>,
    ) -> Option<&HeldPort> {
        let moved = self.moved.iter().rev().find(|(from, _)| *from == endpoint);
        port_of(&self.held, moved.map_or(endpoint, |(_, to)| *to), local)
    }

    /// The ports of one service.
    pub(in crate::worker) fn of_service(&self, name: &str) -> impl Iterator<Item = &HeldPort> {
        self.held.iter().filter(move |p| p.port.0 == name)
    }

    /// Notes the endpoints of the next connections.
    pub(in crate::worker) fn announce(&mut self, runs: Vec<(EndpointId, u32)>) {
        self.endpoints.announce(runs);
    }

    /// Takes the endpoints of the next `n` connections.
    pub(in crate::worker) fn take_endpoints(&mut self, n: usize) -> impl Iterator<Item = EndpointId> + use<> {
        self.endpoints.take(n)
    }

    /// Computes the ports that libraries' services want, less those that are held. Ports of all
    /// other services stay. Changes nothing. O(ports x services).
    ///
    /// An error names an address that two services want, or a service that has no port.
    pub(in crate::worker) fn changes_for(
        &self,
        core: &Core,
        all: &[(LibraryId, Vec<Offer>)],
        config: &Config,
    ) -> Result<PreparedPorts, String> {
        let held: BTreeSet<_> = self.held.iter().map(identity).collect();
        let libraries = core.reloads.libraries();
        let current: Vec<_> =
            all.iter().filter_map(|(id, _)| Some(&libraries[id.0].current.as_ref()?.library)).collect();
        let mine = |name: &str| {
            let service = core.services().iter().find(|s| s.offer.name == name);
            service.and_then(|s| s.build.as_ref()).is_some_and(|b| current.contains(&&b.library))
        };
        // Services of these libraries are computed anew, so a service that is withdrawn loses its
        // ports.
        let mut wanted: BTreeSet<_> = held.iter().filter(|(name, _)| !mine(name)).cloned().collect();
        let mut files = BTreeMap::new();
        let mut all_wanted = Vec::new();
        for offer in all.iter().flat_map(|(_, offers)| offers) {
            for endpoint in config.endpoints(offer)? {
                if matches!(endpoint.address, Address::Unix(_)) {
                    files.insert(endpoint.address.clone(), config.socket_file(&offer.name)?);
                }
                all_wanted.push((offer.name.clone(), endpoint));
            }
        }
        let Wanted { endpoints, any } = Wanted::of(&self.held, &all_wanted)?;
        wanted.extend(endpoints.keys().cloned());
        let ports::Changes { open, close, hand_over } = ports::changes(&held, &wanted)?;
        let kind = |port: &Port| endpoints.get(port).map(|e| e.kind.clone()).unwrap_or_default();
        let fixed = open.into_iter().map(|port| (kind(&port), port));
        let mut open: Vec<_> = fixed.map(|(kind, port)| (port, kind)).chain(any).collect();
        let is_it = |(port, kind): &(Port, Box<str>), (service, e): &(String, Endpoint)| {
            port.0 == *service && port.1 == e.address && *kind == e.kind
        };
        open.sort_by_key(|opened| all_wanted.iter().position(|wanted| is_it(opened, wanted)));
        Ok(PreparedPorts { open, close, hand_over, endpoints, files, opened: Vec::new() })
    }

    /// Asks the keeper to open ports. [`Ports::opened`] returns the purpose with the answer. If the
    /// worker dies before, its successor's first report has the keeper close them.
    pub(in crate::worker) fn open(
        &mut self,
        what: Opening,
        prepared: PreparedPorts,
        keeper: &mut KeeperLink,
    ) {
        let is_new = |(addr, _): &(&Address, &SocketFile)| prepared.open.iter().any(|(p, _)| p.1 == **addr);
        let files = prepared.files.iter().filter(is_new);
        let files: Vec<_> = files.map(|(addr, file)| (addr.clone(), file.clone())).collect();
        if !files.is_empty() {
            keeper.send(&ToKeeper::SocketFiles(files));
        }
        let (open, kinds): (Vec<_>, Vec<_>) = prepared.open.iter().cloned().unzip();
        if open.iter().zip(&kinds).any(|(port, kind)| ports::is_any(&port.1) && !kind.is_empty()) {
            keeper.send(&ToKeeper::Kinds(kinds));
        }
        keeper.send(&ToKeeper::Open(open));
        self.opening.push_back((what, prepared));
    }

    /// Returns whether the keeper is opening ports. A configuration does not begin meanwhile: the
    /// ports of a rollback were computed from the one in force.
    pub(in crate::worker) fn are_opening(&self) -> bool {
        !self.opening.is_empty()
    }

    /// Takes the keeper's answer to the oldest request. The answer is the addresses in the
    /// request's order, or the reason why none of them was opened. `None`: no request waits.
    pub(in crate::worker) fn opened(
        &mut self,
        opened: Result<Vec<Address>, String>,
    ) -> Option<(Opening, PreparedPorts, Result<(), String>)> {
        let (what, mut prepared) = self.opening.pop_front()?;
        // Endpoints get their numbers with the commit, so a refused reload uses none up.
        let open = std::mem::take(&mut prepared.open);
        let opened = opened.and_then(|addrs| {
            let twice = addrs.iter().enumerate().find(|(at, addr)| addrs[..*at].contains(addr));
            let twice = twice.map(|(_, addr)| addr.clone());
            let ports = open.into_iter().zip(addrs);
            prepared.opened = ports
                .map(|((port, kind), addr)| HeldPort { port, addr, endpoint: EndpointId::NONE, kind })
                .collect();
            twice.map_or(Ok(()), |addr| {
                Err(format!(
                    "the keeper is of an earlier version, and gives {addr} to two endpoints; restart the host"
                ))
            })
        });
        Some((what, prepared, opened))
    }

    /// Keeps the changes of a reload until its commit, or until it is refused.
    pub(in crate::worker) fn prepare(&mut self, first: LibraryId, prepared: PreparedPorts) {
        self.prepared.insert(first, prepared);
    }

    /// Takes the changes that a library's reload has prepared; `None`: another library of the same
    /// commit has them, or there are none.
    pub(in crate::worker) fn take_prepared(&mut self, id: LibraryId) -> Option<PreparedPorts> {
        self.prepared.remove(&id)
    }

    /// Changes the ports that count, and records them. False: nothing was to be told to the keeper.
    ///
    /// The caller commits, and tells the keeper only then ([`Ports::tell`]). If the worker died in
    /// between, a port that was closed too early would be missing.
    pub(in crate::worker) fn change(&mut self, core: &mut Core, prepared: PreparedPorts) -> bool {
        let files = prepared.files.into_iter().filter(|(addr, file)| self.files.get(addr) != Some(file));
        let files: Vec<_> = files.collect();
        let no_file_changes = files.is_empty();
        self.files.extend(files);
        let is_same = |p: &HeldPort| prepared.endpoints.get(&identity(p)).is_none_or(|e| *e == p.asked());
        if prepared.opened.is_empty()
            && prepared.close.is_empty()
            && prepared.hand_over.is_empty()
            && self.held.iter().all(is_same)
        {
            return !no_file_changes;
        }
        let mut ports = std::mem::take(&mut self.held);
        ports.extend(prepared.opened);
        for (old, new) in prepared.hand_over {
            if let Some(held) = ports.iter_mut().find(|p| identity(p) == old) {
                held.port = new;
            }
        }
        let closed: Vec<_> = ports.extract_if(.., |p| prepared.close.contains(&identity(p))).collect();
        for port in &mut ports {
            // A socket stays as it is: its next connections are of another kind.
            if let Some(Endpoint { kind, address }) = prepared.endpoints.get(&identity(port)) {
                port.kind.clone_from(kind);
                port.port.1.clone_from(address);
            }
        }
        self.set(core, ports);
        for old in closed {
            if let Some(new) = self.held.iter().find(|p| ports::overlap(&p.addr, &old.addr)) {
                self.moved.push_back((old.endpoint, new.endpoint));
            }
        }
        // Connections that came before a commit come soon behind it.
        self.moved.drain(..self.moved.len().saturating_sub(MOVED_MAX));
        true
    }

    /// Replaces the ports that count, numbers the new ones, and records them. If the store has no
    /// room, an error is logged, and a successor goes on with the previous record.
    pub(in crate::worker) fn set(&mut self, core: &mut Core, mut ports: Vec<HeldPort>) {
        self.endpoints.number(&mut ports);
        let json = serde_json::to_vec(&ports).unwrap_or_default();
        if !core.put_host_record(Kind::Ports, 0, &json) {
            tracing::error!("no room to record the ports");
        }
        self.held = ports;
    }

    /// Takes over the ports that a predecessor has recorded. False: the record is lost, and no port
    /// counts. The keeper is told with the worker's `Ready`.
    pub(in crate::worker) fn restore(&mut self, core: &mut Core) -> bool {
        let recorded = core.host_records_from(Kind::Ports, 0, 1).pop();
        let ports = recorded.and_then(|(_, json)| serde_json::from_slice::<Vec<HeldPort>>(&json).ok());
        let Some(mut ports) = ports else { return false };
        match self.endpoints.number(&mut ports) {
            false => self.held = ports,
            // An earlier version wrote the record, without numbers.
            true => self.set(core, ports),
        }
        true
    }

    /// Has the keeper close all ports, for a host that stops. The record stays as it is: the next
    /// host begins with an empty store.
    pub(in crate::worker) fn close_all(&mut self, keeper: &mut KeeperLink) {
        self.held.clear();
        self.tell(keeper);
    }

    /// Has the keeper close ports that were opened for changes which are not made.
    ///
    /// The keeper opens an address once, whoever asks for it. So ports that count, and ports of
    /// other changes under way, stay open. The keeper itself cannot tell: before `Ready` it does
    /// not know which ports count.
    pub(in crate::worker) fn discard(&self, prepared: &PreparedPorts, keeper: &mut KeeperLink) {
        let addrs = self.only_of(prepared);
        if !addrs.is_empty() {
            keeper.send(&ToKeeper::Discard(addrs));
        }
    }

    /// Addresses that were opened for these changes and for nothing else.
    fn only_of(&self, prepared: &PreparedPorts) -> Vec<Address> {
        // A request that the keeper has not answered may come to be the same port.
        let asked = self.opening.iter().flat_map(|(_, other)| &other.open);
        let asked: Vec<_> = asked.collect();
        let others = self.prepared.values().flat_map(|other| &other.opened);
        let needed: Vec<_> = self.held.iter().chain(others).map(|p| &p.addr).collect();
        let is_free =
            |p: &&HeldPort| !needed.contains(&&p.addr) && !asked.iter().any(|(port, _)| *port == p.port);
        prepared.opened.iter().filter(is_free).map(|p| p.addr.clone()).collect()
    }

    /// Tells the keeper which ports count. The caller has committed them.
    pub(in crate::worker) fn tell(&self, keeper: &mut KeeperLink) {
        if !self.files.is_empty() {
            let files = self.files.iter().map(|(addr, file)| (addr.clone(), file.clone()));
            keeper.send(&ToKeeper::SocketFiles(files.collect()));
        }
        keeper.send(&ToKeeper::Ports(self.held.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenroom_core::limits::host::Limits;

    fn held(name: &str, addr: &str) -> HeldPort {
        let addr: Address = addr.parse().unwrap();
        HeldPort { port: (name.into(), addr.clone()), addr, endpoint: EndpointId::NONE, kind: "".into() }
    }

    /// Two libraries that offer one service ask for one port: the second one is refused.
    #[test]
    fn a_port_that_counts_or_is_prepared_is_not_discarded() {
        let mut ports = Ports::default();
        let changes = |name: &str, addr: &str| PreparedPorts {
            opened: vec![held(name, addr)],
            ..PreparedPorts::default()
        };
        let twin = changes("a", "127.0.0.1:70");
        assert_eq!(ports.only_of(&twin), [twin.opened[0].addr.clone()]);
        ports.prepare(LibraryId(0), changes("a", "127.0.0.1:70"));
        assert_eq!(ports.only_of(&twin), []);
        let first = ports.take_prepared(LibraryId(0)).unwrap();
        ports.set(&mut Core::new(Limits::default()), first.opened);
        assert_eq!(ports.only_of(&twin), []);
        let (what, open) = (Opening::TakenOver, vec![(held("b", "127.0.0.1:71").port, "".into())]);
        ports.opening.push_back((what, PreparedPorts { open, ..PreparedPorts::default() }));
        assert_eq!(ports.only_of(&changes("b", "127.0.0.1:71")), []);
    }

    #[test]
    fn changed_ports_are_recorded_for_a_successor() {
        let mut core = Core::new(Limits::default());
        let mut ports = Ports::default();
        assert!(!ports.restore(&mut core));
        ports.set(&mut core, vec![held("a", "127.0.0.1:70"), held("b", "127.0.0.1:71")]);
        let (a, b) = (ports.held()[0].port.clone(), ports.held()[1].port.clone());
        let c = ("c".to_owned(), b.1.clone());
        let of_kind = |address, kind: &str| Endpoint { kind: kind.into(), address };
        let changes = PreparedPorts {
            opened: vec![held("d", "127.0.0.1:72")],
            close: vec![a],
            hand_over: vec![(b, c.clone())],
            open: Vec::new(),
            files: BTreeMap::new(),
            endpoints: BTreeMap::from([(c.clone(), of_kind(c.1, "telnet"))]),
        };
        assert!(ports.change(&mut core, changes));
        assert_eq!(ports.held()[0].kind, "telnet".into());
        // The kind alone is a change, too.
        let d = ports.held()[1].port.clone();
        let endpoints = BTreeMap::from([(d.clone(), of_kind(d.1, "raw"))]);
        assert!(ports.change(&mut core, PreparedPorts { endpoints, ..PreparedPorts::default() }));
        assert!(!ports.change(&mut core, PreparedPorts::default()));
        let mut successor = Ports::default();
        assert!(successor.restore(&mut core));
        let names: Vec<_> = successor.held().iter().map(|p| (p.port.0.as_str(), &*p.kind)).collect();
        assert_eq!(names, [("c", "telnet"), ("d", "raw")]);
    }
}
