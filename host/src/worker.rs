//! The event loop: the only reader of the clock, and the only thread that touches the core and the sockets.
//!
//! A pass:
//!
//! 1. poll; read what is ready and give it to the core, which runs the turns;
//! 2. commit, once for all of them;
//! 3. send what the commit made ready, and carry out the core's effects;
//! 4. between two passes: commit a reload whose preparation is done.
//!
//! Everything slow happens on other threads, which post a [`Message`] and wake the poll.

use crate::admin::{self, ServiceStatus, Status};
use crate::config::Config;
use crate::mail::{Answer, Ask, Mailbox, Message, Query, TableEntries};
use crate::net::tcp::{Net, Source, WAKER, source};
use crate::stager::{Done, Job, Loaded};
use crate::sys::region::Region;
use crate::{log_at, stager};
use greenroom_core::core::{Core, Effect, Input};
use greenroom_core::reload::{By, Event, LibraryId, Report};
use greenroom_core::service::{Build, ServiceId};
use greenroom_core::session::Slot;
use greenroom_core::store::{Full, Store, memory_bytes};
use mio::{Events, Poll, Waker};
use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

/// What a read may bring at once; also a session's share of a pass.
const READ_BYTES: usize = 64 * 1024;
/// Events of one poll. Answers wait for the end of the pass, so a pass should not be long.
const EVENTS_PER_PASS: usize = 256;
/// Connections accepted from one port in one pass.
const ACCEPTS_PER_PASS: usize = 64;
/// How long accepting rests when descriptors or memory ran out.
const ACCEPT_REST: Duration = Duration::from_millis(100);

mod reloads;

/// The loop and all that it owns.
pub struct Worker {
    core: Core,
    net: Net,
    poll: Poll,
    config: Arc<Config>,
    mailbox: Mailbox,
    messages: Receiver<Message>,
    jobs: Sender<Job>,
    /// Directories whose libraries are taken in when they appear.
    discover: Vec<PathBuf>,
    /// Libraries that are loaded and wait for the end of the pass.
    loaded: HashMap<LibraryId, Loaded>,
    commits: Vec<(LibraryId, Build)>,
    waiting: HashMap<u64, Sender<Answer>>,
    requests: u64,
    sessions: u64,
    started: Instant,
    stop_at: Option<Instant>,
    accept_again: BTreeSet<usize>,
    accept_rests_until: Option<Instant>,
    /// Connections to be read although the poll may have nothing new to say.
    again: Vec<Slot>,
    buffer: Box<[u8]>,
    events: Events,
    sendable: Vec<Slot>,
    effects: Vec<Effect>,
}

impl Worker {
    /// A host without libraries.
    pub fn new(config: Config, copies: PathBuf, log_level: u32) -> io::Result<Worker> {
        let poll = Poll::new()?;
        let (sender, messages) = channel();
        let mailbox = Mailbox { sender, waker: Arc::new(Waker::new(poll.registry(), WAKER)?) };
        let config = Arc::new(config);
        let jobs = stager::start(config.clone(), copies, log_level, {
            let mailbox = mailbox.clone();
            move |done| {
                mailbox.post(Message::Stager(done));
            }
        })?;
        let bytes_max = config.limits.store_bytes_max;
        let region = Region::create(memory_bytes(bytes_max))?;
        let store = Store::create(Box::new(region), bytes_max)
            .map_err(|Full| io::Error::new(ErrorKind::OutOfMemory, "no memory for the record store"))?;
        Ok(Worker {
            core: Core::with_store(config.limits.clone(), store),
            net: Net::default(),
            poll,
            config,
            mailbox,
            messages,
            jobs,
            discover: Vec::new(),
            loaded: HashMap::new(),
            commits: Vec::new(),
            waiting: HashMap::new(),
            requests: 0,
            sessions: 0,
            started: Instant::now(),
            stop_at: None,
            accept_again: BTreeSet::new(),
            accept_rests_until: None,
            again: Vec::new(),
            buffer: vec![0; READ_BYTES].into(),
            events: Events::with_capacity(EVENTS_PER_PASS),
            sendable: Vec::new(),
            effects: Vec::new(),
        })
    }

    /// Where other threads post.
    pub fn mailbox(&self) -> Mailbox {
        self.mailbox.clone()
    }

    /// Takes libraries from this directory as they appear.
    pub fn discover(&mut self, dir: PathBuf) {
        self.discover.push(dir);
    }

    /// Loads libraries, before the first connection is accepted; a report each, in their order.
    pub fn load_all(&mut self, paths: &[PathBuf]) -> io::Result<Vec<Report>> {
        let mut answers = Vec::new();
        for path in paths {
            let (reply, answer) = channel();
            let id = self.core.reloads.library(path.clone());
            self.request(id, By::Start, None, Some(reply));
            answers.push(answer);
        }
        while self.core.reloads.is_busy() {
            self.pass()?;
        }
        let report = |a| if let Answer::Report(r) = a { Some(*r) } else { None };
        Ok(answers.into_iter().filter_map(|answer| answer.try_iter().find_map(report)).collect())
    }

    /// The ports held, as `SERVICE`, address.
    pub fn ports(&self) -> Vec<(String, std::net::SocketAddr)> {
        self.net.ports().map(|l| (l.port.0.clone(), l.addr)).collect()
    }

    /// Runs until it is told to stop and the sessions are flushed, or that takes too long.
    pub fn run(mut self) -> io::Result<()> {
        loop {
            self.pass()?;
            match self.stop_at {
                Some(_) if self.core.sessions().is_empty() => return Ok(()),
                Some(at) if Instant::now() >= at => {
                    let left = self.core.sessions().len();
                    tracing::warn!("stopped with {left} sessions not flushed (limit stop_ms)");
                    return Ok(());
                }
                _ => {}
            }
        }
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
        self.core.handle(Input::PassBegins { now_ns: self.now_ns() });
        let again = std::mem::take(&mut self.again);
        let mut woken = false;
        for event in &events {
            match source(event.token()) {
                Source::Waker => woken = true,
                Source::Listener(index) => self.accept(index),
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
        self.accept_rested();
        if woken {
            for message in self.messages.try_iter().collect::<Vec<_>>() {
                self.message(message);
            }
        }
        self.core.handle(Input::Commit);
        self.send();
        self.carry_out();
        self.net.end_pass();
        self.commit_reloads();
        Ok(())
    }

    /// How long the poll may sleep.
    fn timeout(&self) -> Option<Duration> {
        if !self.again.is_empty() || !self.accept_again.is_empty() && self.accept_rests_until.is_none() {
            return Some(Duration::ZERO);
        }
        // The clock is read only if something waits for it.
        let wake = self.core.next_wake_ns().map(|at| Duration::from_nanos(at.saturating_sub(self.now_ns())));
        let others = [self.stop_at, self.accept_rests_until].into_iter().flatten();
        others.map(|at| at.saturating_duration_since(Instant::now())).chain(wake).min()
    }

    /// CLOCK_MONOTONIC, in nanoseconds.
    fn now_ns(&self) -> u64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    }

    fn accept(&mut self, index: usize) {
        if self.accept_rests_until.is_some() {
            self.accept_again.insert(index);
            return;
        }
        for _ in 0..ACCEPTS_PER_PASS {
            let Some(listener) = self.net.listeners.get(index).and_then(Option::as_ref) else { return };
            let (socket, peer) = match listener.socket.accept() {
                Ok(accepted) => accepted,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {
                    continue;
                }
                Err(e) => {
                    // Edge-triggered: nobody will say that descriptors are free again, so it is tried again.
                    tracing::warn!("connections can't be accepted ({e}); trying again every {ACCEPT_REST:?}");
                    self.accept_again.insert(index);
                    self.accept_rests_until = Some(Instant::now() + ACCEPT_REST);
                    return;
                }
            };
            let Some(service) = self.core.service_named(&listener.port.0) else { continue };
            let slot = match self.net.add(self.poll.registry(), socket) {
                Ok(slot) => slot,
                Err(e) => {
                    tracing::warn!(%peer, "a connection can't be taken in: {e}");
                    continue;
                }
            };
            self.sessions += 1;
            let at_ms = unix_ms();
            self.core.handle(Input::Opened { slot, id: self.sessions, service, peer, at_ms });
        }
        self.accept_again.insert(index);
    }

    /// Accepts from the ports that had more than their share, or whose rest is over.
    fn accept_rested(&mut self) {
        if self.accept_again.is_empty() {
            return;
        }
        if self.accept_rests_until.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.accept_rests_until = None;
        for index in std::mem::take(&mut self.accept_again) {
            self.accept(index);
        }
    }

    /// Reads once. If the poll won't speak of the connection again although there may be more (the buffer was filled, or
    /// `to_the_end` is known to be needed), it is read again in the next pass.
    #[inline]
    fn read(&mut self, slot: Slot, to_the_end: bool) {
        if !self.core.wants_input(slot) {
            return;
        }
        let Some(socket) = self.net.get(slot) else { return };
        match socket.read(&mut self.buffer) {
            Ok(0) => self.core.handle(Input::PeerDone { slot }),
            Ok(n) => {
                if n == self.buffer.len() || to_the_end {
                    self.again.push(slot);
                }
                self.core.handle(Input::Received { slot, bytes: &self.buffer[..n] });
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) if e.kind() == ErrorKind::Interrupted => self.again.push(slot),
            Err(_) => self.core.handle(Input::Broken { slot }),
        }
    }

    fn send(&mut self) {
        self.core.take_sendable(&mut self.sendable);
        let mut sendable = std::mem::take(&mut self.sendable);
        for slot in sendable.drain(..) {
            let Some(socket) = self.net.get(slot) else { continue };
            loop {
                let written = self.core.output(slot, |bytes| match socket.write(bytes) {
                    Ok(n) => Ok((n, n < bytes.len())),
                    Err(e) if e.kind() == ErrorKind::WouldBlock => Ok((0, true)),
                    Err(e) if e.kind() == ErrorKind::Interrupted => Ok((0, false)),
                    Err(e) => Err(e),
                });
                match written {
                    Some(Ok((bytes, blocked))) => {
                        self.core.handle(Input::Sent { slot, bytes, blocked });
                        if blocked {
                            break;
                        }
                    }
                    Some(Err(_)) => {
                        self.core.handle(Input::Broken { slot });
                        break;
                    }
                    None => break,
                }
            }
        }
        self.sendable = sendable;
    }

    fn carry_out(&mut self) {
        self.core.take_effects(&mut self.effects);
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Shutdown(slot) => {
                    if let Some(socket) = self.net.get(slot) {
                        let _ = socket.shutdown(std::net::Shutdown::Write);
                    }
                }
                Effect::Close(slot) => self.net.close(self.poll.registry(), slot),
                Effect::Resume(slot) => self.again.push(slot),
                Effect::Log { service, session, line } => {
                    let (service, generation) = self.name_of(service);
                    let (target, message) = (&line.target, &line.message);
                    if line.failed {
                        log_at!(line.level, %service, session, generation, handler = %target, failed = true, "{message}");
                    } else {
                        log_at!(line.level, %service, session, generation, handler = %target, "{message}");
                    }
                }
                Effect::Fault { service, session, action, fault } => {
                    let (service, generation) = self.name_of(service);
                    tracing::error!(
                        %service, session, generation, action = action_name(action),
                        "turn failed: {}", place(&fault)
                    );
                }
                Effect::Notice { level, service, session, message } => {
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

    // --- messages -----------------------------------------------------------------------------------------------

    fn message(&mut self, message: Message) {
        match message {
            Message::Stager(Done::Step(event)) => self.reload(event),
            Message::Stager(Done::Loaded(id, result)) => {
                let result = result.map(|loaded| {
                    self.loaded.insert(id, loaded);
                });
                self.reload(Event::Loaded(id, result));
            }
            Message::Stager(Done::Discovered(path)) => {
                let id = self.core.reloads.library(path);
                self.request(id, By::Watcher, None, None);
            }
            Message::Changed(path) => self.changed(path),
            Message::Ask(ask) => self.answer(ask),
            Message::Signal(signal) => self.stop(signal),
        }
    }

    fn changed(&mut self, path: PathBuf) {
        let known = self.core.reloads.libraries().iter().position(|l| l.path == path);
        match known {
            // A removed file is about to be replaced, or it isn't: either way the code that runs stays.
            Some(at) if path.exists() => self.request(LibraryId(at), By::Watcher, None, None),
            None if path.extension().is_some_and(|e| e == "so")
                && path.parent().is_some_and(|dir| self.discover.iter().any(|d| d == dir)) =>
            {
                let _ = self.jobs.send(Job::Peek(path));
            }
            _ => {}
        }
    }

    fn stop(&mut self, signal: i32) {
        if self.stop_at.is_some() {
            tracing::warn!("second signal: stopping at once");
            self.stop_at = Some(Instant::now());
            return;
        }
        tracing::info!(signal, sessions = self.core.sessions().len(), "stopping: flushing output");
        for port in self.net.ports().map(|l| l.port.clone()).collect::<Vec<_>>() {
            self.net.remove_listener(self.poll.registry(), &port);
        }
        self.stop_at = Some(Instant::now() + Duration::from_millis(self.config.limits.stop_ms));
        self.core.handle(Input::Stop);
    }

    fn answer(&mut self, ask: Ask) {
        let answer = match ask.query {
            Query::Status => Answer::Status(Box::new(self.status())),
            Query::Sessions(after, filter) => Answer::Sessions(self.core.sessions_after(after, &filter)),
            Query::Tables => Answer::Tables(self.core.table_names()),
            Query::Entries(table, from) => {
                let (entries, next) = self.core.entries_from(&table, &from);
                Answer::Entries(TableEntries { entries, next })
            }
            Query::Reload(target, from, by) => return self.ask_reload(target, from, by, ask.reply),
        };
        // Who doesn't wait for the answer any more doesn't miss it.
        let _ = ask.reply.send(answer);
    }

    fn status(&self) -> Status {
        let services = self.core.services().iter().filter_map(|s| {
            let build = s.build.as_ref()?;
            let name = &s.offer.name;
            let mine = self.net.ports().filter(|l| l.port.0 == *name);
            Some(ServiceStatus {
                name: name.clone(),
                library: build.library.clone(),
                generation: build.generation,
                build: build.hash.clone(),
                state_version: s.offer.shape.version,
                listen: mine.map(|l| format!("tcp://{}", l.addr)).collect(),
                sessions: s.sessions,
                turns: s.turns,
                faults: s.faults,
            })
        });
        Status {
            host: admin::HostStatus::of_this_process(self.started.elapsed()),
            services: services.collect(),
        }
    }
}

fn place(fault: &greenroom_core::turn::Fault) -> String {
    let kind = if fault.kind == greenroom_state::abi::fault::PANIC { "panic: " } else { "" };
    match fault.file.is_empty() {
        true => format!("{kind}{}", fault.message),
        false => format!("{kind}{} at {}:{}", fault.message, fault.file, fault.line),
    }
}

fn action_name(kind: u32) -> &'static str {
    use greenroom_state::abi::action;
    match kind {
        action::OPENED => "opened",
        action::MESSAGE => "message",
        action::CLOSED => "closed",
        _ => "?",
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
