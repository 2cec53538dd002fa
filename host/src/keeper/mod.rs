//! The keeper's loop. The keeper holds every descriptor, accepts, and keeps a worker running.
//!
//! The keeper runs no handler code, reads no byte of a client, and does not map the records, so it
//! has little to die of. A worker may die at any instruction. Its successor starts once the
//! dead process is reaped, gets every descriptor that the keeper holds, and goes on. Until then
//! connections and their input wait in the kernel.
//!
//! | part | owns |
//! | --- | --- |
//! | `acceptor`, `made_connections` | listeners, connections, those under way |
//! | `bind`, `given` | sockets that the host binds, and those that systemd gave |
//! | `peer_watch` | times after which silent peers are given up |
//! | `handshakes`, `handshake_pace`, `handshake_news` | connections that wait for a handshake |
//! | [`handshaker_process`] | start of the handshaker, and check of certificates |
//! | `observer_process` | the observer's socket and process |
//! | `worker_process` | memory files, phase, process and socket of the worker |
//! | `succession` | the start of a process, and what follows from a death |
//! | `belongings`, `upkeep`, `files` | files that others may delete; files of libraries |
//! | `upgrade`, `upgrade_steps` | the trial of another binary, and the change to it |
//! | `configure`, `propose`, `callers` | configurations and commands that wait for a worker |
//! | `table` | open files that connections must leave free |
//! | `orphans` | children that others left behind |
//! | `stop`, `stop_steps` | the end of the host |
//! | `stalls` | what the worker is busy with |
//! | `failing`, `loads` | parts of the host that fail; loads that ended workers |
//! | `metrics` | figures that operators collect |
//! | `service_manager`, `service_news` | what systemd is told |
//! | `log_levels`, `log_level_steps` | levels of the log that operators have set |
//! | `deadlines` | deadlines of all parts |
//!
//! The loop looks at every source after each poll: the events tell only which listeners and
//! outbound connections are ready. No step waits for an answer of the worker, so `status` is
//! answered while a callback stalls. The configuration is read on a thread of its own.
//!
//! A keeper that dies takes its worker and all sessions with it. So a message that cannot be
//! understood replaces the worker, and the keeper goes on.

mod acceptor;
mod answer_callers;
mod belongings;
mod bind;
mod callers;
mod configure;
mod connection_steps;
mod connections;
mod deadlines;
mod deaths;
mod dialer;
pub mod events;
mod failing;
mod files;
mod given;
mod hand_queue;
mod handshake_news;
mod handshake_pace;
pub mod handshaker_process;
mod handshakes;
mod listener;
mod listeners;
mod loads;
mod log_level_steps;
mod log_levels;
mod made_connections;
mod memory_files;
mod metrics;
mod observer_process;
pub mod options;
mod orphans;
mod peer_watch;
mod phase;
mod propose;
mod service_manager;
mod service_news;
mod spawn;
mod stalls;
mod status;
mod stop;
mod stop_steps;
mod succession;
mod table;
mod tokens;
mod upgrade;
mod upgrade_steps;
pub mod upkeep;
mod worker_process;

use crate::admin::server::Asked;
use crate::logs;
use crate::mailbox::Mailbox;
use crate::plugin::watch::WatchNews;
use crate::protocol::keeper::{HeldPort, ToKeeper, ToWorker};
use crate::protocol::link::Received;
use crate::sys::descriptors::KeptPlaces;
use crate::sys::proc::own_binary;
use acceptor::Acceptor;
use belongings::Belongings;
use callers::{Callers, WaitingCaller};
use configure::ConfigProposals;
use events::{Event, EventQueue};
use failing::FailingParts;
use files::LibraryFiles;
use greenroom_core::limits::names::Limit;
use greenroom_core::recovery::crashes::Crashes;
use greenroom_core::reload::request::Requester;
use loads::Loads;
use log_levels::LogLevels;
use mio::{Events, Poll};
use observer_process::ObserverProcess;
use options::Options;
use peer_watch::PeerWatch;
use service_manager::ServiceManager;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGUSR1};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::time::Instant;
use stop::Stop;
use table::START_PLACES;
use upgrade::UpgradeUnderWay;
use worker_process::WorkerProcess;

/// Callback that is given services and endpoints once, when the host serves for the first time.
type OnReady<'a> = &'a dyn Fn(&[(String, String)]);

/// The keeper: its parts, by owner.
pub struct Keeper {
    options: Options,
    poll: Poll,
    events: EventQueue,
    /// Binary of the next process, opened once: a file that is replaced on disk changes nothing.
    /// `None`: the worker runs in this process.
    binary: Option<File>,
    acceptor: Acceptor,
    observer: ObserverProcess,
    worker: WorkerProcess,
    proposals: ConfigProposals,
    callers: Callers,
    /// Deaths inside turns. Each process learns from them which actions are blocked.
    crashes: Crashes,
    /// The upgrade under way: at most one.
    upgrade: Option<UpgradeUnderWay>,
    /// Reason why the worker asked for a fresh process during the upgrade.
    recycle_later: Option<String>,
    /// Since when the worker's socket is closed although its process lives.
    unheard_since: Option<Instant>,
    stop: Stop,
    /// Places in the table of open files for the start of a process.
    start_places: KeptPlaces,
    /// A child may have ended that nobody waits for.
    orphans_due: bool,
    /// Builds in use, and files that are made anew.
    belongings: Belongings,
    /// Files of libraries, and the builds that run.
    files: LibraryFiles,
    /// Parts that fail.
    failing: FailingParts,
    loads: Loads,
    manager: ServiceManager,
    log_levels: LogLevels,
    /// Times that each limit was reached here, not in a worker.
    reached: BTreeMap<Limit, u64>,
    started: Instant,
}

impl Keeper {
    /// Makes a keeper without a worker's process. [`Keeper::run`] starts the first one. Fails if
    /// the kernel gives no poll, no memory files, or not this binary.
    pub fn new(mut options: Options) -> io::Result<Keeper> {
        let poll = Poll::new()?;
        let mut acceptor = Acceptor::default();
        acceptor.take_given(std::mem::take(&mut options.given));
        acceptor.watch_peers(PeerWatch::of(&options.config.limits));
        acceptor.handshakes.configure(options.config.tls_settings());
        acceptor.handshakes.start_at_first(poll.registry()).map_err(io::Error::other)?;
        let observer = ObserverProcess::at_start(options.runtime.clone(), &options.config.observe)
            .map_err(io::Error::other)?;
        Ok(Keeper {
            observer,
            start_places: KeptPlaces::new(if options.in_process.is_some() { 0 } else { START_PLACES })?,
            binary: if options.in_process.is_some() { None } else { Some(own_binary()?) },
            log_levels: LogLevels::new(options.config.log.level()),
            options,
            events: EventQueue::new(poll.registry())?,
            poll,
            acceptor,
            worker: WorkerProcess::new()?,
            proposals: ConfigProposals::default(),
            callers: Callers::default(),
            crashes: Crashes::default(),
            upgrade: None,
            recycle_later: None,
            unheard_since: None,
            stop: Stop::default(),
            orphans_due: false,
            belongings: Belongings::default(),
            files: LibraryFiles::default(),
            failing: FailingParts::default(),
            loads: Loads::default(),
            manager: ServiceManager::find(),
            reached: BTreeMap::new(),
            started: Instant::now(),
        })
    }

    /// Mailbox for other threads. A post wakes the loop.
    pub fn mailbox(&self) -> Mailbox<Event> {
        self.events.mailbox()
    }

    /// Runs until the host is told to stop. `ready` is called with the ports once, when the host
    /// serves for the first time. The error says why the host ended otherwise than by a clean stop.
    ///
    /// A worker with a process of its own dies with the thread that started it. So this must run on
    /// the keeper's first thread then.
    pub fn run(mut self, ready: impl Fn(&[(String, String)])) -> Result<(), String> {
        let mut events = Events::with_capacity(256);
        loop {
            // A start may fail for good and end the host, so the end is checked behind it.
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
            // Messages that a worker sent before its end count. So they are heard before the worker
            // is reaped, which closes the socket.
            self.hear_worker(&ready);
            self.reap();
            self.hear_trial();
            for event in self.events.take() {
                self.handle(event);
            }
            self.reap_orphans();
            self.shake_hands();
            self.look_at_observer();
            // Last, since all of the above may have brought connections, or made room for them.
            self.accept_again();
            self.hand_connections();
            self.look_at_the_clock();
            self.tell_manager();
        }
    }

    /// Handles an event of another thread.
    fn handle(&mut self, event: Event) {
        match event {
            Event::Asked(Asked::OfKeeper(command, answers)) => self.answer(command, answers),
            Event::Asked(Asked::OfWorker(command, by, stream)) => {
                self.relay(WaitingCaller { command, by, stream });
            }
            Event::Asked(Asked::Audited(why)) => self.failing.note("audit log".into(), why),
            Event::Signal(SIGHUP) => {
                self.proposals.sighups += 1;
                self.configure(Requester::Signal, None);
            }
            Event::Signal(SIGUSR1) => {
                logs::reopen();
                self.worker.send(&ToWorker::ReopenLog);
            }
            Event::Signal(SIGCHLD) => self.orphans_due = true,
            Event::Signal(signal) => self.stop(signal),
            Event::Read { config, by, stream } => self.propose(*config, by, stream),
            Event::SocketGone(file) => self.listen_anew(&file),
            // Without a worker the message is dropped: a successor looks at all files.
            Event::Watched(WatchNews::Changed(path)) if self.options.config.watch => {
                self.worker.send(&ToWorker::Changed(path));
            }
            Event::Watched(WatchNews::Settings) if self.options.config.watch => {
                self.configure(Requester::Watcher, None);
            }
            Event::Watched(news) => self.files.hear(news),
        }
    }

    /// Hears all messages of the worker, until its socket is empty: the poll is edge-triggered.
    fn hear_worker(&mut self, ready: OnReady<'_>) {
        while let Some(received) = self.worker.receive() {
            match received {
                Ok(Received::Message(ToKeeper::Output, fds)) => self.worker.keep_output(fds),
                Ok(Received::Message(message, _)) => self.heard(message, ready),
                Ok(Received::Unknown(what)) => {
                    tracing::warn!("the worker is of a later version: {what}; that is left out");
                }
                Ok(Received::Nothing) => return,
                Ok(Received::Closed) => {
                    self.worker.unlink(self.poll.registry());
                    let ends = self.stop.is_requested() || self.worker.phase().is_handing_over();
                    self.unheard_since = (!ends).then(Instant::now);
                    if !self.worker.has_process() {
                        // The worker ran in this process: no other can follow.
                        self.stop.end();
                    }
                    return;
                }
                // Connections or ports may depend on the message. A successor reports both anew.
                Err(e) => {
                    tracing::error!("the worker said what can't be understood ({e}); it is replaced");
                    return self.worker.kill();
                }
            }
        }
    }

    /// Handles one message of the worker. `ready`: see [`Keeper::run`].
    fn heard(&mut self, message: ToKeeper, ready: OnReady<'_>) {
        match message {
            ToKeeper::Ready(ports, served) => self.ready(ports, served, ready),
            // After a first service, sessions are at stake: starts are repeated. Before, the host
            // ends once the process is reaped, and the operator sees the reason at once.
            ToKeeper::CantStart(reason) if self.worker.has_served() => {
                self.worker.deaths_mut().refuses(reason)
            }
            ToKeeper::CantStart(reason) => self.stop.note_failure(reason),
            // Room for another batch: it is handed over at the end of the round.
            ToKeeper::Ack => self.worker.acknowledged(),
            ToKeeper::Drop(connections) => self.acceptor.drop(&connections),
            ToKeeper::Builds(library, copies) => self.hold_builds(library, copies),
            ToKeeper::Runs(path, library, build) => self.runs(path, library, build),
            ToKeeper::Refused(path, build, reason) => self.files.refused(path, build, reason),
            ToKeeper::Loads(loads) => self.loads.are_under_way(loads),
            ToKeeper::Open(ports) => self.open_ports(ports),
            ToKeeper::Kinds(kinds) => self.acceptor.kinds_of_next(kinds),
            ToKeeper::SocketFiles(files) => self.allow_socket_files(files),
            ToKeeper::Connect(number, addr) => self.dial(number, addr, None),
            ToKeeper::ConnectTls(number, addr, tls) => self.dial(number, addr, Some(tls)),
            ToKeeper::StartTls(connection, wanted) => self.start_tls(connection, wanted),
            ToKeeper::GiveUp(number) => self.give_up_dial(number),
            ToKeeper::Number(count) => self.give_numbers(count),
            ToKeeper::Discard(addrs) => self.acceptor.discard(&addrs),
            ToKeeper::Ports(ports) => self.follow_ports(ports),
            ToKeeper::LacksHandshaker => self.acceptor.handshakes.part_for_a_while(),
            ToKeeper::Configured(number) => self.configured(number),
            ToKeeper::NotConfigured(number) => self.not_configured(number),
            ToKeeper::Saving => self.saving(),
            ToKeeper::NotSaved(why) => self.stop.note_unsaved(why),
            ToKeeper::Failing(what, why) => self.failing.note(what, why),
            ToKeeper::Pinned(epoch) => self.pinned(epoch),
            ToKeeper::Unpinned(held) => self.unpinned(held),
            // Its pins would end with it. The upgrade replaces it, or is refused.
            ToKeeper::Recycle(why) if self.upgrade.is_some() => self.recycle_later = Some(why),
            ToKeeper::Recycle(why) if self.worker.has_process() => self.recycle(&why),
            ToKeeper::Recycle(why) => tracing::warn!("{why}, and --no-keeper has no other process for it"),
            // The first is taken with its descriptor above. A trial has a socket of its own.
            ToKeeper::Output | ToKeeper::Tried(_) => {}
        }
    }

    /// Handles a worker that has become ready, with these ports. `served`: the highest number of a
    /// connection that the worker knows.
    ///
    /// The worker releases a connection at or below `served`, so new numbers begin above it.
    fn ready(&mut self, ports: Vec<HeldPort>, served: u64, ready: OnReady<'_>) {
        self.loads.told();
        self.acceptor.number_above(served);
        self.acceptor.give_up_unasked(self.poll.registry());
        let (first, gap) = self.worker.is_ready(ports);
        let accepted = self.acceptor.follow_all(self.poll.registry(), self.worker.ports());
        self.has_listeners(accepted);
        if first {
            ready(&self.named_ports());
            self.acceptor.name_unused();
        }
        // From the first end of a process to the service of this one, failed starts included.
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
            // The worker that was told has died. Its successor flushes and saves.
            self.worker.tell_to_stop(self.stop.signal());
        }
        // The phase is serving by now, so `relay` queues none of them again.
        for caller in self.callers.take() {
            self.relay(caller);
        }
        self.propose_again();
    }

    /// Counts a limit that the keeper reached, so many times. `status` adds the worker's counts.
    fn count_reached(&mut self, limit: Limit, times: u64) {
        if times > 0 {
            *self.reached.entry(limit).or_default() += times;
        }
    }
}
