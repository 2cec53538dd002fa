//! The keeper: holds every descriptor, accepts, and sees to it that a worker serves. It runs no handler's code, reads no byte
//! that a client sent, and does not map the records, so there is little that it could die of.
//!
//! A worker may die at any instruction. Its successor is started once it was reaped, is given everything that the keeper holds, and
//! goes on; until then connections wait in the kernel. Where a worker is, says `Phase`.

mod configure;
mod connections;
mod dialer;
mod listeners;
mod spawn;

mod upgrade;
mod worker_process;

use crate::admin::server::{Asked, refuse};
use crate::config::{Config, Source};
use crate::exit_status::own_binary;
use crate::mailbox::Mailbox;
use crate::memory::board::Reading;
use crate::memory::records::memory_file;
use crate::plugin::discover::Found;
use crate::protocol::admin::{Command, HostStatus, Reply, ServiceStatus, Status};
use crate::protocol::keeper::{DESCRIPTORS_MAX, HeldPort, Link, Received, ToKeeper, ToWorker};
use connections::Held;
use dialer::Dialing;
use greenroom_core::limits::names::Limit;
use greenroom_core::recovery::crashes::Crashes;
use greenroom_core::reload::request::By;
use listeners::Listeners;
use mio::{Events, Poll, Token};
use signal_hook::consts::SIGHUP;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Child;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use upgrade::Upgrade;

const WAKER: Token = Token(0);
const LINK: Token = Token(1);
const ENDED: Token = Token(2);
const TRIAL: Token = Token(3);
const LISTENERS: usize = 16;
/// From here on the numbers of connections that are being made.
const DIALING: usize = 1 << 32;

/// Connections accepted from one port before others have their turn.
const ACCEPTS_AT_ONCE: usize = 64;
/// How long accepting rests when descriptors or memory ran out.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// Batches of connections that the worker hasn't acknowledged: with more, it doesn't keep up, and accepting waits.
const BATCHES_MAX: usize = 4;
/// How long a worker may take until it serves.
const START_MAX: Duration = Duration::from_secs(60);
/// The pause before a worker that couldn't start is tried again: at first, and at most.
const REST_MIN: Duration = Duration::from_millis(50);
const REST_MAX: Duration = Duration::from_secs(5);
/// A worker that died of itself so soon after it began to serve counts as one that couldn't start.
const SOON: Duration = Duration::from_millis(200);
/// A caller that no worker takes is told so after this time.
const CALLER_MAX: Duration = Duration::from_secs(5);
/// Callers that wait for a worker.
const CALLERS_MAX: usize = 32;
/// How much longer than `stop_ms` a worker may take to end.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// Workers that may die in a turn, one soon after the other, before there is a rest: an action does so twice at most.
const HOT_MAX: u32 = 8;

/// What other threads tell the keeper.
pub enum Event {
    /// An operator asks for something.
    Asked(Asked),
    /// SIGTERM or SIGINT.
    Signal(i32),
    /// A watched path changed.
    Changed(PathBuf),
    /// The configuration was read again, for somebody.
    Read {
        /// What it says.
        config: Box<Result<Config, String>>,
        /// Who wants it.
        by: By,
        /// Where the answer goes.
        stream: Option<UnixStream>,
    },
}

/// What the keeper and its workers run with.
pub struct Options {
    /// The configuration.
    pub config: Config,
    /// Where it came from.
    pub source: Source,
    /// The libraries.
    pub found: Found,
    /// Where private copies go.
    pub copies: PathBuf,
    /// Where tables and ledger are saved.
    pub save: PathBuf,
    /// The most detailed level that is logged.
    pub log: String,
    /// The socket to a worker that runs in this very process; else each has a process of its own.
    pub in_process: Option<OwnedFd>,
}

/// Where the worker is.
#[derive(Debug, Clone, PartialEq)]
enum Phase {
    /// None lives; the next one is started at this time. Everything waits.
    Parked { until: Instant, reason: String },
    /// One was started, and is being given what is there.
    Starting { since: Instant, told: bool },
    /// It serves.
    Serving { since: Instant },
    /// It was told to end, so that another one goes on.
    HandingOver { since: Instant },
}

/// See the module.
pub struct Keeper {
    options: Options,
    poll: Poll,
    inbox: Receiver<Event>,
    mailbox: Mailbox<Event>,
    binary: Option<File>,
    region: OwnedFd,
    input: OwnedFd,
    board: OwnedFd,
    listeners: Listeners,
    held: Held,
    dialing: Dialing,
    phase: Phase,
    link: Option<Link<ToKeeper, ToWorker>>,
    child: Option<Child>,
    ended: Option<OwnedFd>,
    /// Batches of connections that the worker hasn't acknowledged.
    in_flight: usize,
    accept_again: BTreeSet<usize>,
    accept_rests_until: Option<Instant>,
    /// Since when none could be accepted: told once.
    accept_failed_at: Option<Instant>,
    /// The ports that count, as a worker said.
    ports: Vec<HeldPort>,
    callers: VecDeque<(Command, By, UnixStream, Instant)>,
    /// SIGHUP came while no worker served.
    hung_up: bool,
    /// Workers, one after the other, that ended before they had answered a signal's configuration.
    signals_lost: u32,
    crashes: Crashes,
    upgrade: Option<Upgrade>,
    /// What the worker last said of its services.
    said: Vec<Option<ServiceStatus>>,
    started: Instant,
    incarnation: u64,
    /// Starts that failed, one after the other, and workers that died of themselves soon after they began to serve.
    failures: u32,
    soon: u32,
    /// Why the worker can't serve, in its own words.
    said_why: Option<String>,
    /// Why the worker before died.
    last_death: Option<String>,
    /// The last worker had itself to blame for its death.
    crashed: bool,
    /// When it did, until its successor serves.
    died_at: Option<Instant>,
    /// Some worker has served.
    was_ready: bool,
    stop_by: Option<Instant>,
    stop_signal: i32,
    /// The worker that lives was told to stop.
    stop_told: bool,
    /// Workers that died in a turn, one soon after the other.
    hot: u32,
    /// How often limits were reached here, not in the worker.
    reached: BTreeMap<Limit, u64>,
    /// Configurations that the worker was asked to put in force, and how many there were.
    proposed: BTreeMap<u64, configure::Proposed>,
    proposals: u64,
    /// Why the host ends, if not by request.
    fatal: Option<String>,
    over: bool,
}

impl Keeper {
    /// Everything but a worker.
    pub fn new(options: Options) -> io::Result<Keeper> {
        let poll = Poll::new()?;
        let (mailbox, inbox) = Mailbox::new(poll.registry(), WAKER)?;
        let now = Instant::now();
        Ok(Keeper {
            binary: if options.in_process.is_some() { None } else { Some(own_binary()?) },
            options,
            poll,
            inbox,
            mailbox,
            region: memory_file("greenroom-records")?,
            input: memory_file("greenroom-input")?,
            board: memory_file("greenroom-board")?,
            listeners: Listeners::default(),
            held: Held::default(),
            dialing: Dialing::default(),
            phase: Phase::Parked { until: now, reason: "starting".into() },
            link: None,
            child: None,
            ended: None,
            in_flight: 0,
            accept_again: BTreeSet::new(),
            accept_rests_until: None,
            accept_failed_at: None,
            ports: Vec::new(),
            callers: VecDeque::new(),
            hung_up: false,
            signals_lost: 0,
            crashes: Crashes::default(),
            upgrade: None,
            said: Vec::new(),
            started: now,
            incarnation: 0,
            failures: 0,
            soon: 0,
            said_why: None,
            last_death: None,
            crashed: false,
            died_at: None,
            was_ready: false,
            stop_by: None,
            stop_signal: 0,
            stop_told: false,
            hot: 0,
            reached: BTreeMap::new(),
            proposed: BTreeMap::new(),
            proposals: 0,
            fatal: None,
            over: false,
        })
    }

    /// Where other threads post.
    pub fn mailbox(&self) -> Mailbox<Event> {
        self.mailbox.clone()
    }

    /// Runs until the host is told to stop. `ready` is called with the ports once, when it serves for the first time. An error says
    /// why it never could.
    pub fn run(mut self, ready: impl Fn(&[(String, SocketAddr)])) -> Result<(), String> {
        let mut events = Events::with_capacity(256);
        loop {
            self.keep_a_worker();
            if self.over {
                break;
            }
            match self.poll.poll(&mut events, self.timeout()) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(format!("the keeper's poll: {e}")),
            }
            for event in &events {
                match event.token() {
                    WAKER | LINK | ENDED | TRIAL => {}
                    Token(n) if n >= DIALING => self.look_at_dial(n as u64 - DIALING as u64),
                    Token(n) => self.accept(n - LISTENERS),
                }
            }
            // What the worker said before it ended counts.
            self.hear_worker(&ready);
            self.reap();
            self.hear_trial();
            for event in self.inbox.try_iter().collect::<Vec<_>>() {
                match event {
                    Event::Asked(asked) => self.asked(asked),
                    Event::Signal(SIGHUP) => self.configure(By::Signal, None),
                    Event::Signal(signal) => self.stop(signal),
                    Event::Read { config, by, stream } => self.propose(*config, by, stream),
                    Event::Changed(_) if !self.options.config.watch => {}
                    Event::Changed(path) => {
                        // One that is still to start looks at all files.
                        if let Some(link) = &mut self.link {
                            link.send(&ToWorker::Changed(path));
                        }
                    }
                }
            }
            self.accept_rested();
            self.hand_connections();
            self.look_at_the_clock();
        }
        self.callers.clear();
        self.fatal.map_or(Ok(()), Err)
    }

    fn timeout(&self) -> Option<Duration> {
        let phase = match &self.phase {
            Phase::Parked { until, .. } => Some(*until),
            Phase::Starting { since, .. } | Phase::HandingOver { since } => Some(*since + START_MAX),
            Phase::Serving { .. } => None,
        };
        if !self.accept_again.is_empty() && self.may_accept() && self.accept_rests_until.is_none() {
            return Some(Duration::ZERO);
        }
        let rests = self.accept_rests_until.filter(|_| self.may_accept());
        let caller = self.callers.front().map(|(_, _, _, until)| *until);
        let upgrade = self.upgrade.as_ref().map(Upgrade::give_up_at);
        let all = [phase, rests, caller, upgrade, self.stop_by, self.dialing.next_late()];
        all.into_iter().flatten().min().map(|at| at.saturating_duration_since(Instant::now()))
    }

    // --- what the worker says ---------------------------------------------------------------------

    fn hear_worker(&mut self, ready: &impl Fn(&[(String, SocketAddr)])) {
        loop {
            let Some(link) = &mut self.link else { return };
            link.flush();
            match link.receive() {
                Ok(Received::Message(message, _)) => self.heard(message, ready),
                Ok(Received::Unknown(what)) => {
                    tracing::warn!("the worker is of a later version: {what}; that is left out");
                }
                Ok(Received::Nothing) => return,
                Ok(Received::Closed) if self.child.is_some() => return self.unlink(),
                Ok(Received::Closed) => {
                    // One that ran in this process: there is no other.
                    self.unlink();
                    self.over = true;
                    return;
                }
                Err(e) => {
                    tracing::error!("the worker said what can't be understood ({e}); it is replaced");
                    return self.kill_worker();
                }
            }
        }
    }

    fn heard(&mut self, message: ToKeeper, ready: &impl Fn(&[(String, SocketAddr)])) {
        match message {
            ToKeeper::Ready(ports, served) => {
                self.held.number_above(served);
                self.phase = Phase::Serving { since: Instant::now() };
                self.failures = 0;
                // It has counted that.
                self.crashed = false;
                self.ports.clone_from(&ports);
                let token = |index| Token(LISTENERS + index);
                self.listeners.follow(self.poll.registry(), token, &ports, true);
                // Whoever came meanwhile waits in the kernel, and no edge will follow.
                self.accept_again.extend(self.listeners.accepting());
                if !std::mem::replace(&mut self.was_ready, true) {
                    ready(&ports.into_iter().map(|p| (p.port.0, p.addr)).collect::<Vec<_>>());
                }
                if let Some(at) = self.died_at.take() {
                    let gap = at.elapsed().as_secs_f64() * 1000.0;
                    tracing::info!(
                        worker_pid = self.worker_pid(),
                        connections = self.held.len(),
                        "a successor serves, {gap:.1} ms after the worker before it ended"
                    );
                }
                self.upgraded();
                if self.stop_by.is_some()
                    && !std::mem::replace(&mut self.stop_told, true)
                    && let Some(link) = &mut self.link
                {
                    // One before died of it.
                    link.send(&ToWorker::Stop(self.stop_signal));
                }
                for (command, by, stream, _) in std::mem::take(&mut self.callers) {
                    match command {
                        Command::Configure => self.configure(by, Some(stream)),
                        _ => self.relay(command, by, stream),
                    }
                }
                self.propose_again();
            }
            ToKeeper::CantStart(reason) if self.was_ready => self.said_why = Some(reason),
            ToKeeper::CantStart(reason) => self.fatal = Some(reason),
            ToKeeper::Took => self.in_flight = self.in_flight.saturating_sub(1),
            ToKeeper::Drop(connections) => {
                for (key, number) in connections {
                    self.held.drop(key, number);
                    self.dialing.dropped(number);
                }
            }
            ToKeeper::Open(ports) => {
                let opened = self.listeners.open(ports);
                if let Some(link) = &mut self.link {
                    link.send(&ToWorker::Opened(opened));
                }
            }
            ToKeeper::Connect(number, addr) => self.dial(number, addr),
            ToKeeper::Discard(addrs) => self.listeners.discard(&addrs),
            ToKeeper::Ports(ports) => {
                let token = |index| Token(LISTENERS + index);
                if matches!(self.phase, Phase::Starting { .. }) {
                    // It tells all of them once it is ready; until then nothing is closed.
                    return;
                }
                let fresh = self.listeners.follow(self.poll.registry(), token, &ports, false);
                self.ports = ports;
                self.accept_again.extend(fresh);
            }
            ToKeeper::Configured(number) => self.configured(number),
            ToKeeper::NotConfigured(number) => _ = self.answered(number),
            ToKeeper::Pinned(epoch) => self.pinned(epoch),
            ToKeeper::Unpinned(held) => self.unpinned(held),
            ToKeeper::Recycle(why) if self.child.is_some() => {
                tracing::info!("the worker is recycled: {why}");
                self.hand_over();
            }
            ToKeeper::Recycle(why) => {
                tracing::warn!("{why}, and --no-keeper has no other process to go on in")
            }
            ToKeeper::Tried(_) => {}
        }
    }

    // --- connections ----------------------------------------------------------------------------

    fn may_accept(&self) -> bool {
        matches!(self.phase, Phase::Serving { .. }) && self.in_flight < BATCHES_MAX && self.stop_by.is_none()
    }

    fn accept(&mut self, index: usize) {
        if !self.may_accept() || self.accept_rests_until.is_some() {
            self.accept_again.insert(index);
            return;
        }
        for _ in 0..ACCEPTS_AT_ONCE {
            match self.listeners.accept(index) {
                None => return,
                Some(Ok(fd)) => {
                    self.held.add(fd);
                    if let Some(at) = self.accept_failed_at.take() {
                        tracing::info!("connections are accepted again, after {:.1?}", at.elapsed());
                    }
                }
                Some(Err(e)) => match e.kind() {
                    ErrorKind::WouldBlock => return,
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                    _ => {
                        // Edge-triggered: nobody will say that descriptors are free again, so it is tried again.
                        if self.accept_failed_at.is_none() {
                            tracing::warn!(
                                connections = self.held.len(),
                                "connections can't be accepted ({e}); they wait, and it is tried again every {ACCEPT_REST:?}"
                            );
                        }
                        self.reached(Limit::OpenFiles);
                        self.accept_failed_at.get_or_insert_with(Instant::now);
                        self.accept_again.insert(index);
                        self.accept_rests_until = Some(Instant::now() + ACCEPT_REST);
                        return;
                    }
                },
            }
        }
        self.accept_again.insert(index);
    }

    fn dial(&mut self, number: u64, addr: SocketAddr) {
        let patience = Duration::from_millis(self.options.config.limits.connect_ms);
        let token = Token(DIALING + number as usize);
        let begun = self.dialing.begin(self.poll.registry(), token, number, addr, patience);
        if let Err(why) = begun {
            self.dial_failed(number, why);
        }
    }

    fn look_at_dial(&mut self, number: u64) {
        match self.dialing.look(self.poll.registry(), number) {
            None => {}
            Some(Ok(fd)) => {
                let connection = self.held.add(fd);
                self.dialing.opened(connection, number);
            }
            Some(Err(why)) => self.dial_failed(number, why),
        }
    }

    /// Whoever takes over from a worker that isn't told asks again.
    fn dial_failed(&mut self, number: u64, why: String) {
        if let Some(link) = &mut self.link {
            link.send(&ToWorker::ConnectFailed(number, why));
        }
    }

    /// Accepts from the ports that had more than their share, or whose rest is over.
    fn accept_rested(&mut self) {
        if self.accept_again.is_empty()
            || !self.may_accept()
            || self.accept_rests_until.is_some_and(|at| Instant::now() < at)
        {
            return;
        }
        self.accept_rests_until = None;
        for index in std::mem::take(&mut self.accept_again) {
            self.accept(index);
        }
    }

    /// Gives the worker the connections that it doesn't have.
    fn hand_connections(&mut self) {
        let Some(link) = &mut self.link else { return };
        while self.in_flight < BATCHES_MAX && !self.held.all_sent() {
            let (connections, fds) = self.held.next(DESCRIPTORS_MAX);
            let (given, n) = (connections.len(), connections.len());
            let dialed = self.dialing.among(&connections);
            if !dialed.is_empty() {
                link.send(&ToWorker::Dialed(dialed));
            }
            match link.send_with(&ToWorker::Connections(connections), &fds) {
                Ok(true) => {
                    self.held.sent(n.max(1));
                    self.in_flight += usize::from(given > 0);
                }
                // It has no room now, and says so when it has; or it is gone, which is noticed elsewhere.
                Ok(false) | Err(_) => return,
            }
        }
        if let Phase::Starting { told: told @ false, .. } = &mut self.phase
            && self.held.all_sent()
        {
            *told = true;
            link.send(&ToWorker::Start);
        }
    }

    // --- operators ------------------------------------------------------------------------------

    fn asked(&mut self, asked: Asked) {
        match asked {
            Asked::Status(reply) => {
                let _ = reply.send(Reply::Status(self.status()));
            }
            Asked::Upgrade { binary, answers } => self.begin_upgrade(binary, answers),
            Asked::OfWorker(Command::Configure, by, stream) => self.configure(by, Some(stream)),
            Asked::OfWorker(command, by, stream) if matches!(self.phase, Phase::Serving { .. }) => {
                self.relay(command, by, stream);
            }
            Asked::OfWorker(command, by, stream) => self.wait_for_worker(command, by, stream),
        }
    }

    fn wait_for_worker(&mut self, command: Command, by: By, stream: UnixStream) {
        if self.callers.len() < CALLERS_MAX {
            self.callers.push_back((command, by, stream, Instant::now() + CALLER_MAX));
        } else {
            refuse(&stream, "too many commands wait for a worker already");
        }
    }

    fn relay(&mut self, command: Command, by: By, stream: UnixStream) {
        let Some(link) = &mut self.link else { return };
        match link.send_with(&ToWorker::Caller(command, by), &[stream.as_fd()]) {
            Ok(true) => {}
            _ => refuse(&stream, "the worker takes no commands now; see `greenroom status`"),
        }
    }

    /// Counts a limit that the keeper itself has reached.
    fn reached(&mut self, limit: Limit) {
        *self.reached.entry(limit).or_default() += 1;
    }

    fn status(&mut self) -> Status {
        let board = Reading::of(&self.board);
        let reached = |limit: &Limit| board.reached(*limit) + self.reached.get(limit).copied().unwrap_or(0);
        let limits = Limit::ALL.iter().map(|l| (l.name().to_owned(), reached(l))).collect();
        if let Some(services) = board.services() {
            self.said = services;
        }
        let (worker, reason) = match &self.phase {
            Phase::Parked { reason, .. } => ("parked", Some(reason.clone())),
            Phase::Starting { .. } => ("starting", self.last_death.clone()),
            Phase::Serving { .. } => ("serving", self.last_death.clone()),
            Phase::HandingOver { .. } => ("handing over", None),
        };
        Status {
            host: HostStatus {
                pid: std::process::id(),
                worker_pid: self.worker_pid(),
                version: env!("CARGO_PKG_VERSION").into(),
                uptime_s: self.started.elapsed().as_secs(),
                worker: worker.into(),
                workers_before: self.incarnation.saturating_sub(1),
                reason: reason.filter(|r| !r.is_empty()),
                connections: self.held.len(),
                limits,
            },
            services: self.said.iter().flatten().cloned().collect(),
        }
    }

    // --- the clock, and the end -----------------------------------------------------------------

    fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        while self.callers.front().is_some_and(|(_, _, _, until)| *until <= now) {
            let why = match &self.phase {
                Phase::Parked { reason, .. } => format!("no worker serves at the moment: {reason}"),
                _ => "no worker serves yet; see `greenroom status`".into(),
            };
            if let Some((_, _, stream, _)) = self.callers.pop_front() {
                refuse(&stream, &why);
            }
        }
        match self.phase {
            Phase::Starting { since, .. } | Phase::HandingOver { since } if since + START_MAX <= now => {
                tracing::error!("the worker is not ready after {START_MAX:?}; it is replaced");
                self.kill_worker();
                // Once: its end is waited for.
                if let Phase::Starting { since, .. } | Phase::HandingOver { since } = &mut self.phase {
                    *since = now;
                }
            }
            _ => {}
        }
        for number in self.dialing.late(self.poll.registry(), now) {
            self.reached(Limit::ConnectMs);
            self.dial_failed(number, "it took too long (limit connect_ms)".into());
        }
        self.upgrade_in_time(now);
        if self.stop_by.is_some_and(|at| at <= now) {
            tracing::error!("the worker doesn't end; it is killed");
            if self.binary.is_none() {
                // In this very process, where nothing else would end it.
                std::process::exit(1);
            }
            self.fatal = Some("the worker didn't end, and nothing was saved".into());
            self.over = true;
            self.kill_worker();
            self.stop_by = Some(now + STOP_GRACE);
        }
    }

    fn stop(&mut self, signal: i32) {
        let again = self.stop_by.is_some();
        if !again {
            self.fail_upgrade("the host is stopping");
        }
        let wait = Duration::from_millis(self.options.config.limits.stop_ms) + STOP_GRACE;
        self.stop_by = Some(Instant::now() + wait);
        self.stop_signal = signal;
        match &mut self.link {
            Some(link) => {
                self.stop_told = true;
                link.send(&ToWorker::Stop(signal));
            }
            // One that is still to start is told when it serves.
            None if self.was_ready && !again => {
                tracing::warn!(connections = self.held.len(), "told to stop while no worker serves");
            }
            None => {}
        }
        if again && !self.stop_told {
            // There is none that could be told.
            self.fatal = Some("stopped while no worker served: nothing was flushed or saved".into());
            self.over = true;
            self.kill_worker();
        }
    }
}
