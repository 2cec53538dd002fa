//! One worker process: spawned, serving, dead, replaced. Everything that exists once for each
//! worker.
//!
//! A [`WorkerProcess`] outlives the processes that follow each other in it. The memory files, the
//! counts of failures and the connections to hand over belong to the worker, not to one process. No
//! field here is about the host, so a host with several workers has a `Vec` of these.

use crate::keeper::connections::Batch;
use crate::keeper::deaths::{Deaths, Ended};
use crate::keeper::memory_files::MemoryFiles;
use crate::keeper::phase::Phase;
use crate::keeper::spawn::{self, Process, Spawned};
use crate::keeper::{ENDED, LINK};
use crate::memory::board::{self, Reading};
use crate::protocol::admin::ServiceStatus;
use crate::protocol::keeper::{EndpointId, HeldPort, Hello, ToKeeper, ToWorker};
use crate::protocol::link::{DESCRIPTORS_MAX, Link, Received, to_file};
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// Batches of connections that a worker has not acknowledged. With more, accepting waits.
const BATCHES_MAX: usize = 4;
/// A worker, and the processes that follow each other in it.
pub(super) struct WorkerProcess {
    memory: MemoryFiles,
    phase: Phase,
    link: Option<Link<ToKeeper, ToWorker>>,
    process: Option<Process>,
    /// Keys of the connections that the process does not have yet.
    to_hand: VecDeque<u32>,
    /// Batches of connections that the process has not acknowledged.
    in_flight: usize,
    /// Ports in use, as the worker reported them last.
    ports: Vec<HeldPort>,
    /// Highest number of an endpoint that the worker reported.
    endpoint_last: EndpointId,
    /// Services, as the worker reported them last; `None`: withdrawn.
    services: Vec<Option<ServiceStatus>>,
    /// Number of processes so far.
    incarnation: u64,
    /// Deaths and failed starts.
    deaths: Deaths,
    /// Some process has served.
    has_served: bool,
    /// The process was told to stop.
    stop_told: bool,
}

impl WorkerProcess {
    /// Makes a worker without a process. The first start is due at once.
    pub(super) fn new() -> io::Result<WorkerProcess> {
        Ok(WorkerProcess {
            memory: MemoryFiles::new()?,
            phase: Phase::Parked { until: Instant::now(), reason: "starting".into() },
            link: None,
            process: None,
            to_hand: VecDeque::new(),
            in_flight: 0,
            ports: Vec::new(),
            endpoint_last: EndpointId::NONE,
            services: Vec::new(),
            incarnation: 0,
            deaths: Deaths::default(),
            has_served: false,
            stop_told: false,
        })
    }

    // --- state ----------------------------------------------------------------------------------

    /// Memory files of this worker.
    pub(super) fn memory(&self) -> &MemoryFiles {
        &self.memory
    }

    /// The phase.
    pub(super) fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Whether it serves.
    pub(super) fn serves(&self) -> bool {
        matches!(self.phase, Phase::Serving { .. })
    }

    /// Whether a start or a handover takes too long. True once in
    /// [`crate::keeper::phase::START_MAX`].
    pub(super) fn is_overdue(&mut self, now: Instant) -> bool {
        self.phase.is_overdue(now)
    }

    /// Whether it may be given connections: it serves, and acknowledges them in time.
    pub(super) fn takes_connections(&self) -> bool {
        self.serves() && self.in_flight < BATCHES_MAX
    }

    /// Whether it runs in a process of its own, now.
    pub(super) fn has_process(&self) -> bool {
        self.process.is_some()
    }

    /// Its process id. `None`: it has no process of its own.
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|p| p.child.id())
    }

    /// Number of processes so far.
    pub(super) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Ports in use, as it reported them last.
    pub(super) fn ports(&self) -> &[HeldPort] {
        &self.ports
    }

    /// Highest number of an endpoint that it reported.
    pub(super) fn endpoint_last(&self) -> EndpointId {
        self.endpoint_last
    }

    /// Deaths and failed starts so far.
    pub(super) fn deaths(&self) -> &Deaths {
        &self.deaths
    }

    /// Deaths and failed starts so far, to note another one.
    pub(super) fn deaths_mut(&mut self) -> &mut Deaths {
        &mut self.deaths
    }

    /// Whether some process has served.
    pub(super) fn has_served(&self) -> bool {
        self.has_served
    }

    /// Whether the process was told to stop.
    pub(super) fn is_told_to_stop(&self) -> bool {
        self.stop_told
    }

    /// The service of this number, as it was reported last.
    pub(super) fn service(&self, number: u16) -> Option<&ServiceStatus> {
        self.services.get(usize::from(number)).and_then(Option::as_ref)
    }

    /// Services that are not withdrawn, as they were reported last.
    pub(super) fn services(&self) -> impl Iterator<Item = &ServiceStatus> {
        self.services.iter().flatten()
    }

    /// Reads the counters and the services, also a dead process's.
    pub(super) fn read_board(&mut self) -> Reading {
        let board = Reading::of(self.memory.board());
        if let Some(services) = board.services() {
            self.services = services;
        }
        board
    }

    // --- start ----------------------------------------------------------------------------------

    /// Whether the next process is due.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Parked { until, .. } if until <= now) && self.link.is_none()
    }

    /// Begins with a process that was just spawned: polls and greets it, and notes the connections
    /// to hand over. After an error, [`WorkerProcess::abandon`] is called.
    pub(super) fn begin(
        &mut self,
        registry: &Registry,
        spawned: Spawned,
        hello: &Hello,
        to_hand: VecDeque<u32>,
    ) -> io::Result<()> {
        let now = Instant::now();
        if let Some(process) = spawned.process {
            let process = self.process.insert(process);
            registry.register(&mut SourceFd(&process.ended.as_raw_fd()), ENDED, Interest::READABLE)?;
        }
        // The predecessor's turn is not this process's.
        board::forget(self.memory.board())?;
        let hello = to_file(hello)?;
        let link = self.link.insert(Link::new(spawned.link));
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut SourceFd(&link.fd().as_raw_fd()), LINK, both)?;
        spawn::greet(link, &self.memory.with(&hello))?;
        self.incarnation += 1;
        self.in_flight = 0;
        self.stop_told = false;
        self.to_hand = to_hand;
        self.phase = Phase::Starting { since: now, all_handed: false };
        Ok(())
    }

    /// Gives up a process that could not be started: ends it, and waits for its end.
    pub(super) fn abandon(&mut self, registry: &Registry) {
        self.unlink(registry);
        if let Some(mut process) = self.process.take() {
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }

    /// Notes that the process serves, with these ports. Returns whether it is the first one ever,
    /// and the time since its predecessor died.
    pub(super) fn is_ready(&mut self, ports: Vec<HeldPort>) -> (bool, Option<Duration>) {
        self.phase = Phase::Serving { since: Instant::now() };
        self.note_ports(ports);
        let first = !std::mem::replace(&mut self.has_served, true);
        (first, self.deaths.successor_serves())
    }

    /// Notes the ports of a commit. False: the process is still starting, and reports all ports
    /// once it is ready.
    pub(super) fn uses_ports(&mut self, ports: Vec<HeldPort>) -> bool {
        let counts = !matches!(self.phase, Phase::Starting { .. });
        if counts {
            self.note_ports(ports);
        }
        counts
    }

    fn note_ports(&mut self, ports: Vec<HeldPort>) {
        let highest = ports.iter().map(|p| p.endpoint).max().unwrap_or_default();
        self.endpoint_last = self.endpoint_last.max(highest);
        self.ports = ports;
    }

    // --- messages -------------------------------------------------------------------------------

    /// Receives a message, if one is there. `None`: no process is linked.
    pub(super) fn receive(&mut self) -> Option<io::Result<Received<ToKeeper>>> {
        let link = self.link.as_mut()?;
        link.flush();
        Some(link.receive())
    }

    /// Sends a message. Without a process it is dropped: a successor learns all that it needs at
    /// its start.
    pub(super) fn send(&mut self, message: &ToWorker) {
        if let Some(link) = &mut self.link {
            link.send(message);
        }
    }

    /// Sends a message with descriptors, if the socket has room now. `None`: no process is linked.
    pub(super) fn send_with(
        &mut self,
        message: &ToWorker,
        fds: &[BorrowedFd<'_>],
    ) -> Option<io::Result<bool>> {
        Some(self.link.as_mut()?.send_with(message, fds))
    }

    /// Closes the socket to the process.
    pub(super) fn unlink(&mut self, registry: &Registry) {
        if let Some(link) = self.link.take() {
            let _ = registry.deregister(&mut SourceFd(&link.fd().as_raw_fd()));
        }
    }

    // --- connections ----------------------------------------------------------------------------

    /// Queues connections for this worker.
    pub(super) fn queue(&mut self, keys: impl IntoIterator<Item = u32>) {
        self.to_hand.extend(keys);
    }

    /// Keys of the next batch to hand over. `None`: nothing to hand over, or not now.
    pub(super) fn next_batch(&self) -> Option<impl ExactSizeIterator<Item = u32> + use<'_>> {
        let may = self.link.is_some() && self.in_flight < BATCHES_MAX && !self.to_hand.is_empty();
        may.then(|| self.to_hand.iter().copied().take(DESCRIPTORS_MAX))
    }

    /// Hands over the connections of the next `keys` keys, `dialed` of which are outbound. False:
    /// the socket has no room now, or the process is gone.
    pub(super) fn hand(&mut self, keys: usize, batch: Batch<'_>, dialed: Vec<(u64, u64)>) -> bool {
        let Some(link) = &mut self.link else { return false };
        if !batch.connections.is_empty() {
            if !dialed.is_empty() {
                link.send(&ToWorker::Dialed(dialed));
            }
            // A worker that numbers no endpoints is of an earlier version, which does not know
            // this.
            if batch.endpoints.iter().any(|(endpoint, _)| !endpoint.is_none()) {
                link.send(&ToWorker::Endpoints(batch.endpoints));
            }
            match link.send_with(&ToWorker::Connections(batch.connections), &batch.descriptors) {
                Ok(true) => self.in_flight += 1,
                Ok(false) | Err(_) => return false,
            }
        }
        self.to_hand.drain(..keys.min(self.to_hand.len()));
        true
    }

    /// Notes that the process has received a batch.
    pub(super) fn acknowledged(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Tells a starting process to serve, once it has all connections.
    pub(super) fn tell_to_start(&mut self) {
        if let (Phase::Starting { all_handed: all @ false, .. }, Some(link)) =
            (&mut self.phase, &mut self.link)
            && self.to_hand.is_empty()
        {
            *all = true;
            link.send(&ToWorker::Start);
        }
    }

    // --- end ------------------------------------------------------------------------------------

    /// Tells the process to stop, on this signal. False: none is linked.
    pub(super) fn tell_to_stop(&mut self, signal: i32) -> bool {
        let Some(link) = &mut self.link else { return false };
        self.stop_told = true;
        link.send(&ToWorker::Stop(signal));
        true
    }

    /// Tells the process to end, so that another one goes on. Does nothing unless it serves in a
    /// process of its own.
    pub(super) fn hand_over(&mut self) {
        if let (Phase::Serving { .. }, Some(link), Some(_)) = (&self.phase, &mut self.link, &self.process) {
            link.send(&ToWorker::HandOver);
            self.phase = Phase::HandingOver { since: Instant::now() };
        }
    }

    /// Kills the process.
    pub(super) fn kill(&mut self) {
        if let Some(process) = &self.process {
            let _ = kill_process(Pid::from_child(&process.child), Signal::KILL);
        }
    }

    /// Exit status of a process that has ended.
    pub(super) fn exit_status(&mut self) -> Option<ExitStatus> {
        let status = self.process.as_mut()?.child.try_wait();
        status.inspect_err(|e| tracing::error!("the worker can't be waited for: {e}")).ok()?
    }

    /// Puts away a process that has ended with this status. The next one is due at once, unless the
    /// worker is parked for longer.
    pub(super) fn bury(&mut self, registry: &Registry, status: ExitStatus) -> Ended {
        let mut pid = 0;
        if let Some(process) = self.process.take() {
            pid = process.child.id();
            let _ = registry.deregister(&mut SourceFd(&process.ended.as_raw_fd()));
        }
        self.unlink(registry);
        self.in_flight = 0;
        let board = self.read_board();
        self.deaths.begin_gap();
        let parked = Phase::Parked { until: Instant::now(), reason: String::new() };
        let phase = std::mem::replace(&mut self.phase, parked);
        Ended { pid, status, phase, board }
    }

    /// Parks the worker after a failure, for a time that grows with each one. Returns that time.
    pub(super) fn park(&mut self, reason: String) -> Duration {
        let rest = self.deaths.next_rest();
        self.phase = Phase::Parked { until: Instant::now() + rest, reason };
        rest
    }

    /// Parks the worker until the next pass of the loop: another binary is tried at once.
    pub(super) fn retry_at_once(&mut self, reason: String) {
        self.phase = Phase::Parked { until: Instant::now(), reason };
    }
}

#[cfg(test)]
mod tests;
