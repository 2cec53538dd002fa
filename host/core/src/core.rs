//! Front door: every call of the shell, a line or a few each to the part that does it.
//!
//! - **The loop**: [`Core::handle`] takes one [`Input`] after another. After [`Input::Commit`]
//!   the shell takes what there is to do ([`Core::take_commands`], [`Core::take_sendable`],
//!   [`Core::take_jobs`], [`Core::take_connects`]) and reports it with further inputs.
//! - **Questions** about sessions, services, tables and schemas. They change nothing.
//! - **Reloads**: [`Core::reload`] steps the state machine, the others carry out its commit.
//! - **Operators**: checks, restores, limits, closing and releasing sessions.
//! - **Host records**: bytes of the shell that survive like a session.
//! - **Recovery**: a successor begins with [`Core::recover`].
//!
//! *Invariant*: nothing is sent or closed before the commit of its pass, so no client sees a
//! result that could still be lost. Effects of sending are carried out after the next commit.
//!
//! All calls come from one thread, and none from a running turn. Changed records become valid
//! with the next commit, and a death before it undoes the call.

use crate::command::{Begun, Command};
use crate::effects::datagrams::DatagramsToSend;
use crate::effects::job_forms::BegunJob;
use crate::effects::jobs::JobDeath;
use crate::effects::outbound::Dial;
use crate::execute::Executor;
use crate::execute::call::rehearse;
use crate::host_state::deliver::restart_jobs;
use crate::host_state::{HostState, output, tls_due};
use crate::ids::{ServiceId, Slot};
use crate::input::Input;
use crate::limits::host::Limits;
use crate::limits::names::Limit;
use crate::limits::per_service::AllLimits;
use crate::operate::check;
use crate::operate::desk::OperatorDesk;
use crate::operate::inspect::{self, Entry, Filter, OwnSlice, SessionView, Slice};
use crate::operate::watch::WatchDesk;
use crate::pass::open::Connection;
use crate::pass::{Pass, Scratch, begin, close, commit, datagram, deliver, open, outcome, receive, send};
use crate::pass::{ends, start_tls};
use crate::recovery::rebuild::{Survivor, rebuild};
use crate::recovery::{reconcile, saved};
use crate::reload::canary::{self, CanaryDesk};
use crate::reload::commit::{self as reload_commit, Replaced};
use crate::reload::judge::LiveData;
use crate::reload::reloads::Reloads;
use crate::reload::request::{Event, Step};
use crate::reload::rollback;
use crate::reload::sweep::Sweeps;
use crate::service::canary_counts::BothCounts;
use crate::service::canary_terms::CanaryTerms;
use crate::service::convert::Reread;
use crate::service::offer::{Build, Offer, Serving};
use crate::service::probation::Probation;
use crate::service::registry::{Service, Traffic};
use crate::session::blocked::Blocked;
use crate::session::quarantine::BlockedAction;
use crate::session::table::Sessions;
use crate::store::kind::Kind;
use crate::store::records::Store;
use crate::store::recover::Recovered;
use crate::tables::index::Tables;
use crate::tables::owner::Owners;
use crate::tls::due::HandshakeDue;
use greenroom_state::schema::Schema;

/// State of a host, but for sockets, files, threads and loaded code.
pub struct Core {
    pub(crate) host: HostState,
    executor: Executor,
    scratch: Scratch,
    /// Memory for kept input and the bytes that follow it.
    assembly: Vec<u8>,
    /// Reloads under way and those waiting. Not stored: a successor looks at the files again.
    pub reloads: Reloads,
    /// Sweeps under way. Not stored: a successor begins them again as it adopts the builds.
    sweeps: Sweeps,
    /// Number of the last session whose deadline followed changed limits; `None`: all have.
    rearm_from: Option<u64>,
}

/// Start of a successor: the state of a process that died.
pub struct Successor {
    /// Core, whose services have names and no code: [`Core::go_on_with`] gives it to them.
    pub core: Core,
    /// Sessions, in the order of their numbers.
    pub survivors: Vec<Survivor>,
    /// Losses, in words: damaged records, and sessions given up for them.
    pub lost: Vec<String>,
}

impl Core {
    /// Makes a host without services, whose records lie on the heap.
    pub fn new(limits: Limits) -> Core {
        Core::with_store(limits.clone(), Store::new(limits.store_bytes_max))
    }

    /// Makes a host without services over an empty store.
    pub fn with_store(limits: Limits, store: Store) -> Core {
        Core::over(HostState::new(limits, store))
    }

    fn over(host: HostState) -> Core {
        Core {
            host,
            executor: Executor::default(),
            scratch: Scratch::default(),
            assembly: Vec::new(),
            reloads: Reloads::default(),
            sweeps: Sweeps::default(),
            rearm_from: None,
        }
    }

    /// Takes one input. Its turns, and their effects, are done when the call returns.
    pub fn handle(&mut self, input: Input<'_>) {
        let mut pass =
            Pass { host: &mut self.host, executor: &mut self.executor, scratch: &mut self.scratch };
        match input {
            Input::PassBegins { now_ns } => {
                // Before any turn: a build whose probation is over has no fallback.
                pass.host.begin_pass(now_ns);
                pass.executor.begin_pass();
                reload_commit::end_due_probations(pass.host, &mut self.sweeps);
                canary::order_due(pass.host);
                self.sweeps.go_on(pass.host, pass.executor);
                begin::begin(&mut pass, &mut self.rearm_from, &mut self.assembly);
            }
            Input::InputLeft => pass.host.leaves_input = true,
            Input::WallClock { unix_ns } => pass.host.take_wall_clock(unix_ns),
            Input::OneByOne { ms } => pass.host.run_one_by_one(ms),
            Input::Opened { slot, id, service, kind, peer, at_ms, tls } => {
                open::accept(&mut pass, Connection::accepted((slot, id), (service, kind), peer, at_ms), tls);
            }
            Input::PeerHeard { slot, id, service, end, peer, at_ms } => {
                open::accept(&mut pass, Connection::heard((slot, id), (service, end), peer, at_ms), None);
            }
            Input::Datagrams { service, end, datagrams } => {
                datagram::received(&mut pass, service, end, datagrams);
            }
            Input::Ciphers(ciphers) => pass.host.tls.ciphers = Some(ciphers.0),
            Input::HostBegins { secret, now_ns } => pass.host.is_born(secret, now_ns),
            Input::Received { slot, bytes } => receive::received(&mut pass, slot, bytes, &mut self.assembly),
            Input::PeerDone { slot } => ends::peer_done(&mut pass, slot),
            Input::Broken { slot } => ends::broken(&mut pass, slot),
            Input::HandshakeEnded { slot, outcome } => start_tls::ended(&mut pass, slot, outcome),
            Input::Sent { slot, bytes, blocked } => send::sent(pass.host, slot, bytes, blocked),
            Input::Writable { slot } => send::writable(pass.host, slot),
            Input::Connected { number, slot, id, peer, at_ms, tls } => {
                outcome::connected(&mut pass, number, (slot, id), (peer, at_ms), tls);
            }
            Input::ConnectFailed { number, why } => outcome::connect_failed(pass.host, number, why),
            Input::JobDone { number, result } => outcome::job_done(pass.host, number, result),
            Input::Cascade => deliver::deliver_group(&mut pass),
            Input::Commit => {
                commit::commit(pass.host);
                self.sweeps.committed();
            }
            Input::Stop => close::stop(&mut pass),
            Input::HandOver => reconcile::record_sent(pass.host),
        }
        // After each input, not each pass: one broadcast can fill a thousand outputs.
        close::close_overflowed(&mut pass);
    }

    /// Appends the commands since the last call to `into`, in order. Called after a commit.
    pub fn take_commands(&mut self, into: &mut Vec<Command>) {
        into.append(&mut self.host.commands);
    }

    /// Appends the sessions that have output to send to `into`. Called after a commit. If there
    /// are more, the next pass is due at once.
    pub fn take_sendable(&mut self, into: &mut Vec<Slot>) {
        send::take_sendable(&mut self.host, into);
    }

    /// Lends the first pieces of unsent output, if any, for a system call. Called after a commit.
    pub fn output<T>(&self, slot: Slot, f: impl FnOnce(&[&[u8]]) -> T) -> Option<T> {
        output::lend(&self.host, slot, f)
    }

    /// Returns what the handshake of a session needs, for [`Command::StartTls`].
    pub fn handshake_of(&self, slot: Slot) -> Option<HandshakeDue<'_>> {
        tls_due::handshake_of(&self.host, slot)
    }

    /// Swaps the datagrams to send with an empty list. Called after a commit.
    pub fn take_datagrams(&mut self, into: &mut DatagramsToSend) {
        self.host.datagrams.move_to(into);
    }

    /// Takes the jobs that begin. Called after a commit, which has marked them as begun.
    pub fn take_jobs(&mut self) -> Vec<Begun> {
        let begun = self.host.jobs.take_begun(&self.host.store);
        let with_work = |BegunJob { number, owner, service, name, input }| Begun {
            number,
            service,
            name,
            input,
            work: self.host.services[service].build_of(owner).code.work(),
        };
        begun.into_iter().map(with_work).collect()
    }

    /// Takes the connections to make. Called after a commit.
    pub fn take_connects(&mut self) -> Vec<Dial> {
        self.host.outbound.take_begun()
    }

    /// Lends each limit reached since the last call to `each`, with how often it was reached.
    pub fn take_reached(&mut self, each: impl FnMut(Limit, u64)) {
        self.host.limits.take_reached(each);
    }

    /// Lends each kind of records whose bytes in the store have changed since the last call to
    /// `each`, by its number, with the bytes.
    pub fn take_store_bytes(&mut self, each: impl FnMut(usize, u64)) {
        self.host.store.take_bytes_by_kind(each);
    }

    /// Returns the number of timers that are not due.
    pub fn timers(&self) -> usize {
        self.host.timers.len()
    }

    /// Returns the time by which the next pass is due, on the clock of [`Input::PassBegins`].
    /// 0: at once. `None`: with the next input.
    pub fn next_wake_ns(&self) -> Option<u64> {
        if self.host.is_due() || self.sweeps.are_due() || self.rearm_from.is_some() {
            return Some(0);
        }
        self.host.next_ns()
    }

    /// Returns whether the stage has used up limit `pass_us`: further reads wait for the next pass.
    pub fn pass_is_full(&mut self) -> bool {
        self.host.stage_is_over()
    }

    /// Begins another stage of reads: connections that earlier passes left have a budget apart.
    pub fn begin_stage(&mut self) {
        self.host.begin_stage();
    }

    /// Returns whether a connection should be read; [`Command::Resume`] says when it is again.
    pub fn wants_input(&self, slot: Slot) -> bool {
        receive::wants_input(&self.host, slot)
    }

    /// Returns whether a session's kept input runs with the next pass.
    pub fn is_resuming(&self, slot: Slot) -> bool {
        self.host.sessions.get(slot).is_some_and(|s| s.is_blocked(Blocked::ResumesNextPass))
    }

    /// Returns the host's limits. A service may have others: [`Core::set_limits`].
    pub fn limits(&self) -> &Limits {
        self.host.limits.host()
    }

    /// Returns all services that ever were, by [`ServiceId`].
    pub fn services(&self) -> &[Service] {
        self.host.services.all()
    }

    /// Returns the service of a name, whether a build serves it or not. O(services).
    pub fn service_named(&self, name: &str) -> Option<ServiceId> {
        self.host.services.number(name)
    }

    /// Returns the sessions.
    pub fn sessions(&self) -> &Sessions {
        &self.host.sessions
    }

    /// Returns the record store, for epoch, sizes and tests.
    pub fn store(&self) -> &Store {
        &self.host.store
    }

    /// Returns the owners by table.
    pub fn owners(&self) -> &Owners {
        self.host.owners.all()
    }

    /// Returns the number of jobs that run, and of those that wait for a thread.
    pub fn jobs(&self) -> (usize, usize) {
        self.host.jobs.shares.counts()
    }

    /// Returns the probation of a library's build. O(probations).
    pub fn probation(&self, library: &str) -> Option<&Probation> {
        self.host.probations.of(library)
    }

    /// Counts the quarantined sessions of a library's services. O(quarantined sessions).
    pub fn quarantined(&self, library: &str) -> usize {
        self.host.quarantined(library)
    }

    /// Lends the desk of what operators do to sessions and their data.
    pub fn operator(&mut self) -> OperatorDesk<'_> {
        OperatorDesk { host: &mut self.host, executor: &mut self.executor }
    }

    /// Lends the desk at which watches of turns begin and end.
    pub fn watching(&mut self) -> WatchDesk<'_> {
        WatchDesk { host: &mut self.host }
    }

    /// Copies a slice of the sessions whose numbers are above `after`.
    pub fn sessions_after(&self, after: u64, filter: &Filter) -> Slice<SessionView> {
        inspect::sessions_after(&self.host, after, filter)
    }

    /// Copies a slice of a service's own timers behind `after`, and its jobs and connections.
    pub fn of_service(&self, service: ServiceId, after: Option<&str>) -> OwnSlice {
        inspect::of_service(&self.host, service, after)
    }

    /// Copies the names of all tables. O(tables).
    pub fn table_names(&self) -> Vec<String> {
        self.host.tables.names().map(str::to_owned).collect()
    }

    /// Returns the tables: their entries, versions and drops.
    pub fn tables(&self) -> &Tables {
        &self.host.tables
    }

    /// Copies the value of one entry, as stored; `None`: there is no such key.
    pub fn entry(&self, table: &str, key: &[u8]) -> Option<Vec<u8>> {
        inspect::entry(&self.host, table, key)
    }

    /// Copies a slice of a table's entries from a key on, and the key to go on from.
    pub fn entries_from(&self, table: &str, from: &[u8]) -> (Vec<Entry>, Option<Vec<u8>>) {
        inspect::entries_from(&self.host, table, from)
    }

    /// Returns the version of an entry's value, if the table's owner writes another one.
    pub fn other_version(&self, table: &str, key: &[u8]) -> Option<u32> {
        check::other_version(&self.host, table, key)
    }

    /// Returns the schema of a service's states, or of a table's values; `None`: none is known.
    pub fn schema(&self, service: Option<&str>, table: Option<&str>) -> Option<&Schema> {
        check::schema(&self.host, service, table)
    }

    /// Takes one event of a reload, and returns the steps that the shell is to carry out. Calls
    /// no handler and changes no live data: the commit does, by [`Core::adopt`] and its like.
    pub fn reload(&mut self, event: Event) -> Vec<Step> {
        self.reloads.handle(event, &LiveData::of(&self.host))
    }

    /// Puts a build in charge of its services, without a probation: the commit of a reload.
    /// Called between two passes. O(1) in sessions: their states are converted as they are read.
    pub fn adopt(&mut self, build: &Build, offers: Serving) {
        reload_commit::adopt(&mut self.host, &mut self.sweeps, build, offers, Replaced::Retires);
    }

    /// Puts a build in charge that ran before, by request of an operator. The build that served
    /// goes on converting what it left.
    pub fn go_back_to(&mut self, build: &Build, offers: Serving) {
        reload_commit::adopt(&mut self.host, &mut self.sweeps, build, offers, Replaced::Converts);
    }

    /// Puts a build in charge on probation, until `until_ns`. False: the first build of a
    /// library has no previous one, so it is in charge without a probation.
    pub fn adopt_on_probation(&mut self, build: &Build, offers: Serving, until_ns: u64) -> bool {
        reload_commit::adopt_on_probation(&mut self.host, &mut self.sweeps, build, offers, until_ns)
    }

    /// Puts the build in charge that a predecessor ran. Called before the first pass. Nothing
    /// changes for a session, so quarantined ones stay so; a new build would release them.
    pub fn go_on_with(&mut self, build: &Build, offers: Serving) {
        reload_commit::go_on_with(&mut self.host, &mut self.sweeps, build, offers);
    }

    /// Puts a library's build on probation again, as a predecessor had. `before` stands by
    /// already. Counts begin at 0, the end by time stays.
    pub fn begin_probation(&mut self, build: &Build, before: &Build, until_ns: u64) {
        reload_commit::begin_probation(&mut self.host, &mut self.sweeps, build, before, until_ns);
    }

    /// Ends a probation that failed without a way back: the previous build retires.
    pub fn end_probation(&mut self, library: &str) {
        reload_commit::end_probation(&mut self.host, &mut self.sweeps, library);
    }

    /// Returns the offers of the previous build, if it can take over from the one on probation.
    /// Fails if none stands by, or if stored data could not be downgraded for it.
    pub fn can_roll_back(&self, library: &str) -> Result<Vec<Offer>, String> {
        rollback::can_roll_back(&self.host, library)
    }

    /// Puts the previous build back in charge, between two passes, and returns it; `None`:
    /// there is no probation. Called only if [`Core::can_roll_back`] succeeds.
    pub fn roll_back(&mut self, library: &str) -> Option<Build> {
        rollback::roll_back(&mut self.host, &mut self.sweeps, library)
    }

    /// Lends the desk at which canaries begin and are taken back.
    pub fn canaries(&mut self) -> CanaryDesk<'_> {
        CanaryDesk { host: &mut self.host, sweeps: &mut self.sweeps }
    }

    /// Returns the candidate of a library's canary, its terms, and the counts of all services.
    pub fn canary(&self, library: &str) -> Option<(&Build, &CanaryTerms, BothCounts)> {
        canary::canary_of(&self.host, library)
    }

    /// Lets a build stand by to take over, as it did in a predecessor of this process.
    pub fn stand_by(&mut self, build: &Build, offers: Serving) {
        rollback::stand_by(&mut self.host, build, offers);
    }

    /// Lets a build stand by to convert what it left. No sweep begins: a rehearsal has none.
    pub fn stand_by_to_convert(&mut self, build: &Build, offers: Serving) {
        rollback::stand_by_to_convert(&mut self.host, build, offers);
    }

    /// Lets a build convert what it left, in the passes to come, as it did in a predecessor.
    pub fn go_on_converting(&mut self, build: &Build, offers: Serving) {
        rollback::go_on_converting(&mut self.host, &mut self.sweeps, build, offers);
    }

    /// Returns whether rolled-back builds of a library are kept to convert. O(services).
    pub fn converts(&self, library: &str) -> bool {
        self.host.services.convert_for(library)
    }

    /// Takes the builds that are needed no more, to be dropped on another thread; `None`: there
    /// is none. Called after the commit, as the records named them until then.
    pub fn take_retired(&mut self) -> Option<Box<dyn Send>> {
        self.host.services.take_retired()
    }

    /// Replaces the limits from here on, for open sessions, too. Their deadlines follow, a few
    /// in each pass. O(services); O(sessions) if sessions per peer begin to be counted.
    pub fn set_limits(&mut self, limits: AllLimits) {
        self.host.sessions.count_peers(limits.host.sessions_per_peer_max > 0);
        let names = self.host.services.all().iter().map(|s| &*s.offer.name);
        self.host.limits.set(limits, names);
        self.rearm_from = Some(0);
    }

    /// Closes a session, after its last turn. Fails if the session is gone or closing.
    pub fn close(&mut self, id: u64) -> Result<(), String> {
        let (host, executor, scratch) = (&mut self.host, &mut self.executor, &mut self.scratch);
        close::close(&mut Pass { host, executor, scratch }, id)
    }

    /// Lets a quarantined session go on with the code that serves, from the next pass on. Fails
    /// if the session is gone or not quarantined.
    pub fn release(&mut self, id: u64) -> Result<(), String> {
        let slot = self.host.sessions.slot_of(id).ok_or_else(|| format!("no session has number {id}"))?;
        if !self.host.quarantines.contains(slot) {
            return Err(format!("session {id} is not quarantined"));
        }
        reload_commit::release_quarantined(&mut self.host, slot);
        Ok(())
    }

    /// Lets the code that serves a session read its state, as its next turn would. Stores
    /// nothing. The error is the handler's, or names a limit.
    pub fn rehearse(&mut self, slot: Slot) -> Result<Reread, String> {
        rehearse(&self.host, &mut self.executor, slot)
    }

    /// Converts a value with the code that serves a service, or to a newer version with a build
    /// that stands by to convert (`service/convert.rs`). The service exists, else the call panics.
    pub fn convert(
        &self,
        service: ServiceId,
        which: u32,
        from: u32,
        to: u32,
        value: &[u8],
    ) -> Result<Vec<u8>, String> {
        self.host.services[service].convert(which, from, to, value)
    }

    /// Keeps the last commit readable from outside, up to `pin_bytes_max`: [`Store::pin`].
    pub fn pin(&mut self) -> u64 {
        self.host.store.pin(self.host.limits.host().pin_bytes_max)
    }

    /// Ends a pin: [`Store::unpin`]. False: the reader must discard what it has.
    pub fn unpin(&mut self, epoch: u64) -> bool {
        self.host.store.unpin(epoch)
    }

    /// Writes a host record in place of the one under this kind and key. False: the store has
    /// no room for it, and the old one stays.
    pub fn put_host_record(&mut self, kind: Kind, key: u64, bytes: &[u8]) -> bool {
        self.host.host_records.put(&mut self.host.store, kind, key, bytes)
    }

    /// Deletes a host record, if it is there.
    pub fn delete_host_record(&mut self, kind: Kind, key: u64) {
        self.host.host_records.delete(&mut self.host.store, kind, key);
    }

    /// Copies at most `max` host records of a kind, from a key on, in the order of their keys.
    pub fn host_records_from(&self, kind: Kind, from: u64, max: usize) -> Vec<(u64, Vec<u8>)> {
        self.host.host_records.list(&self.host.store, kind, from, max)
    }

    /// Keys of the host records of a kind, in order.
    pub fn host_record_keys(&self, kind: Kind) -> impl Iterator<Item = u64> + use<'_> {
        self.host.host_records.keys(kind)
    }

    /// Returns the highest number that a session has, or had. Sessions that open later have higher
    /// ones, but for connections on their way in.
    pub fn session_number(&self) -> u64 {
        self.host.sessions.last_number().max(self.host.host_records.connection_number())
    }

    /// Returns the highest number of a connection that was served. A connection without a
    /// session is new above it, and closed at or below it.
    pub fn connection_number(&self) -> u64 {
        self.host.host_records.connection_number()
    }

    /// Builds a core from the records that were found. `now_ns` is the clock of
    /// [`Input::PassBegins`], which goes on across processes. The caller then adopts the builds,
    /// begins jobs again and compares each survivor with the kernel, all before the first pass.
    pub fn recover(limits: Limits, found: Recovered, now_ns: u64) -> Successor {
        let rebuilt = rebuild(limits, found, now_ns);
        Successor { core: Core::over(rebuilt.host), survivors: rebuilt.survivors, lost: rebuilt.lost }
    }

    /// Compares a survivor with byte counts, and returns the bytes read and not committed. If the
    /// counts do not add up, the session is gone, and the error says why.
    pub fn reconcile(&mut self, slot: Slot, counts: reconcile::StreamCounts) -> Result<u64, String> {
        reconcile::reconcile(&mut self.host, slot, counts)
    }

    /// Forgets a survivor that cannot be trusted, or is gone. Its handler is not told.
    pub fn give_up(&mut self, slot: Slot) {
        reconcile::give_up(&mut self.host, slot);
    }

    /// Blocks an action, before the first pass: its turn quarantines the session instead.
    pub fn block(&mut self, action: BlockedAction) {
        self.host.quarantines.block(action);
    }

    /// Begins the jobs of a predecessor anew. Sessions learn of jobs that must not begin again.
    /// Called once, before the first pass. Returns service and owner of the job that killed it.
    pub fn restart_jobs(&mut self, death: JobDeath) -> Option<(ServiceId, u64)> {
        restart_jobs(&mut self.host, death)
    }

    /// Lets no job begin from here on: a successor begins them. Called before a handover.
    pub fn hold_jobs(&mut self) {
        self.host.jobs.hold();
    }

    /// Sets a service's counters to a predecessor's, before its build is adopted.
    pub fn restore_counters(&mut self, service: ServiceId, turns: u64, faults: u64, traffic: Traffic) {
        if let Some(s) = self.host.services.get_mut(service) {
            (s.turns, s.faults, s.traffic) = (turns, faults, traffic);
        }
    }

    /// Lends the data that outlive the host itself to `each`: tables, ledger, connection
    /// number. Ends early when `each` returns false. O(entries).
    pub fn each_saved(&self, each: impl FnMut(Kind, u32, &[u8]) -> bool) {
        saved::each_saved(&self.host, each);
    }

    /// Stores one item that [`Core::each_saved`] lent. Fails with a reason if it cannot be
    /// read, or does not fit; nothing of it is stored then.
    pub fn restore_saved(&mut self, kind: Kind, version: u32, bytes: &[u8]) -> Result<(), String> {
        saved::restore_saved(&mut self.host, kind, version, bytes)
    }
}
