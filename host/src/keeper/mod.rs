//! The keeper's loop. The keeper holds every descriptor, accepts, and sees to it that a worker
//! serves.
//!
//! It runs no handler's code, reads no byte that a client sent, and does not map the records, so it
//! has little to die of. A worker may die at any instruction. Its successor starts once it is
//! reaped, gets every descriptor that the keeper holds, and goes on. Until then connections wait in
//! the kernel.
//!
//! The loop looks at every source after each poll: the events tell only which listeners and
//! outbound connections are ready.

mod acceptor;
mod answer_callers;
mod callers;
mod configure;
mod connections;
mod deaths;
mod dialer;
pub mod events;
mod listeners;
mod memory_files;
mod phase;
mod propose;
mod spawn;
mod status;
mod stop;
mod succession;
mod tokens;
mod upgrade;
mod upgrade_steps;
mod worker_process;

use crate::admin::server::{Asked, refuse};
use crate::config::Config;
use crate::config::source::ConfigSource;
use crate::exit_status::own_binary;
use crate::mailbox::Mailbox;
use crate::protocol::found::Found;
use crate::protocol::keeper::{HeldPort, ToKeeper, ToWorker};
use crate::protocol::link::Received;
use acceptor::{Accepted, Acceptor};
use callers::{Callers, WaitingCaller};
use configure::ConfigProposals;
use events::{Event, EventQueue};
use greenroom_core::limits::names::Limit;
use greenroom_core::recovery::crashes::Crashes;
use greenroom_core::reload::request::Requester;
use mio::{Events, Poll};
use phase::{Phase, START_MAX};
use signal_hook::consts::SIGHUP;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use stop::Stop;
use upgrade::UpgradeUnderWay;
use worker_process::WorkerProcess;

/// Time beyond `stop_ms` that a worker may take to end.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Everything that the keeper and its workers run with.
pub struct Options {
    /// The configuration.
    pub config: Config,
    /// Its sources.
    pub source: ConfigSource,
    /// The libraries.
    pub found: Found,
    /// Directory of private copies.
    pub copies: PathBuf,
    /// File of saved tables and ledger.
    pub save: PathBuf,
    /// The most detailed level that is logged.
    pub log: String,
    /// Socket to a worker in this very process. `None`: each worker has a process of its own.
    pub in_process: Option<OwnedFd>,
}

/// Callback that is given the ports once, when the host serves for the first time.
type OnReady<'a> = &'a dyn Fn(&[(String, SocketAddr)]);

/// The keeper: its parts, by owner.
pub struct Keeper {
    options: Options,
    poll: Poll,
    events: EventQueue,
    /// Binary of the next process. `None`: the worker runs in this process.
    binary: Option<File>,
    acceptor: Acceptor,
    worker: WorkerProcess,
    proposals: ConfigProposals,
    callers: Callers,
    crashes: Crashes,
    upgrade: Option<UpgradeUnderWay>,
    stop: Stop,
    /// Times that each limit was reached here, not in a worker.
    reached: BTreeMap<Limit, u64>,
    started: Instant,
}

impl Keeper {
    /// Makes a keeper without a worker's process.
    pub fn new(options: Options) -> io::Result<Keeper> {
        let poll = Poll::new()?;
        Ok(Keeper {
            binary: if options.in_process.is_some() { None } else { Some(own_binary()?) },
            options,
            events: EventQueue::new(poll.registry())?,
            poll,
            acceptor: Acceptor::default(),
            worker: WorkerProcess::new()?,
            proposals: ConfigProposals::default(),
            callers: Callers::default(),
            crashes: Crashes::default(),
            upgrade: None,
            stop: Stop::default(),
            reached: BTreeMap::new(),
            started: Instant::now(),
        })
    }

    /// Mailbox for other threads.
    pub fn mailbox(&self) -> Mailbox<Event> {
        self.events.mailbox()
    }

    /// Runs until the host is told to stop. `ready` is called with the ports once, when the host
    /// serves for the first time. The error says why it ended otherwise than by a clean stop.
    pub fn run(mut self, ready: impl Fn(&[(String, SocketAddr)])) -> Result<(), String> {
        let mut events = Events::with_capacity(256);
        loop {
            self.keep_a_worker();
            if self.stop.is_over() {
                return self.stop.into_result();
            }
            match self.poll.poll(&mut events, self.timeout()) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(format!("the keeper's poll: {e}")),
            }
            for event in &events {
                match acceptor::source(event.token()) {
                    Some(acceptor::AcceptorEvent::Listener(index)) => self.accept(index),
                    Some(acceptor::AcceptorEvent::Dialed(number)) => self.look_at_dialed(number),
                    None => {}
                }
            }
            // Messages that a worker sent before its end count.
            self.hear_worker(&ready);
            self.reap();
            self.hear_trial();
            for event in self.events.take() {
                self.handle(event);
            }
            self.accept_again();
            self.hand_connections();
            self.look_at_the_clock();
        }
    }

    /// Time that the poll may sleep.
    fn timeout(&self) -> Option<Duration> {
        let now = Instant::now();
        let all = [
            self.worker.phase().deadline(),
            self.acceptor.deadline(self.may_accept(), now),
            self.callers.deadline(),
            self.upgrade.as_ref().map(UpgradeUnderWay::give_up_at),
            self.stop.deadline(),
        ];
        all.into_iter().flatten().min().map(|at| at.saturating_duration_since(now))
    }

    /// Handles an event of another thread.
    fn handle(&mut self, event: Event) {
        match event {
            Event::Asked(Asked::OfKeeper(command, answers)) => self.answer(command, answers),
            Event::Asked(Asked::OfWorker(command, by, stream)) => {
                self.relay(WaitingCaller { command, by, stream });
            }
            Event::Signal(SIGHUP) => self.configure(Requester::Signal, None),
            Event::Signal(signal) => self.stop(signal),
            Event::Read { config, by, stream } => self.propose(*config, by, stream),
            Event::Changed(_) if !self.options.config.watch => {}
            // A worker looks at all files when it starts.
            Event::Changed(path) => self.worker.send(&ToWorker::Changed(path)),
        }
    }

    // --- the worker's messages ------------------------------------------------------------------

    fn hear_worker(&mut self, ready: OnReady<'_>) {
        while let Some(received) = self.worker.receive() {
            match received {
                Ok(Received::Message(message, _)) => self.heard(message, ready),
                Ok(Received::Unknown(what)) => {
                    tracing::warn!("the worker is of a later version: {what}; that is left out");
                }
                Ok(Received::Nothing) => return,
                Ok(Received::Closed) => {
                    self.worker.unlink(self.poll.registry());
                    if !self.worker.has_process() {
                        // It ran in this process: no other can follow.
                        self.stop.end();
                    }
                    return;
                }
                Err(e) => {
                    tracing::error!("the worker said what can't be understood ({e}); it is replaced");
                    return self.worker.kill();
                }
            }
        }
    }

    fn heard(&mut self, message: ToKeeper, ready: OnReady<'_>) {
        match message {
            ToKeeper::Ready(ports, served) => self.ready(ports, served, ready),
            ToKeeper::CantStart(reason) if self.worker.has_served() => {
                self.worker.deaths_mut().refuses(reason)
            }
            ToKeeper::CantStart(reason) => self.stop.note_failure(reason),
            ToKeeper::Ack => self.worker.acknowledged(),
            ToKeeper::Drop(connections) => self.acceptor.drop(&connections),
            ToKeeper::Open(ports) => {
                let opened = self.acceptor.open(ports);
                self.worker.send(&ToWorker::Opened(opened));
            }
            ToKeeper::Connect(number, addr) => self.dial(number, addr),
            ToKeeper::Discard(addrs) => self.acceptor.discard(&addrs),
            ToKeeper::Ports(ports) => {
                if self.worker.uses_ports(ports) {
                    self.acceptor.follow(self.poll.registry(), self.worker.ports());
                }
            }
            ToKeeper::Configured(number) => self.configured(number),
            ToKeeper::NotConfigured(number) => self.not_configured(number),
            ToKeeper::Pinned(epoch) => self.pinned(epoch),
            ToKeeper::Unpinned(held) => self.unpinned(held),
            ToKeeper::Recycle(why) if self.worker.has_process() => {
                tracing::info!("the worker is recycled: {why}");
                self.hand_over();
            }
            ToKeeper::Recycle(why) => {
                tracing::warn!("{why}, and --no-keeper has no other process to go on in");
            }
            ToKeeper::Tried(_) => {}
        }
    }

    /// Handles a worker that has become ready, with these ports. `served`: the highest number of a
    /// connection that it knows.
    fn ready(&mut self, ports: Vec<HeldPort>, served: u64, ready: OnReady<'_>) {
        self.acceptor.number_above(served);
        let (first, gap) = self.worker.is_ready(ports);
        self.acceptor.follow_all(self.poll.registry(), self.worker.ports());
        if first {
            let ports = self.worker.ports().iter();
            ready(&ports.map(|p| (p.port.0.clone(), p.addr)).collect::<Vec<_>>());
        }
        if let Some(gap) = gap {
            tracing::info!(
                worker_pid = self.worker_pid(),
                connections = self.acceptor.connections(),
                "a successor serves, {:.1} ms after the worker before it ended",
                gap.as_secs_f64() * 1000.0
            );
        }
        self.upgraded();
        if self.stop.is_requested() && !self.worker.is_told_to_stop() {
            // The worker that was told has died.
            self.worker.tell_to_stop(self.stop.signal());
        }
        for caller in self.callers.take() {
            self.relay(caller);
        }
        self.propose_again();
    }

    // --- connections ----------------------------------------------------------------------------

    fn may_accept(&self) -> bool {
        self.worker.takes_connections() && !self.stop.is_requested()
    }

    fn accept(&mut self, index: usize) {
        let may = self.may_accept();
        let accepted = self.acceptor.accept(index, may);
        self.accepted(accepted);
    }

    fn accept_again(&mut self) {
        let may = self.may_accept();
        let accepted = self.acceptor.accept_again(may, Instant::now());
        self.accepted(accepted);
    }

    fn accepted(&mut self, accepted: Accepted) {
        self.worker.queue(accepted.keys);
        self.count_reached(Limit::OpenFiles, accepted.out_of_files);
    }

    fn dial(&mut self, number: u64, addr: SocketAddr) {
        let patience = Duration::from_millis(self.options.config.limits.connect_ms);
        if let Err(why) = self.acceptor.dial(self.poll.registry(), number, addr, patience) {
            self.worker.send(&ToWorker::ConnectFailed(number, why));
        }
    }

    fn look_at_dialed(&mut self, number: u64) {
        match self.acceptor.dialed(self.poll.registry(), number) {
            None => {}
            Some(Ok(key)) => self.worker.queue([key]),
            // Without a worker nobody is told: a successor asks again.
            Some(Err(why)) => self.worker.send(&ToWorker::ConnectFailed(number, why)),
        }
    }

    /// Hands the worker the connections that it does not have yet.
    fn hand_connections(&mut self) {
        loop {
            let Some(keys) = self.worker.next_batch() else { break };
            let n = keys.len();
            let batch = self.acceptor.batch(keys);
            let dialed = self.acceptor.dialed_among(&batch.connections);
            if !self.worker.hand(n, batch, dialed) {
                break;
            }
        }
        self.worker.tell_to_start();
    }

    /// Counts a limit that the keeper reached, so many times.
    fn count_reached(&mut self, limit: Limit, times: u64) {
        if times > 0 {
            *self.reached.entry(limit).or_default() += times;
        }
    }

    // --- the clock, and the end -----------------------------------------------------------------

    fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        while let Some(caller) = self.callers.take_late(now) {
            let why = match self.worker.phase() {
                Phase::Parked { reason, .. } => format!("no worker serves at the moment: {reason}"),
                _ => "no worker serves yet; see `greenroom status`".into(),
            };
            refuse(&caller.stream, &why);
        }
        if self.worker.is_overdue(now) {
            tracing::error!("the worker is not ready after {START_MAX:?}; it is replaced");
            self.worker.kill();
        }
        for number in self.acceptor.take_late(self.poll.registry(), now) {
            self.count_reached(Limit::ConnectMs, 1);
            let why = "it took too long (limit connect_ms)".into();
            self.worker.send(&ToWorker::ConnectFailed(number, why));
        }
        self.upgrade_in_time(now);
        if self.stop.deadline().is_some_and(|at| at <= now) {
            tracing::error!("the worker doesn't end; it is killed");
            if self.binary.is_none() {
                // The worker runs in this process, which nothing else would end.
                std::process::exit(1);
            }
            self.stop.fail("the worker didn't end, and nothing was saved".into());
            self.worker.kill();
            self.stop.extend(now + STOP_GRACE);
        }
    }

    /// Handles a signal to stop. The second one ends the host at once if no worker was told.
    fn stop(&mut self, signal: i32) {
        let again = self.stop.is_requested();
        if !again {
            self.fail_upgrade("the host is stopping");
        }
        let wait = Duration::from_millis(self.options.config.limits.stop_ms) + STOP_GRACE;
        self.stop.request(signal, Instant::now() + wait);
        // A worker that is still to start is told once it serves.
        let told = self.worker.tell_to_stop(signal);
        if !told && self.worker.has_served() && !again {
            tracing::warn!(connections = self.acceptor.connections(), "told to stop while no worker serves");
        }
        if again && !self.worker.is_told_to_stop() {
            self.stop.fail("stopped while no worker served: nothing was flushed or saved".into());
            self.worker.kill();
        }
    }
}
