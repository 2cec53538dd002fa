//! The one place where everything that happens is decided: an [`Input`] in, [`Effect`]s out.
//!
//! A pass: [`Input::PassBegins`], any number of inputs, [`Input::Commit`]; then the shell sends what
//! [`Core::take_sendable`] names, reports it with [`Input::Sent`], and carries out the effects. Nothing is sent before the
//! commit, so a peer never sees the result of a turn that could still be forgotten.

use crate::framing::Frame;
use crate::limits::{BATCH_ACTIONS_MAX, Limits};
use crate::reload::Reloads;
use crate::service::{Batch, Build, Code, Service, ServiceId, Serving};
use crate::session::{Life, Session, Sessions, Slot};
use crate::store::{Full, Kind, Store};
use crate::tables::Tables;
use crate::topics::Topics;
use crate::turn::{Buffers, Fault, LogLine, Staged, Staging};
use arrayvec::ArrayVec;
use greenroom_state::abi::{self, Action, Bytes, action, closed, fault, level};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// What happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// A pass begins, at this time (CLOCK_MONOTONIC, nanoseconds).
    PassBegins {
        /// The time that all turns of the pass are told.
        now_ns: u64,
    },
    /// A connection was accepted.
    Opened {
        /// Where the shell keeps it.
        slot: Slot,
        /// Its number: above all before it.
        id: u64,
        /// The service that it came to.
        service: ServiceId,
        /// The peer's address.
        peer: SocketAddr,
        /// Milliseconds since 1970.
        at_ms: u64,
    },
    /// Bytes were read.
    Received {
        /// From this connection.
        slot: Slot,
        /// At least one.
        bytes: &'a [u8],
    },
    /// The peer has ended its side in an orderly way.
    PeerDone {
        /// Of this connection.
        slot: Slot,
    },
    /// The connection broke.
    Broken {
        /// This one.
        slot: Slot,
    },
    /// The kernel took output, after a commit.
    Sent {
        /// Of this connection.
        slot: Slot,
        /// So much.
        bytes: usize,
        /// And would take no more: [`Input::Writable`] will follow.
        blocked: bool,
    },
    /// The kernel takes output again.
    Writable {
        /// Of this connection.
        slot: Slot,
    },
    /// The pass ends: all of it counts from here on.
    Commit,
    /// The host is to stop: every session gets its last turn.
    Stop,
}

/// What the shell is to do, after the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// End our side of the stream.
    Shutdown(Slot),
    /// Close the connection; the slot is free from the next pass on.
    Close(Slot),
    /// Read the connection again, whatever the poll says: reading had been suspended.
    Resume(Slot),
    /// A handler logged something.
    Log {
        /// By this service.
        service: ServiceId,
        /// In a turn of this session.
        session: u64,
        /// What.
        line: LogLine,
    },
    /// A turn failed.
    Fault {
        /// Of this service.
        service: ServiceId,
        /// Of this session.
        session: u64,
        /// The kind of its action, one of [`greenroom_state::abi::action`].
        action: u32,
        /// Why.
        fault: Fault,
    },
    /// The core has something to say to the operator.
    Notice {
        /// One of [`greenroom_state::abi::level`].
        level: u32,
        /// About this service.
        service: ServiceId,
        /// About this session.
        session: u64,
        /// What.
        message: String,
    },
}

/// The whole state of a host, but for sockets, files, threads and loaded code.
pub struct Core {
    /// The limits in force.
    pub limits: Limits,
    /// The reloads under way and those waiting.
    pub reloads: Reloads,
    pub(crate) services: Vec<Service>,
    pub(crate) sessions: Sessions,
    pub(crate) store: Store,
    pub(crate) tables: Tables,
    pub(crate) topics: Topics,
    pub(crate) now_ns: u64,
    stopping: bool,
    buffers: Buffers,
    /// The state of the batch under way, copied out of the store.
    state: Vec<u8>,
    /// Input left over and the bytes that follow it.
    assembly: Vec<u8>,
    /// An output record in the making.
    output: Vec<u8>,
    /// Sessions that this pass changed.
    dirty: Vec<Slot>,
    pub(crate) sendable: Vec<Slot>,
    /// Sessions whose kept input can be run again.
    pub(crate) resumed: Vec<Slot>,
    /// Sessions whose output grew over its limit in the batch under way.
    overflowed: Vec<Slot>,
    quarantined: BTreeSet<Slot>,
    pub(crate) deadlines: BTreeSet<(u64, Slot)>,
    pub(crate) effects: Vec<Effect>,
}

/// How a batch ended.
struct Ran {
    /// Actions that need not be run again.
    consumed: usize,
    /// A turn closed the session.
    close: bool,
}

/// An output record begins with its offset in the stream, so that sending rewrites no session.
pub(crate) const OUTPUT_HEAD: usize = 8;
/// Input that a quarantined session keeps before its peer isn't read any more.
const QUARANTINE_INPUT_BYTES_MAX: usize = 64 * 1024;
/// While stopping, peers are not waited for longer than this after our end is shut.
const STOP_LINGER_MS: u64 = 250;

impl Core {
    /// A host without services, whose records lie on the heap.
    pub fn new(limits: Limits) -> Core {
        let store = Store::new(limits.store_bytes_max);
        Core::with_store(limits, store)
    }

    /// A host without services.
    pub fn with_store(limits: Limits, store: Store) -> Core {
        Core {
            store,
            limits,
            reloads: Reloads::default(),
            services: Vec::new(),
            sessions: Sessions::default(),
            tables: Tables::default(),
            topics: Topics::default(),
            now_ns: 0,
            stopping: false,
            buffers: Buffers::default(),
            state: Vec::new(),
            assembly: Vec::new(),
            output: Vec::new(),
            dirty: Vec::new(),
            sendable: Vec::new(),
            resumed: Vec::new(),
            overflowed: Vec::new(),
            quarantined: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            effects: Vec::new(),
        }
    }

    /// Takes one input. Every decision starts here.
    pub fn handle(&mut self, input: Input<'_>) {
        match input {
            Input::PassBegins { now_ns } => self.pass_begins(now_ns),
            Input::Opened { slot, id, service, peer, at_ms } => self.opened(slot, id, service, peer, at_ms),
            Input::Received { slot, bytes } => self.received(slot, bytes),
            Input::PeerDone { slot } => self.peer_done(slot),
            Input::Broken { slot } => self.broken(slot),
            Input::Sent { slot, bytes, blocked } => self.sent(slot, bytes, blocked),
            Input::Writable { slot } => self.writable(slot),
            Input::Commit => self.commit(),
            Input::Stop => self.stop(),
        }
        self.close_overflowed();
    }

    /// The effects since the last call, in order.
    pub fn take_effects(&mut self, into: &mut Vec<Effect>) {
        into.append(&mut self.effects);
    }

    /// The sessions that have output to send, after a commit.
    pub fn take_sendable(&mut self, into: &mut Vec<Slot>) {
        into.append(&mut self.sendable);
    }

    /// Lends the first piece of a session's unsent output; `None`: there is none.
    pub fn output<T>(&self, slot: Slot, f: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let s = self.sessions.get(slot)?;
        let first = *s.output.front()?;
        Some(self.store.read(first, |b| f(&b[OUTPUT_HEAD + s.output_sent..])))
    }

    /// Whether a session's input should be read. When this turns true again, [`Effect::Resume`] says so.
    pub fn wants_input(&self, slot: Slot) -> bool {
        self.sessions.get(slot).is_some_and(|s| match s.life {
            Life::Open if s.quarantined.is_some() => self.input_len(s) < QUARANTINE_INPUT_BYTES_MAX,
            Life::Open => !s.paused,
            // To notice the peer's end.
            Life::Draining | Life::Lingering => true,
        })
    }

    /// When the next pass is due at the latest, on the clock of [`Input::PassBegins`]; `None`: whenever something happens.
    pub fn next_wake_ns(&self) -> Option<u64> {
        if !self.resumed.is_empty() || !self.dirty.is_empty() || !self.sendable.is_empty() {
            return Some(0);
        }
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// All services that ever were, by [`ServiceId`].
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// The service of a name.
    pub fn service_named(&self, name: &str) -> Option<ServiceId> {
        let at = self.services.iter().position(|s| s.offer.name == name)?;
        Some(ServiceId(at as u16))
    }

    /// The sessions.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// The record store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Puts a build in charge of its services: the commit of a reload. It only replaces what each service points to, so
    /// its time doesn't depend on the number of sessions. Returns the code that was, to be dropped elsewhere.
    ///
    /// Whether it may is decided before, by [`crate::reload`].
    pub fn adopt(&mut self, build: &Build, offers: Serving) -> Vec<Box<dyn Code>> {
        let mut old = Vec::new();
        let mine = |s: &Service| s.build.as_ref().is_some_and(|b| b.library == build.library);
        for service in self.services.iter_mut().filter(|s| mine(s)) {
            if !offers.iter().any(|(offer, _)| offer.name == service.offer.name) {
                service.build = None;
                old.push(std::mem::replace(&mut service.code, Box::new(crate::service::Withdrawn)));
            }
        }
        for (offer, code) in offers {
            match self.services.iter_mut().find(|s| s.offer.name == offer.name) {
                Some(service) => old.push(service.replace(offer, build.clone(), code)),
                None => {
                    let (number, name) = (self.services.len() as u64, offer.name.clone());
                    // A reserve is kept for records that must not fail.
                    let put = self.store.put(None, Kind::Service, number, name.as_bytes());
                    debug_assert!(put.is_ok(), "no room for a service's name");
                    self.services.push(Service::new(offer, build.clone(), code));
                }
            }
        }
        for slot in std::mem::take(&mut self.quarantined) {
            let Some(s) = self.sessions.get_mut(slot) else { continue };
            if mine(&self.services[usize::from(s.service.0)]) {
                s.quarantined = None;
                self.resumed.push(slot);
                self.touch(slot);
            } else {
                self.quarantined.insert(slot);
            }
        }
        old
    }

    // --- inputs ---------------------------------------------------------------------------------

    fn pass_begins(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        while let Some(&(at, slot)) = self.deadlines.first()
            && at <= now_ns
        {
            self.deadlines.pop_first();
            if let Some(s) = self.sessions.get(slot) {
                if s.life == Life::Draining {
                    let message =
                        format!("closed with {} bytes of output never taken (limit drain_ms)", s.unsent());
                    self.notice(level::INFO, slot, message);
                }
                self.gone(slot);
            }
        }
        for slot in std::mem::take(&mut self.resumed) {
            self.run_kept_input(slot);
            if self.wants_input(slot) {
                self.effects.push(Effect::Resume(slot));
            }
        }
    }

    fn opened(&mut self, slot: Slot, id: u64, service: ServiceId, peer: SocketAddr, at_ms: u64) {
        let refusal = if self.stopping {
            Some("the host is stopping")
        } else if self.sessions.len() >= self.limits.sessions_max {
            Some("limit sessions_max")
        } else if !self.store.has_room([greenroom_state::record::SIZE; 2]) {
            Some("limit store_bytes_max")
        } else {
            None
        };
        if let Some(why) = refusal {
            let message = format!("connection from {peer} refused ({why})");
            self.effects.push(Effect::Notice { level: level::WARN, service, session: id, message });
            self.effects.push(Effect::Close(slot));
            return;
        }
        self.sessions.insert(slot, Session::new(id, service, peer, at_ms));
        self.services[usize::from(service.0)].sessions += 1;
        self.touch(slot);
        let opened = Action { kind: action::OPENED, detail: 0, data: Bytes::EMPTY };
        let ran = self.run_batch(slot, &[opened]);
        if ran.close {
            self.finish(slot, closed::HANDLER);
        }
    }

    fn received(&mut self, slot: Slot, bytes: &[u8]) {
        let Some(s) = self.sessions.get_mut(slot) else { return };
        if s.life != Life::Open || s.peer_done {
            return;
        }
        s.bytes_in += bytes.len() as u64;
        let input = s.input;
        self.touch(slot);
        match input {
            None => self.run_frames(slot, bytes),
            Some(input) => {
                let mut whole = std::mem::take(&mut self.assembly);
                whole.clear();
                self.store.read(input, |b| whole.extend_from_slice(b));
                whole.extend_from_slice(bytes);
                self.run_frames(slot, &whole);
                self.assembly = whole;
            }
        }
    }

    fn peer_done(&mut self, slot: Slot) {
        let Some(s) = self.sessions.get_mut(slot) else { return };
        s.peer_done = true;
        match s.life {
            Life::Open => {
                self.touch(slot);
                self.finish_if_peer_done(slot);
            }
            Life::Draining => self.touch(slot),
            Life::Lingering => self.gone(slot),
        }
    }

    fn broken(&mut self, slot: Slot) {
        let Some(s) = self.sessions.get_mut(slot) else { return };
        let open = s.life == Life::Open;
        self.drop_output(slot);
        if open {
            self.last_turn(slot, closed::BROKEN);
        }
        self.gone(slot);
    }

    pub(crate) fn sent(&mut self, slot: Slot, bytes: usize, blocked: bool) {
        let Some(s) = self.sessions.get_mut(slot) else { return };
        s.blocked = blocked;
        s.bytes_sent += bytes as u64;
        s.output_sent += bytes;
        while let Some(&first) = s.output.front() {
            let len = self.store.read(first, <[u8]>::len) - OUTPUT_HEAD;
            if s.output_sent < len {
                break;
            }
            s.output_sent -= len;
            s.output.pop_front();
            self.store.delete(first);
        }
        if s.paused && s.unsent() <= self.limits.output_bytes_pause as u64 / 2 {
            s.paused = false;
            self.resumed.push(slot);
        }
        if s.life == Life::Draining && s.unsent() == 0 {
            self.flushed(slot);
        }
    }

    fn writable(&mut self, slot: Slot) {
        let Some(s) = self.sessions.get_mut(slot) else { return };
        if std::mem::replace(&mut s.blocked, false) && !s.output.is_empty() {
            self.sendable.push(slot);
        }
    }

    fn commit(&mut self) {
        for i in 0..self.dirty.len() {
            let slot = self.dirty[i];
            let Some(s) = self.sessions.get_mut(slot) else { continue };
            s.dirty = false;
            s.output_fresh = false;
            let record = s.to_record().encode();
            match self.store.put(s.record, Kind::Session, s.id, &record) {
                Ok(r) => s.record = Some(r),
                // Room for it was made sure of when the session opened, and records don't grow.
                Err(Full) => debug_assert!(false, "no room for a session's record"),
            }
            if !s.blocked && !s.output.is_empty() {
                self.sendable.push(slot);
            }
        }
        self.dirty.clear();
        self.store.commit();
    }

    fn stop(&mut self) {
        self.stopping = true;
        for slot in self.sessions.slots().collect::<Vec<_>>() {
            if self.sessions.get(slot).is_some_and(|s| s.life == Life::Open) {
                self.finish(slot, closed::STOPPING);
            }
        }
    }

    // --- input to turns -------------------------------------------------------------------------

    /// Runs the whole frames in `buf`, and keeps what is left over.
    fn run_frames(&mut self, slot: Slot, buf: &[u8]) {
        let mut at = 0;
        while at < buf.len() {
            let Some(s) = self.sessions.get_mut(slot) else { return };
            if s.life != Life::Open {
                return;
            }
            if s.paused || s.quarantined.is_some() {
                break;
            }
            let framing = self.services[usize::from(s.service.0)].offer.framing;
            let mut actions = ArrayVec::<Action<'_>, BATCH_ACTIONS_MAX>::new();
            let mut ends = ArrayVec::<usize, BATCH_ACTIONS_MAX>::new();
            let mut end = at;
            let mut too_long = false;
            while !actions.is_full() {
                match framing.next(&buf[end..], &mut s.frame) {
                    Frame::Message(message, len) => {
                        end += len;
                        actions.push(Action { kind: action::MESSAGE, detail: 0, data: message.into() });
                        ends.push(end);
                        if end == buf.len() {
                            break;
                        }
                    }
                    Frame::More => break,
                    Frame::TooLong => {
                        too_long = true;
                        break;
                    }
                }
            }
            if actions.is_empty() {
                if too_long {
                    self.notice(
                        level::INFO,
                        slot,
                        "closed: a frame was longer than its limit (frame_bytes_max)".into(),
                    );
                    self.finish(slot, closed::LIMIT);
                    return;
                }
                break;
            }
            let rest = s.frame;
            let ran = self.run_batch(slot, &actions);
            if ran.consumed > 0 {
                at = ends[ran.consumed - 1];
            }
            let Some(s) = self.sessions.get_mut(slot) else { return };
            // What was searched behind the last whole frame stays searched only if all of them are gone.
            s.frame = if ran.consumed == actions.len() { rest } else { Default::default() };
            s.paused |= s.unsent() > self.limits.output_bytes_pause as u64;
            if ran.close {
                return self.finish(slot, closed::HANDLER);
            }
            if ran.consumed == actions.len() && !actions.is_full() && !too_long {
                break;
            }
        }
        self.keep_input(slot, &buf[at..]);
    }

    fn keep_input(&mut self, slot: Slot, rest: &[u8]) {
        let Some(s) = self.sessions.get_mut(slot) else { return };
        if rest.is_empty() {
            if let Some(r) = s.input.take() {
                self.store.delete(r);
            }
            return;
        }
        let room = self.store.has_room([rest.len()]);
        match room.then(|| self.store.put(s.input, Kind::Input, s.id, rest)) {
            Some(Ok(r)) => s.input = Some(r),
            _ => {
                self.notice(
                    level::WARN,
                    slot,
                    "closed: no room for its input (limit store_bytes_max)".into(),
                );
                self.finish(slot, closed::LIMIT);
            }
        }
    }

    fn run_kept_input(&mut self, slot: Slot) {
        let Some(s) = self.sessions.get_mut(slot) else { return };
        if s.life != Life::Open {
            return;
        }
        if let Some(input) = s.input {
            s.frame = Default::default();
            let mut whole = std::mem::take(&mut self.assembly);
            whole.clear();
            self.store.read(input, |b| whole.extend_from_slice(b));
            self.touch(slot);
            self.run_frames(slot, &whole);
            self.assembly = whole;
        }
        self.finish_if_peer_done(slot);
    }

    /// The peer's last frames come before its end: a session that is paused or quarantined keeps both for later.
    fn finish_if_peer_done(&mut self, slot: Slot) {
        let Some(s) = self.sessions.get(slot) else { return };
        if s.peer_done && s.life == Life::Open && !s.paused && s.quarantined.is_none() {
            self.finish(slot, closed::PEER);
        }
    }

    // --- turns ----------------------------------------------------------------------------------

    /// Runs actions of one session and applies what the successful ones staged.
    ///
    /// The result is that of running them one by one. A batch whose outcome can't be handed over as a whole is run again
    /// up to the turn that spoilt it: nothing of the first try was applied, so nobody can tell.
    fn run_batch(&mut self, slot: Slot, actions: &[Action<'_>]) -> Ran {
        let mut n = actions.len();
        let mut fault: Option<Fault> = None;
        let mut failed_log = Vec::new();
        loop {
            let flags = self.attempt(slot, &actions[..n]);
            let b = &mut self.buffers;
            if b.done == 0 && b.fault.is_none() {
                let message = "the handler returned without an outcome".into();
                b.fault = Some(Fault { kind: fault::ERROR, message, file: String::new(), line: 0 });
            }
            if b.done == 0 {
                b.has_state = false;
            }
            let state_lost = flags & abi::RUN_STATE_LOST != 0 && b.done > 0 && b.fault.is_some();
            if state_lost && b.done < n {
                // The turn after those spoilt it: run them without it.
                n = b.done;
                fault = b.fault.take();
                failed_log = b.log.drain(..).filter(|l| l.failed).collect();
                continue;
            }
            let unusable = match b.fault.take() {
                Some(fault) if state_lost => Some(fault.message),
                other => {
                    b.fault = other;
                    self.over_limit(slot)
                        .map(|limit| format!("what the turn asked for is over limit {limit}"))
                }
            };
            if let Some(message) = unusable {
                (fault, failed_log) = (None, Vec::new());
                let b = &mut self.buffers;
                if b.done > 1 {
                    n = b.done / 2;
                    continue;
                }
                let mut log = std::mem::take(&mut b.log);
                b.clear();
                log.iter_mut().for_each(|l| l.failed = true);
                b.log = log;
                b.fault = Some(Fault { kind: fault::ERROR, message, file: String::new(), line: 0 });
            }
            break;
        }
        let mut buffers = std::mem::take(&mut self.buffers);
        // A replay that failed on its own stands for itself; the turn it was cut before is run again later.
        let fault = match buffers.fault.take() {
            Some(own) => Some(own),
            None if buffers.done == n => fault,
            None => None,
        };
        self.apply(slot, &buffers);
        let mut ran = Ran { consumed: buffers.done, close: buffers.close };
        let Some(s) = self.sessions.get_mut(slot) else { return ran };
        let (service, session) = (s.service, s.id);
        for line in buffers.log.drain(..).chain(failed_log) {
            self.effects.push(Effect::Log { service, session, line });
        }
        let counts = &mut self.services[usize::from(service.0)];
        let mut turns = buffers.done as u64;
        if let Some(fault) = fault {
            let kind = actions[buffers.done].kind;
            counts.faults += 1;
            if fault.kind == fault::STATE && kind != action::CLOSED {
                // The action wasn't run: it waits for code that can read the state.
                s.quarantined = Some(fault.message.as_str().into());
                self.quarantined.insert(slot);
            } else {
                ran.consumed += 1;
                turns += 1;
            }
            self.effects.push(Effect::Fault { service, session, action: kind, fault });
        }
        s.turns += turns;
        counts.turns += turns;
        self.buffers = buffers;
        ran
    }

    /// Calls the handler; leaves the result in `self.buffers`.
    fn attempt(&mut self, slot: Slot, actions: &[Action<'_>]) -> u32 {
        let Core { services, sessions, store, tables, limits, buffers, state, now_ns, .. } = self;
        let Some(session) = sessions.get(slot) else { return 0 };
        state.clear();
        if let Some(r) = session.state {
            store.read(r, |b| state.extend_from_slice(b));
        }
        let batch = Batch {
            session: session.id,
            now_ns: *now_ns,
            state: session.state.map(|_| (session.state_version, &state[..])),
            actions,
        };
        let mut staging = Staging::new(buffers, store, tables, limits, session, actions.len());
        let flags = services[usize::from(session.service.0)].code.run(&batch, &mut staging);
        // A handler that returned in the middle of a turn has not said that it succeeded.
        buffers.cut();
        flags
    }

    /// The limit that applying the buffers would break.
    fn over_limit(&self, slot: Slot) -> Option<&'static str> {
        let b = &self.buffers;
        if b.has_state && b.state.len() > self.limits.state_bytes_max {
            return Some("state_bytes_max");
        }
        if b.effects.is_empty() && !b.has_state {
            return None;
        }
        let own = || self.sessions.get(slot).map_or(0, |s| s.topics.iter().map(|t| t.len() + 1).sum());
        // One more than the topic has now: this very batch may subscribe the session first.
        let lens = b.record_lens(|topic| self.topics.count(topic) + 1, own);
        (!self.store.has_room(lens)).then_some("store_bytes_max")
    }

    /// Applies what was staged. It can't fail: [`Core::over_limit`] made sure of the room.
    fn apply(&mut self, slot: Slot, b: &Buffers) {
        let room = "room was made sure of before";
        if b.has_state
            && let Some(s) = self.sessions.get_mut(slot)
        {
            let service = &mut self.services[usize::from(s.service.0)];
            s.state = Some(self.store.put(s.state, Kind::State, s.id, &b.state).expect(room));
            service.count_stored(s.state_version, service.offer.shape.version);
            s.state_version = service.offer.shape.version;
            s.state_fingerprint = service.fingerprint;
        }
        for effect in &b.effects {
            match effect {
                Staged::Send(part) => self.push_output(slot, &b.bytes[part.clone()]),
                Staged::Broadcast { topic, data, others } => {
                    let to: Vec<_> = self.topics.subscribers(b.text(topic)).collect();
                    for to in to.into_iter().filter(|to| !(*others && *to == slot)) {
                        self.push_output(to, &b.bytes[data.clone()]);
                        if self
                            .sessions
                            .get(to)
                            .is_some_and(|s| s.unsent() > self.limits.output_bytes_max as u64)
                        {
                            self.overflowed.push(to);
                        }
                    }
                }
                Staged::Subscribe(topic) => {
                    if self.topics.add(b.text(topic), slot)
                        && let Some(s) = self.sessions.get_mut(slot)
                    {
                        s.topics.push(b.text(topic).into());
                        self.write_topics(slot);
                    }
                }
                Staged::Unsubscribe(topic) => {
                    if self.topics.remove(b.text(topic), slot)
                        && let Some(s) = self.sessions.get_mut(slot)
                    {
                        s.topics.retain(|t| &**t != b.text(topic));
                        self.write_topics(slot);
                    }
                }
                Staged::Put { table, key, value } => {
                    let (key, value) = (&b.bytes[key.clone()], &b.bytes[value.clone()]);
                    self.tables.put(&mut self.store, b.text(table), key, value).expect(room);
                }
                Staged::Delete { table, key } => {
                    self.tables.delete(&mut self.store, b.text(table), &b.bytes[key.clone()]);
                }
            }
        }
    }

    fn write_topics(&mut self, slot: Slot) {
        let Some(s) = self.sessions.get_mut(slot) else { return };
        match s.topics.is_empty() {
            true => {
                if let Some(r) = s.topics_record.take() {
                    self.store.delete(r);
                }
            }
            false => {
                let names = s.topics.join("\n");
                let put = self.store.put(s.topics_record, Kind::Topics, s.id, names.as_bytes());
                s.topics_record = Some(put.expect("room was made sure of before"));
            }
        }
    }

    fn push_output(&mut self, slot: Slot, bytes: &[u8]) {
        let Some(s) = self.sessions.get_mut(slot) else { return };
        if bytes.is_empty() || s.life == Life::Lingering {
            return;
        }
        let appended = s.output_fresh && s.output.back().is_some_and(|&last| self.store.append(last, bytes));
        if !appended {
            self.output.clear();
            self.output.extend_from_slice(&s.bytes_out.to_le_bytes());
            self.output.extend_from_slice(bytes);
            let put = self.store.put(None, Kind::Output, s.id, &self.output);
            s.output.push_back(put.expect("room was made sure of before"));
            s.output_fresh = true;
        }
        s.bytes_out += bytes.len() as u64;
        self.touch(slot);
    }

    // --- the end of a session -------------------------------------------------------------------

    /// Closes an open session: its last turn, then its output, then our end of the stream.
    fn finish(&mut self, slot: Slot, reason: u32) {
        self.last_turn(slot, reason);
        let Some(s) = self.sessions.get_mut(slot) else { return };
        if s.unsent() == 0 {
            self.flushed(slot);
        } else {
            let wait_ms = if self.stopping { self.limits.stop_ms } else { self.limits.drain_ms };
            self.set_deadline(slot, wait_ms);
        }
    }

    /// Runs the turn that tells the handler of the end, and takes the session off everything it shares.
    fn last_turn(&mut self, slot: Slot, reason: u32) {
        let Some(s) = self.sessions.get_mut(slot) else { return };
        if s.life != Life::Open {
            let message = format!("asked to close it in life {:?}", s.life);
            return self.notice(level::ERROR, slot, message);
        }
        s.life = Life::Draining;
        self.touch(slot);
        let last = Action { kind: action::CLOSED, detail: reason, data: Bytes::EMPTY };
        self.run_batch(slot, &[last]);
        let Some(s) = self.sessions.get_mut(slot) else { return };
        s.quarantined = None;
        for topic in std::mem::take(&mut s.topics) {
            self.topics.remove(&topic, slot);
        }
        for r in s.topics_record.take().into_iter().chain(s.input.take()) {
            self.store.delete(r);
        }
        self.quarantined.remove(&slot);
    }

    /// A draining session's output is out.
    fn flushed(&mut self, slot: Slot) {
        let Some(s) = self.sessions.get_mut(slot) else { return };
        if s.peer_done {
            return self.gone(slot);
        }
        s.life = Life::Lingering;
        self.touch(slot);
        self.effects.push(Effect::Shutdown(slot));
        let wait_ms = if self.stopping { STOP_LINGER_MS } else { self.limits.linger_ms };
        self.set_deadline(slot, wait_ms);
    }

    fn set_deadline(&mut self, slot: Slot, in_ms: u64) {
        let Some(s) = self.sessions.get_mut(slot) else { return };
        self.deadlines.remove(&(s.deadline_ns, slot));
        s.deadline_ns = self.now_ns + in_ms * 1_000_000;
        self.deadlines.insert((s.deadline_ns, slot));
    }

    /// Forgets a session and its records.
    pub(crate) fn gone(&mut self, slot: Slot) {
        self.drop_output(slot);
        let Some(s) = self.sessions.remove(slot) else { return };
        self.deadlines.remove(&(s.deadline_ns, slot));
        self.quarantined.remove(&slot);
        for r in [s.record, s.state, s.input, s.topics_record].into_iter().flatten() {
            self.store.delete(r);
        }
        let service = &mut self.services[usize::from(s.service.0)];
        service.sessions -= 1;
        service.count_stored(s.state_version, 0);
        self.effects.push(Effect::Close(slot));
    }

    fn drop_output(&mut self, slot: Slot) {
        let Some(s) = self.sessions.get_mut(slot) else { return };
        s.bytes_sent = s.bytes_out;
        s.output_sent = 0;
        for r in std::mem::take(&mut s.output) {
            self.store.delete(r);
        }
    }

    /// Closes the sessions whose output grew over its limit; their last turns may make others grow.
    fn close_overflowed(&mut self) {
        while let Some(slot) = self.overflowed.pop() {
            let Some(s) = self.sessions.get(slot) else { continue };
            let open = s.life == Life::Open;
            let message =
                format!("closed: {} bytes of output never taken (limit output_bytes_max)", s.unsent());
            self.notice(level::WARN, slot, message);
            self.drop_output(slot);
            if open {
                self.last_turn(slot, closed::LIMIT);
            }
            self.gone(slot);
        }
    }

    // --- small things ---------------------------------------------------------------------------

    /// Notes that this pass changed a session.
    #[inline]
    fn touch(&mut self, slot: Slot) {
        if let Some(s) = self.sessions.get_mut(slot)
            && !std::mem::replace(&mut s.dirty, true)
        {
            self.dirty.push(slot);
        }
    }

    fn input_len(&self, s: &Session) -> usize {
        s.input.map_or(0, |r| self.store.read(r, <[u8]>::len))
    }

    fn notice(&mut self, level: u32, slot: Slot, message: String) {
        if let Some(s) = self.sessions.get(slot) {
            self.effects.push(Effect::Notice { level, service: s.service, session: s.id, message });
        }
    }
}
