//! The status of the host, also while no worker lives.
//!
//! The worker is not asked: its counters are read from the board. So the answer comes at once, even
//! while a callback stalls or the worker is in its start.

use crate::keeper::Keeper;
use crate::keeper::phase::Phase;
use crate::protocol::keeper::HeldPort;
use crate::protocol::status::{ConfigFileStatus, HostStatus, ServiceStatus, Status, stacks};
use greenroom_core::limits::names::Limit;
use greenroom_state::address::Address;
use std::net::{Ipv4Addr, Ipv6Addr};

impl Keeper {
    /// Puts the status together from the keeper's state and the worker's counters. Costs one copy
    /// of the board. The counters are read one by one, while a worker may change them.
    pub(super) fn status(&mut self) -> Status {
        let board = self.worker.read_board();
        let reached = |limit: &Limit| board.reached(*limit) + self.reached.get(limit).copied().unwrap_or(0);
        let limits = Limit::ALL.iter().map(|l| (l.name().to_owned(), reached(l))).collect();
        // A worker that serves shows why its predecessor died; after a handover there is no reason.
        let reason = match self.worker.phase() {
            Phase::Parked { reason, .. } => Some(reason.as_str()),
            Phase::Starting { .. } | Phase::Serving { .. } => self.worker.deaths().last(),
            Phase::HandingOver { .. } => None,
        };
        Status {
            host: HostStatus {
                pid: std::process::id(),
                worker_pid: self.worker_pid(),
                version: env!("CARGO_PKG_VERSION").into(),
                uptime_s: self.started.elapsed().as_secs(),
                worker: self.worker.phase().name().into(),
                workers_before: self.worker.incarnation().saturating_sub(1),
                reason: reason.filter(|r| !r.is_empty()).map(str::to_owned),
                connections: self.acceptor.connections(),
                peers_left: if self.worker.serves() { 0 } else { self.acceptor.left() },
                limits,
                stalled: self.stalled(&board),
                failing: self.acceptor.failing().into_iter().chain(self.failing.all()).collect(),
                missing: self.belongings.missing(),
                made_anew: self.belongings.made_anew(),
                files: self.files.differing(|build| self.is_canary(build)),
                configuration: self.config_files_not_in_force(),
                slow_look: self.files.slow_look(),
                longest_pass_ms: board.longest_pass_ms(),
                confinement: self.options.confined.clone(),
                not_accepting: self.why_not_accepting(),
                observer: self.observer.status(),
                log: self.log_levels.changed(),
            },
            services: self.worker.services().map(|s| self.with_stacks(s.clone())).collect(),
        }
    }

    /// Whether a build runs as a canary.
    fn is_canary(&self, build: &str) -> bool {
        self.worker.services().any(|s| s.canary.as_ref().is_some_and(|c| c.build == build))
    }

    /// Files of the configuration that are not in force.
    fn config_files_not_in_force(&self) -> Vec<ConfigFileStatus> {
        let path = self.options.source.path.as_deref();
        self.files.not_in_force(&self.options.config, path, self.failing.last("configuration"))
    }

    /// Reason why new connections are not served now. `None`: they are.
    fn why_not_accepting(&self) -> Option<String> {
        if self.stop.is_requested() {
            return Some("the host is stopping".into());
        }
        if !self.worker.takes_connections() {
            return Some("no worker takes connections".into());
        }
        if let Some(failing) = self.acceptor.failing() {
            return Some(failing.why);
        }
        let most = self.options.config.limits.sessions_max;
        let sessions: usize = self.worker.services().map(|s| s.sessions).sum();
        (sessions >= most).then(|| format!("{sessions} sessions are open (limit sessions_max)"))
    }

    /// Status of a service, with the endpoints that take IPv6 and IPv4.
    fn with_stacks(&self, mut service: ServiceStatus) -> ServiceStatus {
        let own = self.worker.ports().iter().filter(|p| p.port.0 == service.name);
        service.dual_stack =
            own.filter(|p| self.takes_ipv4(p)).map(|port| port.named().to_string()).collect();
        service
    }

    /// Services with their endpoints in words, and the observer with its address.
    pub(super) fn named_ports(&self) -> Vec<(String, String)> {
        let ports = self.worker.ports().iter().map(|p| (p.port.0.clone(), self.with_stack(p)));
        let observer = self.observer.addr().map(|at| ("observer".to_owned(), format!("http://{at}")));
        ports.chain(observer).collect()
    }

    /// An endpoint in words, with the stacks that it takes.
    fn with_stack(&self, port: &HeldPort) -> String {
        let endpoint = port.named().to_string();
        format!("{endpoint}{}", stacks(&endpoint, self.takes_ipv4(port)))
    }

    /// Whether an endpoint at `[::]` takes IPv4, too: its socket does, or its service has the twin
    /// at 0.0.0.0 in the same kind.
    fn takes_ipv4(&self, port: &HeldPort) -> bool {
        let Some(at) = port.addr.socket_addr().filter(|at| at.ip() == Ipv6Addr::UNSPECIFIED) else {
            return false;
        };
        let twin = Address::Tcp((Ipv4Addr::UNSPECIFIED, at.port()).into());
        let is_twin = |p: &HeldPort| p.addr == twin && p.port.0 == port.port.0 && p.kind == port.kind;
        self.worker.ports().iter().any(is_twin) || self.acceptor.takes_ipv4(&port.addr)
    }

    /// Process id of the worker; 0: none lives. With `--no-keeper`, the id of this process.
    pub(super) fn worker_pid(&self) -> u32 {
        match (self.worker.pid(), &self.binary) {
            (Some(pid), _) => pid,
            (None, Some(_)) => 0,
            (None, None) => std::process::id(),
        }
    }
}
