//! The one place where everything that happens is decided: an [`Input`] in, [`Command`]s out.
//!
//! A pass: [`Input::PassBegins`], any number of inputs, [`Input::Commit`]; then the shell carries out the effects, sends what
//! [`Core::take_sendable`] names, and reports it with [`Input::Sent`]. Nothing is sent or closed before the commit, so nobody
//! sees the result of what could still be forgotten; what sending brings about (a session is flushed and gone) is carried out after
//! the next commit.

use crate::command::Command;
use crate::effects::asked::{Connects, Jobs};
use crate::effects::timers::Timers;
use crate::effects::topics::Topics;
use crate::ids::ServiceId;
use crate::ids::{Slot, told};
use crate::input::Input;
use crate::limits::host::Limits;
use crate::limits::names::Limit;
use crate::limits::per_service::ServiceLimits;
use crate::pass::deliver::{ActionBuffer, Pending};
use crate::pass::send::Sendable;
use crate::reload::judge::Live;
use crate::reload::request::{Event, Step};
use crate::reload::steps::Reloads;
use crate::reload::sweep::Sweep;
use crate::service::offer::{Build, Serving};
use crate::service::placeholder::Withdrawn;
use crate::service::probation::Probation;
use crate::service::registry::{LoadedBuild, Service};
use crate::session::life::{Life, Session};
use crate::session::output::Payloads;
use crate::session::quarantine::BlockedAction;
use crate::session::table::Sessions;
use crate::store::host_records::HostRecords;
use crate::store::kind::Kind;
use crate::store::layout::Full;
use crate::store::records::Store;
use crate::tables::index::Tables;
use crate::tables::owner::Owners;
use crate::turn::staging::Buffers;
use greenroom_state::abi::{Action, Bytes, action, closed, level};
use greenroom_state::session_record::SessionRecord;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// The whole state of a host, but for sockets, files, threads and loaded code.
pub struct Core {
    /// The host's limits. A service may have others: [`Core::set_limits`].
    pub limits: Limits,
    /// The reloads under way and those waiting.
    pub reloads: Reloads,
    pub(crate) services: Vec<Service>,
    pub(crate) sessions: Sessions,
    pub(crate) store: Store,
    pub(crate) tables: Tables,
    pub(crate) owners: Owners,
    pub(crate) probations: Vec<Probation>,
    pub(crate) sweeps: Vec<Sweep>,
    /// Something was committed: a successor serves before it converts what nobody waits for.
    pub(crate) committed: bool,
    /// Builds that are needed no more. Dropping one takes longer than a commit may.
    pub(crate) retired: Vec<LoadedBuild>,
    pub(crate) topics: Topics,
    pub(crate) now_ns: u64,
    pub(crate) stopping: bool,
    /// Batches run again in this pass.
    pub(crate) replays: u32,
    /// `None` while a batch has it: it is moved about, not copied.
    pub(crate) buffers: Option<Box<Buffers>>,
    /// The state of the batch under way, copied out of the store.
    pub(crate) state: Vec<u8>,
    /// Input left over and the bytes that follow it.
    pub(crate) assembly: Vec<u8>,
    /// An output record in the making.
    pub(crate) output: Vec<u8>,
    /// Sessions that this pass changed.
    pub(crate) dirty: Vec<Slot>,
    pub(crate) sendable: Sendable,
    /// Sessions whose kept input can be run again.
    pub(crate) resumed: Vec<Slot>,
    /// Sessions whose output grew over its limit in the batch under way.
    pub(crate) overflowed: Vec<Slot>,
    pub(crate) quarantined: BTreeSet<Slot>,
    /// By session.
    pub(crate) withheld: BTreeMap<u64, Vec<BlockedAction>>,
    pub(crate) kept: HostRecords,
    pub(crate) timers: Timers,
    pub(crate) jobs: Jobs,
    pub(crate) connects: Connects,
    pub(crate) pending: Pending,
    pub(crate) payloads: Payloads,
    /// Actions that waited, copied out of the store.
    pub(crate) copied: ActionBuffer,
    pub(crate) deadlines: BTreeSet<(u64, Slot)>,
    /// What single services have otherwise, also those that may come.
    pub(crate) service_limits: BTreeMap<String, ServiceLimits>,
    /// Limits that were reached and aren't counted yet.
    pub(crate) reached: Vec<Limit>,
    /// Limits have changed: the deadlines of sessions above this number are still to follow.
    pub(crate) expect_again: Option<u64>,
    pub(crate) effects: Vec<Command>,
}

/// Input that a quarantined session keeps before its peer isn't read any more.
const QUARANTINE_INPUT_BYTES_MAX: usize = 64 * 1024;

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
            owners: Owners::new(),
            probations: Vec::new(),
            sweeps: Vec::new(),
            committed: false,
            retired: Vec::new(),
            topics: Topics::default(),
            now_ns: 0,
            stopping: false,
            replays: 0,
            buffers: None,
            state: Vec::new(),
            assembly: Vec::new(),
            output: Vec::new(),
            dirty: Vec::new(),
            sendable: Sendable::default(),
            resumed: Vec::new(),
            overflowed: Vec::new(),
            quarantined: BTreeSet::new(),
            withheld: BTreeMap::new(),
            kept: HostRecords::default(),
            timers: Timers::default(),
            jobs: Jobs::default(),
            connects: Connects::default(),
            pending: Pending::default(),
            payloads: Payloads::default(),
            copied: ActionBuffer::default(),
            deadlines: BTreeSet::new(),
            service_limits: BTreeMap::new(),
            reached: Vec::new(),
            expect_again: None,
            effects: Vec::new(),
        }
    }

    /// Takes one input. Every decision starts here.
    pub fn handle(&mut self, input: Input<'_>) {
        match input {
            Input::PassBegins { now_ns } => self.pass_begins(now_ns),
            Input::Opened { slot, id, service, peer, at_ms } => {
                let _ = self.admit(slot, id, service, peer, at_ms, false);
            }
            Input::Received { slot, bytes } => self.received(slot, bytes),
            Input::PeerDone { slot } => self.peer_done(slot),
            Input::Broken { slot } => self.broken(slot),
            Input::Sent { slot, bytes, blocked } => self.sent(slot, bytes, blocked),
            Input::Writable { slot } => self.writable(slot),
            Input::Connected { number, slot, id, peer, at_ms } => {
                self.connected(number, slot, id, peer, at_ms);
            }
            Input::ConnectFailed { number, why } => self.connect_failed(number, why),
            Input::JobDone { number, result } => self.job_done(number, result),
            Input::Cascade => self.run_caused(),
            Input::Commit => self.commit(),
            Input::Stop => self.stop(),
        }
        self.close_overflowed();
    }

    /// Takes one event of a reload, and says what to do next.
    pub fn reload(&mut self, event: Event) -> Vec<Step> {
        let Core { reloads, services, tables, owners, limits, service_limits, .. } = self;
        reloads.handle(event, &Live { services, tables, owners, limits, service_limits })
    }

    /// The effects since the last call, in order.
    pub fn take_effects(&mut self, into: &mut Vec<Command>) {
        into.append(&mut self.effects);
    }

    /// Whether a session's input should be read. When this turns true again, [`Command::Resume`] says so.
    pub fn wants_input(&self, slot: Slot) -> bool {
        self.sessions.get(slot).is_some_and(|s| match s.life {
            Life::Open if s.quarantined.is_some() => self.input_len(s) < QUARANTINE_INPUT_BYTES_MAX,
            Life::Open => !s.paused && !s.held && !s.waits,
            // To notice the peer's end.
            Life::Draining | Life::Lingering => true,
        })
    }

    /// When the next pass is due at the latest, on the clock of [`Input::PassBegins`]; `None`: whenever something happens.
    pub fn next_wake_ns(&self) -> Option<u64> {
        let pending = !self.resumed.is_empty() || !self.dirty.is_empty() || !self.sendable.is_empty();
        if pending
            || self.pending.is_ready()
            || self.jobs.are_begun()
            || self.connects.are_begun()
            || !self.effects.is_empty()
            || !self.sweeps.is_empty()
            || self.expect_again.is_some()
        {
            return Some(0);
        }
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        deadline.into_iter().chain(self.next_proof_ns()).chain(self.timers.next_ns()).min()
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

    /// As [`Core::adopt`], for the build that a predecessor ran: nothing changes for a session, so a quarantined one stays so.
    pub fn go_on_with(&mut self, build: &Build, offers: Serving) {
        let quarantined = std::mem::take(&mut self.quarantined);
        self.adopt(build, offers);
        self.quarantined = quarantined;
    }

    /// Keeps what is committed readable from outside; see [`Store::pin`].
    pub fn pin(&mut self) -> u64 {
        self.store.pin(self.limits.pin_bytes_max)
    }

    /// See [`Store::unpin`].
    pub fn unpin(&mut self, epoch: u64) -> bool {
        self.store.unpin(epoch)
    }

    /// Goes on counting a service's turns and faults where a predecessor was.
    pub fn count_on(&mut self, service: ServiceId, turns: u64, faults: u64) {
        if let Some(s) = self.services.get_mut(usize::from(service.0)) {
            (s.turns, s.faults) = (turns, faults);
        }
    }

    /// Puts a build in charge of its services: the commit of a reload. It only replaces what each service points to, so
    /// its time doesn't depend on the number of sessions. What nobody needs any more is in [`Core::take_retired`].
    ///
    /// Whether it may is decided before, by [`crate::reload::steps`].
    pub fn adopt(&mut self, build: &Build, offers: Serving) {
        self.probations.retain(|p| p.build.library != build.library);
        self.take_charge(build, offers, &Old::LetGo);
        self.sweep(&build.library);
    }

    /// As [`Core::adopt`], for a build that ran before: the one that is left goes on converting what it left.
    pub fn go_back_to(&mut self, build: &Build, offers: Serving) {
        self.probations.retain(|p| p.build.library != build.library);
        self.take_charge(build, offers, &Old::Converts);
        self.sweep(&build.library);
    }

    /// As [`Core::adopt`]; until `until_ns` the last build that proved itself stands by. The first build of a library has none
    /// before it, and no probation. Returns whether there is one.
    pub fn adopt_on_probation(&mut self, build: &Build, offers: Serving, until_ns: u64) -> bool {
        let serves = |s: &&Service| s.is_of(&build.library);
        let current = self.services.iter().find(serves).and_then(|s| s.build.clone());
        let proved = self.probation(&build.library).map(|p| p.before.clone()).or(current);
        let Some(proved) = proved.filter(|p| p.generation != build.generation) else {
            self.adopt(build, offers);
            return false;
        };
        self.take_charge(build, offers, &Old::StandsBy(&proved));
        self.begin_probation(build, &proved, until_ns);
        true
    }

    fn take_charge(&mut self, build: &Build, offers: Serving, becomes: &Old<'_>) {
        for service in self.services.iter_mut().filter(|s| s.is_of(&build.library)) {
            if !offers.iter().any(|(offer, _)| offer.name == service.offer.name)
                && let Some(old) = service.withdraw(Box::new(Withdrawn))
            {
                put_aside(service, old, becomes, &mut self.retired);
            }
        }
        for (offer, code) in offers {
            match self.services.iter_mut().find(|s| s.offer.name == offer.name) {
                Some(service) => {
                    // It was another library's before.
                    let theirs = service.before.take_if(|b| b.build.library != build.library);
                    self.retired.extend(theirs);
                    if let Some(old) = service.replace(LoadedBuild::new(offer, build.clone(), code)) {
                        put_aside(service, old, becomes, &mut self.retired);
                    }
                }
                None => {
                    let (number, name) = (self.services.len() as u64, offer.name.clone());
                    // A reserve is kept for records that must not fail.
                    let put = self.store.put(None, Kind::Service, number, name.as_bytes());
                    debug_assert!(put.is_ok(), "no room for a service's name");
                    self.sessions.add_service();
                    let mut service = Service::new(offer, build.clone(), code);
                    self.limit_service(&mut service);
                    self.services.push(service);
                }
            }
        }
        if !matches!(becomes, Old::StandsBy(_)) {
            for s in &mut self.services {
                let before = s.before.take_if(|b| b.build.library == build.library);
                self.retired.extend(before);
            }
        }
        self.own_tables(&build.library);
        self.resume_quarantined(&build.library);
    }

    /// The code that serves a library's sessions has changed: those that waited are tried again.
    pub(crate) fn resume_quarantined(&mut self, library: &str) {
        for slot in std::mem::take(&mut self.quarantined) {
            let Some(s) = self.sessions.get(slot) else { continue };
            if self.services[usize::from(s.service.0)].is_of(library) {
                self.end_quarantine(slot);
                if let Some(s) = self.sessions.get_mut(slot) {
                    s.paused = true;
                }
                self.resume(slot);
                self.touch(slot);
            } else {
                self.quarantined.insert(slot);
            }
        }
    }

    // --- inputs ---------------------------------------------------------------------------------

    fn pass_begins(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        self.replays = 0;
        if !self.probations.is_empty() {
            self.end_probations();
        }
        if self.committed {
            self.sweep_on();
        }
        while let Some(&(at, slot)) = self.deadlines.first()
            && at <= now_ns
        {
            self.deadlines.pop_first();
            if let Some(s) = self.sessions.get(slot) {
                if s.life == Life::Open {
                    self.waited(slot);
                    continue;
                }
                if s.life == Life::Draining {
                    let what = format!("closed with {} bytes of output never taken", s.unsent());
                    let limit = if self.stopping { Limit::StopMs } else { Limit::DrainMs };
                    self.say_reached(limit, level::INFO, slot, &what);
                } else {
                    self.reached(Limit::LingerMs);
                }
                self.gone(slot);
            }
        }
        self.fire_timers();
        self.expect_on();
        for slot in std::mem::take(&mut self.resumed) {
            let pauses = self.must_pause(slot);
            if let Some(s) = self.sessions.get_mut(slot) {
                (s.paused, s.resuming) = (pauses, false);
            }
            self.run_kept_input(slot);
            if self.wants_input(slot) && !slot.is_service() {
                self.effects.push(Command::Resume(slot));
            }
        }
    }

    /// Takes a connection in as a session. An error says why it isn't one; it is closed then.
    pub(crate) fn admit(
        &mut self,
        slot: Slot,
        id: u64,
        service: ServiceId,
        peer: SocketAddr,
        at_ms: u64,
        outbound: bool,
    ) -> Result<(), &'static str> {
        self.note_served(id);
        let per_peer = if outbound { 0 } else { self.limits.sessions_per_peer_max };
        let full = |limits: &Limits, sessions| sessions >= limits.sessions_max;
        let own = &self.services[usize::from(service.0)];
        let limit = if full(&self.limits, self.sessions.len()) || full(self.limits_in(service), own.sessions)
        {
            Some(Limit::SessionsMax)
        } else if per_peer > 0 && self.sessions.count_from(peer.ip()) >= per_peer {
            Some(Limit::SessionsPerPeerMax)
        } else if !self.store.reserve([greenroom_state::session_record::SIZE; 2]) {
            Some(Limit::StoreBytesMax)
        } else {
            None
        };
        if self.stopping || limit.is_some() {
            let way = if outbound { "to" } else { "from" };
            let what = format!("connection {way} {peer} refused");
            self.effects.push(Command::Close { slot, id });
            let Some(limit) = limit.filter(|_| !self.stopping) else {
                let message = format!("{what} (the host is stopping)");
                self.effects.push(Command::Notice { level: level::WARN, service, session: id, message });
                return Err("the host is stopping");
            };
            self.say_refused(limit, service, id, &what);
            return Err(limit.name());
        }
        let heard_ns = self.now_ns;
        self.sessions.insert(slot, Session { outbound, heard_ns, ..Session::new(id, service, peer, at_ms) });
        self.services[usize::from(service.0)].sessions += 1;
        self.touch(slot);
        self.expect(slot);
        self.run_opened(slot);
        Ok(())
    }

    /// False: it was withheld, and comes later.
    pub(crate) fn run_opened(&mut self, slot: Slot) -> bool {
        let opened = Action::new(action::OPENED, Bytes::EMPTY);
        let ran = self.run_batch(slot, &[opened]);
        if ran.close {
            self.finish(slot, closed::HANDLER);
        }
        if ran.consumed == 0
            && let Some(s) = self.sessions.get_mut(slot)
        {
            s.greeting_due = true;
            self.touch(slot);
        }
        ran.consumed > 0
    }

    fn received(&mut self, slot: Slot, bytes: &[u8]) {
        let Some(s) = self.sessions.get_mut(slot) else { return };
        if s.life != Life::Open || s.peer_done {
            return;
        }
        s.bytes_in += bytes.len() as u64;
        s.heard_ns = self.now_ns;
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

    fn writable(&mut self, slot: Slot) {
        let Some(s) = self.sessions.get_mut(slot) else { return };
        if std::mem::replace(&mut s.blocked, false) {
            self.offer_output(slot);
        }
    }

    fn commit(&mut self) {
        for i in 0..self.dirty.len() {
            let slot = self.dirty[i];
            let Some(s) = self.sessions.get_mut(slot) else { continue };
            s.dirty = false;
            s.output_fresh = false;
            let input_bytes = s.input.map_or(0, |r| self.store.read(r, <[u8]>::len)) as u32;
            let record = SessionRecord { input_bytes, ..s.to_record() }.encode();
            match self.store.put(s.record, Kind::Session, s.id, &record) {
                Ok(r) => s.record = Some(r),
                // Room for it was made sure of when the session opened, and records don't grow.
                Err(Full) => {
                    debug_assert!(false, "no room for a session's record");
                    self.notice(
                        level::ERROR,
                        slot,
                        "no room for its record: a takeover would give it up".into(),
                    );
                    continue;
                }
            }
            self.offer_output(slot);
        }
        self.dirty.clear();
        self.begin_jobs();
        self.keep_served();
        self.committed = true;
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

    /// A session's input goes on with the next pass: until then its peer's end isn't its own.
    pub(crate) fn resume(&mut self, slot: Slot) {
        if let Some(s) = self.sessions.get_mut(slot)
            && !std::mem::replace(&mut s.resuming, true)
        {
            self.resumed.push(slot);
        }
    }

    /// Whether a session's input goes on with the next pass.
    pub fn is_resuming(&self, slot: Slot) -> bool {
        self.sessions.get(slot).is_some_and(|s| s.resuming)
    }

    /// Notes that this pass changed a session.
    #[inline]
    pub(crate) fn touch(&mut self, slot: Slot) {
        if let Some(s) = self.sessions.get_mut(slot)
            && !std::mem::replace(&mut s.dirty, true)
        {
            self.dirty.push(slot);
        }
    }

    pub(crate) fn input_len(&self, s: &Session) -> usize {
        s.input.map_or(0, |r| self.store.read(r, <[u8]>::len))
    }

    pub(crate) fn notice(&mut self, level: u32, slot: Slot, message: String) {
        if let Some(s) = self.sessions.get(slot) {
            let session = told(s.id);
            self.effects.push(Command::Notice { level, service: s.service, session, message });
        }
    }
}

/// What becomes of a build that no longer serves.
enum Old<'a> {
    /// Nobody needs it.
    LetGo,
    /// It converts what it left.
    Converts,
    /// It takes over if the new one fails, if it is this build, which proved itself; otherwise it is let go of.
    StandsBy(&'a Build),
}

fn put_aside(service: &mut Service, old: LoadedBuild, becomes: &Old<'_>, retired: &mut Vec<LoadedBuild>) {
    match becomes {
        Old::StandsBy(proved) if old.build == **proved => {
            retired.extend(service.before.replace(old));
        }
        // Of a service that is withdrawn and that nobody is connected to, nothing is left.
        Old::Converts if service.build.is_some() || service.sessions > 0 => service.converters.push(old),
        _ => retired.push(old),
    }
}
