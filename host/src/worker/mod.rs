//! The event loop: the only reader of the clock, and the only thread that touches the core and the sockets.
//!
//! A pass:
//!
//! 1. poll; read what is ready and give it to the core, which runs the turns;
//! 2. commit, once for all of them;
//! 3. carry out the core's effects, and send what the commit made ready;
//! 4. between two passes: commit a reload whose preparation is done, and what operators put back.
//!
//! Everything slow happens on other threads, which post a [`Message`] and wake the poll. Descriptors come from the keeper; see
//! [`crate::protocol::keeper`].

use crate::admin::query::{Answer, Mailbox, Message, Proposal};
use crate::admin::server;
use crate::config::Config;
use crate::crash_points;
use crate::crash_points::Point;
use crate::job_threads::Running;
use crate::log_at;
use crate::memory::board::Board;
use crate::memory::input::{Pool, READ_BYTES};
use crate::net::sockets::{LINK, Net, Source, WAKER, source};
use crate::plugin::prepare;
use crate::plugin::prepare::{Job, Loaded};
use crate::plugin::stage::Copies;
use crate::protocol::keeper::{HeldPort, Hello, Link, ToKeeper, ToWorker};
use crate::watchdog::StallLimits;
use arrayvec::ArrayVec;
use greenroom_core::command::Command;
use greenroom_core::core::Core;
use greenroom_core::ids::ServiceId;
use greenroom_core::ids::Slot;
use greenroom_core::input::Input;
use greenroom_core::ledger::ProbationCounts;
use greenroom_core::limits::host::PIECES_AT_ONCE;
use greenroom_core::limits::names::Limit;
use greenroom_core::recovery::crashes::action_name;
use greenroom_core::reload::request::LibraryId;
use greenroom_core::service::offer::Build;
use greenroom_core::service::probation::ProbationEnd;
use greenroom_core::store::kind::Kind;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Waker};
use reload::build_records::{LibraryRecord, OnProbation, RunningBuild};
use reload::carry_out::{Opening, Prepared};
use reload::proposals::{Behind, Proposed};
use restore::PutBack;
use rustix::net::sockopt::set_socket_linger;
use save::Saver;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

/// Events of one poll. Answers wait for the end of the pass, so a pass should not be long.
const EVENTS_PER_PASS: usize = 256;
/// Connections that one message to the keeper lets go of.
const DROPS_PER_MESSAGE: usize = 1000;
/// How long a worker that hands over waits for reloads, jobs and answers under way.
const HAND_OVER_MAX: Duration = Duration::from_secs(5);

mod messages;
mod reload;
mod restore;
pub mod save;
pub mod takeover;

/// The loop and all that it owns.
pub struct Worker {
    core: Core,
    net: Net,
    pool: Pool,
    board: Board,
    poll: Poll,
    link: Link<ToWorker, ToKeeper>,
    config: Arc<Config>,
    mailbox: Mailbox,
    messages: Receiver<Message>,
    jobs: Sender<Job>,
    jobs_running: Running,
    /// The watchdog's.
    patience: StallLimits,
    /// Directories whose libraries are taken in when they appear.
    discover: Vec<PathBuf>,
    /// The ports that count.
    ports: Vec<HeldPort>,
    /// Port changes that the keeper is opening ports for, in the order in which it was asked.
    opening: VecDeque<(Opening, Prepared)>,
    /// Libraries whose ports are open.
    prepared: HashMap<LibraryId, Prepared>,
    /// Configurations that single requests are carried out under, by their numbers.
    configs: HashMap<u64, Arc<Config>>,
    /// Configurations that wait for reloads under way.
    proposals: VecDeque<(Proposal, Option<Sender<Answer>>)>,
    /// What waits for the configuration that is under way.
    behind: Vec<Behind>,
    /// An earlier keeper takes [`ToKeeper::NotConfigured`] for nonsense, and replaces the worker.
    keeper_hears_refusals: bool,
    /// A configuration that libraries are being reloaded for.
    proposed: Option<Proposed>,
    /// Libraries that are loaded and wait for the end of the pass.
    loaded: HashMap<LibraryId, Loaded>,
    /// Each group is one commit.
    commits: Vec<Vec<(LibraryId, Build)>>,
    /// Lines of the ledger that tell of commits under way.
    lines: HashMap<LibraryId, u64>,
    /// What operators put back, between two passes.
    put_back: Vec<PutBack>,
    /// Probations that are over, to be seen to between two passes.
    proofs: Vec<(Build, ProbationCounts, ProbationEnd)>,
    /// Private copies that nobody will load again, once what was recorded last is committed.
    superfluous: Vec<PathBuf>,
    /// Who waits for the probation that a line of the ledger tells of.
    awaiting: Vec<(u64, Sender<Answer>)>,
    /// What is recorded of each library that runs.
    records: BTreeMap<usize, LibraryRecord>,
    /// Builds that this process has loaded.
    builds: u32,
    /// It serves, and has told the keeper.
    ready: bool,
    /// The keeper was asked for a fresh worker.
    recycling: bool,
    waiting: HashMap<u64, Sender<Answer>>,
    requests: u64,
    stop_at: Option<Instant>,
    /// A successor is to go on; after this time, whatever is under way.
    hand_over_by: Option<Instant>,
    saver: Saver,
    /// Number of the ledger's last line.
    ledger_end: u64,
    /// Connections that the keeper is to let go of: key and number.
    drops: Vec<(u32, u64)>,
    /// Connections that were asked for and are about to come: by their numbers, that of the asking.
    dialed: HashMap<u64, u64>,
    /// Connections that were reset before this process began: the end of their input is no orderly one.
    broken: BTreeSet<Slot>,
    /// Connections to be read although the poll may have nothing new to say.
    again: Vec<Slot>,
    events: Events,
    sendable: Vec<Slot>,
    effects: Vec<Command>,
}

impl Worker {
    /// A loop with what it is to go on with.
    fn new(
        hello: &Hello,
        link: Link<ToWorker, ToKeeper>,
        core: Core,
        pool: Pool,
        board: Board,
        saver: Saver,
        log_level: u32,
    ) -> io::Result<Worker> {
        let poll = Poll::new()?;
        let (sender, messages) = channel();
        let mailbox = Mailbox { sender, waker: Arc::new(Waker::new(poll.registry(), WAKER)?) };
        let config = Arc::new(hello.config.clone());
        let copies = Copies::new(hello.copies.clone(), hello.host_pid, hello.incarnation);
        let jobs = prepare::start(config.clone(), copies, log_level, board, {
            let mailbox = mailbox.clone();
            move |done| {
                mailbox.post(Message::Stager(done));
            }
        })?;
        let ledger_end = core.kept(Kind::Ledger).last().map_or(0, |(key, _)| *key);
        let fd = link.fd().as_raw_fd();
        poll.registry().register(&mut SourceFd(&fd), LINK, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Worker {
            core,
            net: Net::default(),
            pool,
            board,
            poll,
            link,
            config,
            mailbox,
            messages,
            jobs,
            jobs_running: Running::default(),
            patience: StallLimits::default(),
            discover: hello.found.directories.clone(),
            ports: Vec::new(),
            opening: VecDeque::new(),
            prepared: HashMap::new(),
            configs: HashMap::new(),
            proposals: VecDeque::new(),
            behind: Vec::new(),
            keeper_hears_refusals: hello.hears_refusals,
            proposed: None,
            loaded: HashMap::new(),
            commits: Vec::new(),
            lines: HashMap::new(),
            put_back: Vec::new(),
            proofs: Vec::new(),
            superfluous: Vec::new(),
            awaiting: Vec::new(),
            records: BTreeMap::new(),
            builds: 0,
            ready: false,
            recycling: false,
            waiting: HashMap::new(),
            requests: 0,
            stop_at: None,
            hand_over_by: None,
            saver,
            ledger_end,
            drops: Vec::new(),
            dialed: HashMap::new(),
            broken: BTreeSet::new(),
            again: Vec::new(),
            events: Events::with_capacity(EVENTS_PER_PASS),
            sendable: Vec::new(),
            effects: Vec::new(),
        })
    }

    /// Runs until it is told to stop and the sessions are flushed (or that takes too long), or to hand over.
    pub fn run(mut self) -> io::Result<()> {
        loop {
            self.pass()?;
            crash_points::pass(Point::Passed);
            match self.stop_at {
                Some(_) if self.core.sessions().is_empty() => break,
                Some(at) if Instant::now() >= at => {
                    let left = self.core.sessions().len();
                    self.board.reached(Limit::StopMs);
                    tracing::warn!("stopped with {left} sessions not flushed (limit stop_ms)");
                    break;
                }
                _ => {}
            }
            if let Some(by) = self.hand_over_by {
                // All is committed; what a caller waits for is finished first.
                let busy = self.core.reloads.is_busy() || server::is_busy() || self.core.jobs().0 > 0;
                if !busy || Instant::now() >= by {
                    return Ok(());
                }
            }
        }
        self.save_at_the_end();
        Ok(())
    }

    // --- the pass -------------------------------------------------------------------------------

    fn pass(&mut self) -> io::Result<()> {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        loop {
            match self.poll.poll(&mut events, self.timeout()) {
                Ok(()) => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.core.handle(Input::PassBegins { now_ns: now_ns() });
        let again = std::mem::take(&mut self.again);
        let (mut woken, mut told) = (false, false);
        for event in &events {
            match source(event.token()) {
                Source::Waker => woken = true,
                Source::Link => told = true,
                Source::Connection(slot) => {
                    if event.is_writable() {
                        self.core.handle(Input::Writable { slot });
                    }
                    if event.is_readable() || event.is_error() {
                        // A read stops before urgent data although there is more.
                        self.read(slot, event.is_read_closed() || event.is_priority());
                    }
                }
            }
        }
        self.events = events;
        for slot in again {
            // Until there is nothing more: the poll has said all that it had to say.
            self.read(slot, true);
        }
        if told {
            self.hear_keeper()?;
        }
        if woken {
            for message in self.messages.try_iter().collect::<Vec<_>>() {
                self.message(message);
            }
        }
        self.commit();
        // Only what is committed: what sending brings about waits for the next pass.
        self.carry_out();
        self.send();
        crash_points::pass(Point::Flushed);
        self.net.end_pass();
        self.save_in_time();
        // Before a commit makes another build of one that has just proved itself.
        for (build, record, proof) in std::mem::take(&mut self.proofs) {
            self.proved(build, record, proof);
        }
        self.commit_reloads();
        self.propose_next();
        self.commit_put_back();
        self.drop_retired();
        self.tell_keeper();
        Ok(())
    }

    /// From here on it counts, and may be seen.
    fn commit(&mut self) {
        self.core.handle(Input::Cascade);
        crash_points::pass(Point::Ran);
        self.core.handle(Input::Commit);
        self.pool.clear();
        crash_points::pass(Point::Committed);
        for (number, s) in self.core.services().iter().enumerate() {
            self.board.count(number, [s.sessions as u64, s.turns, s.faults]);
        }
        let board = self.board;
        self.core.take_reached(|limit| board.reached(limit));
    }

    fn tell_keeper(&mut self) {
        for drops in std::mem::take(&mut self.drops).chunks(DROPS_PER_MESSAGE) {
            self.link.send(&ToKeeper::Drop(drops.to_vec()));
        }
    }

    /// How long the poll may sleep.
    fn timeout(&self) -> Option<Duration> {
        if !self.again.is_empty() {
            return Some(Duration::ZERO);
        }
        // The clock is read only if something waits for it.
        let wake = self.core.next_wake_ns().map(|at| Duration::from_nanos(at.saturating_sub(now_ns())));
        let ends = self.stop_at.map(|at| at.saturating_duration_since(Instant::now()));
        let saves = self.saver.next().map(|at| at.saturating_duration_since(Instant::now()));
        let hands_over = self.hand_over_by.map(|_| Duration::from_millis(1));
        [wake, ends, saves, hands_over].into_iter().flatten().min()
    }

    /// Reads once. If the poll won't speak of the connection again although there may be more (the place was filled, or
    /// `to_the_end` is known to be needed), it is read again in the next pass.
    #[inline]
    fn read(&mut self, slot: Slot, to_the_end: bool) {
        if !self.pool.has_room() {
            self.commit();
            self.send();
        }
        if !self.core.wants_input(slot) {
            if self.broken.contains(&slot) && self.core.is_resuming(slot) {
                // What it has sent before comes first.
                self.again.push(slot);
            } else if self.broken.remove(&slot) {
                // It waits for its peer to take output, who is gone.
                self.core.handle(Input::Broken { slot });
            }
            return;
        }
        let Some(session) = self.core.sessions().get(slot) else { return };
        let Some(socket) = self.net.get(slot) else { return };
        let place = self.pool.place(session.id, session.bytes_in, self.core.store().epoch() + 1);
        crash_points::pass(Point::Noted);
        match socket.read(place) {
            Ok(0) if self.broken.remove(&slot) => self.core.handle(Input::Broken { slot }),
            Ok(0) => self.core.handle(Input::PeerDone { slot }),
            Ok(n) => {
                crash_points::pass(Point::Read);
                if n == READ_BYTES || to_the_end {
                    self.again.push(slot);
                }
                self.core.handle(Input::Received { slot, bytes: self.pool.taken(n) });
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) if e.kind() == ErrorKind::Interrupted => self.again.push(slot),
            Err(_) => self.core.handle(Input::Broken { slot }),
        }
    }

    fn send(&mut self) {
        self.core.take_sendable(&mut self.sendable);
        let mut sendable = std::mem::take(&mut self.sendable);
        let mut failed = Vec::new();
        for slot in sendable.drain(..) {
            let Some(socket) = self.net.get(slot) else { continue };
            loop {
                let written = self.core.output(slot, |pieces| match write_all_of(socket, pieces) {
                    Ok(n) => Ok((n, n < pieces.iter().map(|p| p.len()).sum())),
                    Err(e) if e.kind() == ErrorKind::WouldBlock => Ok((0, true)),
                    Err(e) if e.kind() == ErrorKind::Interrupted => Ok((0, false)),
                    Err(e) => Err(e),
                });
                match written {
                    Some(Ok((bytes, blocked))) => {
                        crash_points::pass(Point::Sent);
                        self.core.handle(Input::Sent { slot, bytes, blocked });
                        if blocked {
                            break;
                        }
                    }
                    Some(Err(_)) => {
                        failed.push(slot);
                        break;
                    }
                    None => break,
                }
            }
        }
        self.sendable = sendable;
        // Not before all is sent that is committed: these have last turns, which may send to others.
        for slot in failed {
            self.core.handle(Input::Broken { slot });
        }
    }

    fn carry_out(&mut self) {
        for job in self.core.take_jobs() {
            self.jobs_running.begin(job, self.mailbox.clone());
        }
        for dial in self.core.take_connects() {
            self.link.send(&ToKeeper::Connect(dial.number, dial.addr));
        }
        self.core.take_effects(&mut self.effects);
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Command::Shutdown(slot) => {
                    if let Some(socket) = self.net.get(slot) {
                        let _ = socket.shutdown(std::net::Shutdown::Write);
                    }
                }
                Command::Close { slot, id } => {
                    self.broken.remove(&slot);
                    let key = self.net.close(self.poll.registry(), slot);
                    self.drops.extend(key.map(|key| (key, id)));
                }
                Command::Resume(slot) => self.again.push(slot),
                Command::Reset(slot) => {
                    // The kernel would hold what its peer doesn't take, outside every limit.
                    if let Some(socket) = self.net.get(slot)
                        && let Err(e) = set_socket_linger(socket, Some(Duration::ZERO))
                    {
                        tracing::debug!("a connection can't be reset: {e}");
                    }
                }
                Command::Log { service, session, line } => {
                    let (service, generation) = self.name_of(service);
                    let (target, message) = (&line.target, &line.message);
                    if line.failed {
                        log_at!(line.level, %service, session, generation, handler = %target, failed = true, "{message}");
                    } else {
                        log_at!(line.level, %service, session, generation, handler = %target, "{message}");
                    }
                }
                Command::CancelJob(number) => self.jobs_running.cancel(number),
                Command::ProbationEnd { build, record, proof } => self.proofs.push((build, record, proof)),
                Command::Fault { service, session, action, fault, answered_by: Some(before) } => {
                    let (service, generation) = self.name_of(service);
                    tracing::error!(
                        %service, session, generation, action = action_name(action),
                        "turn failed, and generation {before} ran it in its place: {}", place(&fault)
                    );
                }
                Command::Fault { service, session, action, fault, answered_by: None } => {
                    let (service, generation) = self.name_of(service);
                    tracing::error!(
                        %service, session, generation, action = action_name(action),
                        "turn failed: {}", place(&fault)
                    );
                }
                Command::Notice { level, service, session, message } => {
                    let (service, generation) = self.name_of(service);
                    log_at!(level, %service, session, generation, "{message}");
                }
            }
        }
        self.effects = effects;
    }

    fn name_of(&self, service: ServiceId) -> (&str, u64) {
        let service = &self.core.services()[usize::from(service.0)];
        (&service.offer.name, service.generation())
    }
}

/// Writes pieces with one system call.
#[inline]
fn write_all_of(mut socket: &mio::net::TcpStream, pieces: &[&[u8]]) -> io::Result<usize> {
    match pieces {
        [one] => socket.write(one),
        many => {
            let slices: ArrayVec<_, PIECES_AT_ONCE> = many.iter().map(|p| IoSlice::new(p)).collect();
            socket.write_vectored(&slices)
        }
    }
}

fn place(fault: &greenroom_core::turn::fault::Fault) -> String {
    let kind = if fault.kind == greenroom_state::abi::fault::PANIC { "panic: " } else { "" };
    match fault.file.is_empty() {
        true => format!("{kind}{}", fault.message),
        false => format!("{kind}{} at {}:{}", fault.message, fault.file, fault.line),
    }
}

/// CLOCK_MONOTONIC, in nanoseconds.
fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
