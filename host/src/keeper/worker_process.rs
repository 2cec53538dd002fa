//! A worker, and the processes that follow each other in it.
//!
//! A [`WorkerProcess`] holds everything that exists once for each worker: memory files, phase,
//! socket, connections to hand over, counts of deaths. All of that outlives a process. No field is
//! about the host, so a host with several workers has a `Vec` of these.
//!
//! | phase | event | next phase |
//! | --- | --- | --- |
//! | parked | `begin`: a process was spawned, and is greeted | starting |
//! | starting | `is_ready`: the process has all connections, and serves | serving |
//! | serving | `hand_over`: another process is to go on | handing over |
//! | all but parked | `bury`: the process has ended, for any reason | parked, due at once |
//! | parked | `park`: the next start must wait | parked, due later |
//!
//! Only the keeper's loop uses this type, on one thread, and no method blocks except
//! [`WorkerProcess::abandon`]. If no process is linked, a method that talks to one does nothing. A
//! successor learns all that it needs from its first message and its connections.
//!
//! Each process costs two descriptors, for its socket and its pidfd. A worker costs three more, for
//! its memory files.

use crate::keeper::connections::Batch;
use crate::keeper::deaths::{Deaths, Ended};
use crate::keeper::hand_queue::{Announced, HandQueue};
use crate::keeper::memory_files::MemoryFiles;
use crate::keeper::phase::Phase;
use crate::keeper::spawn::{self, Process, Spawned};
use crate::keeper::tokens::{ENDED, LINK};
use crate::memory::reading::{self, Reading};
use crate::protocol::board_text;
use crate::protocol::keeper::{EndpointId, HeldPort, Hello, ToKeeper, ToWorker};
use crate::protocol::link::{Link, Received, to_file};
use crate::protocol::status::ServiceStatus;
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// A worker, and the processes that follow each other in it.
pub(super) struct WorkerProcess {
    memory: MemoryFiles,
    phase: Phase,
    /// Socket to the process. `None`: none lives, or it has closed its end.
    link: Option<Link<ToKeeper, ToWorker>>,
    /// The process, until it is reaped. `None`: none lives, or the worker runs in this process.
    process: Option<Process>,
    /// Connections that the process does not have yet.
    to_hand: HandQueue,
    /// Ports in use, as the worker reported them last.
    ports: Vec<HeldPort>,
    /// Highest number of an endpoint that the worker reported. Only grows, so that no successor
    /// gives a number twice.
    endpoint_last: EndpointId,
    /// Services, as the worker reported them last; `None`: withdrawn.
    services: Vec<Option<ServiceStatus>>,
    /// Number of processes so far.
    incarnation: u64,
    /// Deaths and failed starts.
    deaths: Deaths,
    /// Some process has served. From then on a failed start is repeated until the host stops.
    has_served: bool,
    /// The present process was told to stop.
    stop_told: bool,
}

impl WorkerProcess {
    /// Makes a worker without a process, with fresh memory files. The first start is due at once.
    /// Fails if the kernel gives no memory files.
    pub(super) fn new() -> io::Result<WorkerProcess> {
        Ok(WorkerProcess {
            memory: MemoryFiles::new()?,
            phase: Phase::Parked { until: Instant::now(), reason: "starting".into() },
            link: None,
            process: None,
            to_hand: HandQueue::default(),
            ports: Vec::new(),
            endpoint_last: EndpointId::NONE,
            services: Vec::new(),
            incarnation: 0,
            deaths: Deaths::default(),
            has_served: false,
            stop_told: false,
        })
    }

    /// Memory files of this worker.
    pub(super) fn memory(&self) -> &MemoryFiles {
        &self.memory
    }

    /// The phase.
    pub(super) fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Whether the worker serves.
    pub(super) fn serves(&self) -> bool {
        matches!(self.phase, Phase::Serving { .. })
    }

    /// Whether a start or a handover takes too long. True once in
    /// [`crate::keeper::phase::START_MAX`], so a kill that fails is repeated.
    pub(super) fn is_overdue(&mut self, now: Instant) -> bool {
        self.phase.is_overdue(now)
    }

    /// Whether connections may be accepted: the worker serves, and acknowledges them in time. While
    /// false, new connections wait in the kernel's queue.
    pub(super) fn takes_connections(&self) -> bool {
        self.serves() && self.to_hand.takes_more()
    }

    /// Whether the worker runs in a process of its own, now.
    pub(super) fn has_process(&self) -> bool {
        self.process.is_some()
    }

    /// The process id. `None`: the worker has no process of its own.
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|p| p.child.id())
    }

    /// Number of processes so far.
    pub(super) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Ports in use, as the worker reported them last.
    pub(super) fn ports(&self) -> &[HeldPort] {
        &self.ports
    }

    /// Highest number of an endpoint that the worker reported.
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

    /// Reads the counters and the services, also those of a dead process. If the board holds no
    /// readable text, the services that were read before stay. Costs a copy of the whole board,
    /// about 848 KiB.
    pub(super) fn read_board(&mut self) -> Reading {
        let board = Reading::of(self.memory.board());
        if let Some(services) = board_text::read(&board) {
            self.services = services;
        }
        board
    }

    /// Whether the next process is due. A worker in this process stays linked, so none is due then.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Parked { until, .. } if until <= now) && self.link.is_none()
    }

    /// Begins with a process that was just spawned: polls and greets it, and notes the connections
    /// to hand over. After an error the phase is still parked, and the caller must call
    /// [`WorkerProcess::abandon`]. A process that has ended already is no error.
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
        // The board may still name the predecessor's turn. If this process dies before it maps the
        // board, its death must not count against that turn.
        reading::forget(self.memory.board())?;
        let hello = to_file(hello)?;
        let link = self.link.insert(Link::new(spawned.link));
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut SourceFd(&link.fd().as_raw_fd()), LINK, both)?;
        spawn::greet(link, &self.memory.with(&hello))?;
        self.incarnation += 1;
        self.stop_told = false;
        self.to_hand = HandQueue::of(to_hand);
        self.phase = Phase::Starting { since: now, all_handed: false };
        Ok(())
    }

    /// Gives up a process that could not be started: kills it, and waits for its end. SIGKILL makes
    /// that wait short. Does nothing if there is no process.
    pub(super) fn abandon(&mut self, registry: &Registry) {
        self.unlink(registry);
        if let Some(mut process) = self.process.take() {
            process.end();
        }
    }

    /// Notes that the process serves, with these ports. Returns whether the process is the first
    /// one ever, and the time since its predecessor ended.
    pub(super) fn is_ready(&mut self, ports: Vec<HeldPort>) -> (bool, Option<Duration>) {
        self.phase = Phase::Serving { since: Instant::now() };
        self.note_ports(ports);
        let first = !std::mem::replace(&mut self.has_served, true);
        (first, self.deaths.successor_serves())
    }

    /// Notes the ports of a commit. False: the process is still starting, and nothing is noted. A
    /// starting process may commit several times, and reports all ports once it is ready.
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

    /// Receives a message, if one is there, and sends what waits. `None`: no process is linked.
    /// Never blocks. The socket is polled edge-triggered, so the caller repeats until nothing
    /// comes.
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
    /// False: no room, and the message is not queued. An error mostly means that the process has
    /// just ended.
    pub(super) fn send_with(
        &mut self,
        message: &ToWorker,
        fds: &[BorrowedFd<'_>],
    ) -> Option<io::Result<bool>> {
        Some(self.link.as_mut()?.send_with(message, fds))
    }

    /// Closes the socket to the process. Messages in it are lost, in both directions.
    pub(super) fn unlink(&mut self, registry: &Registry) {
        if let Some(link) = self.link.take() {
            let _ = registry.deregister(&mut SourceFd(&link.fd().as_raw_fd()));
        }
    }

    /// Queues connections for this worker. Each start replaces the queue by all connections.
    pub(super) fn queue(&mut self, keys: impl IntoIterator<Item = u32>) {
        self.to_hand.extend(keys);
    }

    /// Keys of the next batch to hand over. `None`: nothing to hand over, or not now.
    pub(super) fn next_batch(&self) -> Option<impl ExactSizeIterator<Item = u32> + use<'_>> {
        self.link.as_ref().and_then(|_| self.to_hand.next_batch())
    }

    /// Keeps the reading ends of the pipes that handlers' output is in, for the end of the process.
    pub(super) fn keep_output(&mut self, fds: Vec<OwnedFd>) {
        if let Some(process) = &mut self.process {
            process.output = fds;
        }
    }

    /// Hands over the connections of the next `keys` keys, some of which are announced. False: the
    /// socket has no room now, or the process is gone, and the keys stay queued. O(keys).
    ///
    /// Keys whose connections are over are dropped with the batch, without a message.
    pub(super) fn hand(&mut self, keys: usize, batch: Batch<'_>, announced: Announced) -> bool {
        self.link.as_mut().is_some_and(|link| self.to_hand.hand(link, keys, batch, announced))
    }

    /// Notes that the process has received a batch. A surplus acknowledgement is ignored.
    pub(super) fn acknowledged(&mut self) {
        self.to_hand.acknowledged();
    }

    /// Tells a starting process to serve, once it has all connections. Does nothing in other
    /// phases, or when repeated. A successor must have all connections before it serves: it gives
    /// up sessions without one.
    pub(super) fn tell_to_start(&mut self) {
        if let (Phase::Starting { all_handed: all @ false, .. }, Some(link)) =
            (&mut self.phase, &mut self.link)
            && self.to_hand.is_empty()
        {
            *all = true;
            link.send(&ToWorker::Start);
        }
    }

    /// Tells the process to stop, on this signal. False: none is linked. True does not mean that
    /// the process reads the message: it may be at its end for another reason.
    pub(super) fn tell_to_stop(&mut self, signal: i32) -> bool {
        let Some(link) = &mut self.link else { return false };
        self.stop_told = true;
        link.send(&ToWorker::Stop(signal));
        true
    }

    /// Tells the process to end, so that another one goes on. Does nothing unless the worker serves
    /// in a process of its own.
    pub(super) fn hand_over(&mut self) {
        if let (Phase::Serving { .. }, Some(link), Some(_)) = (&self.phase, &mut self.link, &self.process) {
            link.send(&ToWorker::HandOver);
            self.phase = Phase::HandingOver { since: Instant::now() };
        }
    }

    /// Kills the process, which is reaped later. The verdict on a SIGKILL blames no turn. Does
    /// nothing for a worker in this process.
    pub(super) fn kill(&mut self) {
        if let Some(process) = &self.process {
            let _ = kill_process(Pid::from_child(&process.child), Signal::KILL);
            self.phase.ends();
        }
    }

    /// Exit status of a process that has ended. `None`: the process lives, or there is none. Reaps
    /// the process, and ends its group; repeatable until [`WorkerProcess::bury`].
    pub(super) fn exit_status(&mut self) -> Option<ExitStatus> {
        let status = self.process.as_mut()?.try_wait();
        status.inspect_err(|e| tracing::error!("the worker can't be waited for: {e}")).ok()?
    }

    /// Puts away a process that has ended with this status. The next one is due at once, unless the
    /// worker is parked for longer.
    ///
    /// The caller hears the last messages of the process first: they are lost with the socket.
    /// Connections and memory files stay for the successor.
    pub(super) fn bury(&mut self, registry: &Registry, status: ExitStatus) -> Ended {
        let mut pid = 0;
        if let Some(process) = self.process.take() {
            pid = process.child.id();
            let _ = registry.deregister(&mut SourceFd(&process.ended.as_raw_fd()));
            process.log_last_output();
        }
        self.unlink(registry);
        self.to_hand.nothing_is_in_flight();
        // The process is reaped, so its counters stand still.
        let board = self.read_board();
        self.deaths.begin_gap();
        let parked = Phase::Parked { until: Instant::now(), reason: String::new() };
        let phase = std::mem::replace(&mut self.phase, parked);
        Ended { pid, status, phase, board }
    }

    /// Parks the worker after a failure, for a time that grows with each one, up to 5 s. Returns
    /// that time. `reason` is shown to operators.
    pub(super) fn park(&mut self, reason: String) -> Duration {
        let rest = self.deaths.next_rest();
        self.phase = Phase::Parked { until: Instant::now() + rest, reason };
        rest
    }

    /// Parks the worker until the next round of the keeper's loop: another binary is tried at once.
    /// Counts no failure.
    pub(super) fn retry_at_once(&mut self, reason: String) {
        self.phase = Phase::Parked { until: Instant::now(), reason };
    }
}

#[cfg(test)]
mod tests;
