//! State of the loop beside the core: sockets, link, ports, ledger, builds.
//!
//! A part owns its fields, and takes the core or another part as an argument. The drivers step
//! through reloads, proposals, probations and restores with a [`Shell`].
//!
//! State that must outlive the process lies in the core's records. A part with a record (builds,
//! configuration, ports, ledger) writes that with each change, and the change counts from the next
//! commit.
//!
//! [`Shell::commit`] is the commit of a pass. Drivers hand the core `Input::Commit` alone: actions
//! that wait then get their turns in the next pass.

use crate::admin::audit::{self, AuditLine};
use crate::admin::text::is_operator;
use crate::clock::{now_ns, unix_ns};
use crate::config::admin::AdminConfig;
use crate::crash_points;
use crate::crash_points::Point;
use crate::memory::board::Board;
use crate::memory::figures_layout::Gauge;
use crate::plugin::prepare::Job;
use crate::protocol::board_text;
use crate::protocol::status::{CanaryStatus, JobsStatus, ServiceStatus};
use crate::worker::datagrams::Datagrams;
use crate::worker::handshakes::HandshakesDone;
use crate::worker::keeper_link::KeeperLink;
use crate::worker::ledger::Ledger;
use crate::worker::lifecycle::Lifecycle;
use crate::worker::reload::build_records::BuildRecords;
use crate::worker::reload::config_in_force::ConfigInForce;
use crate::worker::reload::ports::Ports;
use crate::worker::reload::running_build::RunningBuild;
use crate::worker::save::Saver;
use crate::worker::threads::Threads;
use crate::worker::transfer::Sockets;
use greenroom_core::core::Core;
use greenroom_core::ids::Slot;
use greenroom_core::input::Input;
use greenroom_core::ledger::Report;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// Time between two looks at a reload under way, which may wait for code that does not return.
const LOOK_AT_RELOADS: Duration = Duration::from_secs(1);

/// The core and all that each step of the loop needs beside it.
pub(super) struct Shell {
    /// All decisions, and all records.
    pub core: Core,
    /// Connections, the poll, and the memory for input.
    pub sockets: Sockets,
    /// UDP ports, and the peers that have sessions.
    pub datagrams: Datagrams,
    /// The socket to the keeper.
    pub keeper: KeeperLink,
    /// Secrets of handshakes of TLS, and connections that wait for theirs.
    pub handshakes: HandshakesDone,
    /// Counters that outlive this process. The keeper reads them at any time.
    pub board: Board,
    /// The configuration in force.
    pub config: ConfigInForce,
    /// Ports that listen, and ports that a reload is opening.
    pub ports: Ports,
    /// The record of each library, and the private copies that it names.
    pub builds: BuildRecords,
    /// The ledger.
    pub ledger: Ledger,
    /// Saves of tables and ledger.
    pub saver: Saver,
    /// Threads beside the loop, which post to its inbox.
    pub threads: Threads,
    /// The worker's end.
    pub lifecycle: Lifecycle,
}

impl Shell {
    /// Begins a pass: reads both clocks, once for all of its turns.
    pub(super) fn begin_pass(&mut self) {
        let now_ns = now_ns();
        self.board.pass_begins(now_ns);
        self.core.handle(Input::WallClock { unix_ns: unix_ns() });
        self.core.handle(Input::PassBegins { now_ns });
    }

    /// Assembles finished parts. Ports and builds are empty until they are loaded or taken over.
    /// The ledger goes on with the lines in the core's records.
    pub(super) fn assemble(
        core: Core,
        sockets: Sockets,
        keeper: KeeperLink,
        board: Board,
        (config, ports): (ConfigInForce, Ports),
        saver: Saver,
        threads: Threads,
    ) -> Shell {
        let ledger = Ledger::of(&core);
        let (builds, lifecycle) = (BuildRecords::default(), Lifecycle::default());
        Shell {
            core,
            sockets,
            datagrams: Datagrams::default(),
            keeper,
            handshakes: HandshakesDone::default(),
            board,
            config,
            ports,
            builds,
            ledger,
            saver,
            threads,
            lifecycle,
        }
    }

    /// Runs the actions that wait, and commits the pass: from here on its turns count and may be
    /// seen. Shows the counters on the board.
    ///
    /// A commit writes the sessions that changed and one epoch in memory; it makes no system call
    /// unless the store grows. A process that dies before the epoch is written leaves the previous
    /// commit. O(changed sessions + services).
    pub(super) fn commit(&mut self) {
        self.core.handle(Input::Cascade);
        crash_points::pass(Point::Ran);
        self.core.handle(Input::Commit);
        self.board.committed();
        self.sockets.input_is_committed();
        crash_points::pass(Point::Committed);
        // Behind the commit, so that the board never counts a turn that was lost.
        for (number, s) in self.core.services().iter().enumerate() {
            self.board.count(number, [s.sessions as u64, s.turns, s.faults]);
        }
        let board = self.board;
        board.gauge(Gauge::StoreBytes, self.core.store().bytes() as u64);
        board.gauge(Gauge::Timers, self.core.timers() as u64);
        self.core.take_store_bytes(|kind, bytes| board.store_bytes(kind, bytes));
        self.core.take_reached(|limit, times| board.reached_times(limit, times));
    }

    /// Reads a connection once, by [`Sockets::read`]. If the memory for input is full, the pass is
    /// committed and sent first. The core's commands still wait for the end of the pass.
    #[inline]
    pub(super) fn read(&mut self, slot: Slot, to_the_end: bool) {
        if !self.sockets.has_room() {
            self.commit();
            self.send();
        }
        self.sockets.read(&mut self.core, slot, to_the_end);
    }

    /// Reads a connection, or lists it for the next pass if this one is full: the poll reports it
    /// once.
    #[inline]
    pub(super) fn read_or_list(&mut self, slot: Slot, to_the_end: bool) {
        match self.core.pass_is_full() {
            true => self.sockets.read_again([slot]),
            false => self.read(slot, to_the_end),
        }
    }

    /// Writes committed output, by [`Sockets::send`] and [`Datagrams::send`]. Runs behind a commit,
    /// with no turn in between.
    pub(super) fn send(&mut self) {
        self.sockets.send(&mut self.core, self.config.get());
        self.datagrams.send(&mut self.core, &mut self.sockets, &self.ports);
        // Here, so that an idle service shows all that was sent.
        for (number, s) in self.core.services().iter().enumerate() {
            self.board.traffic(number, s.traffic);
        }
    }

    /// Warns of services that are configured and that nobody offers: a name may be mistyped.
    pub(super) fn warn_of_services_without_library(&self) {
        let offered = |name: &str| self.core.services().iter().any(|s| s.offer.name == name);
        for service in self.config.get().service.keys().filter(|name| !offered(name)) {
            tracing::warn!("service {service} is configured, but no library that runs offers it");
        }
    }

    /// Adds a line to the ledger, by [`Ledger::add`], and counts it. Returns its number.
    pub(super) fn add_line(&mut self, by: &str, report: Report) -> u64 {
        self.board.reported(&report);
        self.add_uncounted_line(by, report)
    }

    /// Adds a line to the ledger, by [`Ledger::add`], and to the audit log, if no operator asked
    /// for the change. Returns its number.
    pub(super) fn add_uncounted_line(&mut self, by: &str, report: Report) -> u64 {
        if !is_operator(by) {
            let AdminConfig { audit: file, .. } = &self.config.get().admin;
            let before = self.ledger.served_before(&report.library);
            let after = json!({
                "library": report.library,
                "outcome": report.outcome,
                "generation": report.generation,
                "build": report.build,
            });
            let before = before.map_or(Value::Null, |generation| json!({"generation": generation}));
            let line = AuditLine::of_host(by, "reload").because(&report.reason).with(before, after);
            audit::write_apart(line, file.clone());
        }
        self.ledger.add(&mut self.core, by, report)
    }

    /// Time that the poll may sleep; `None`: without limit. The next of these ends the sleep: a
    /// connection to read again, the core's next deadline, the end of the worker, a save, a look at
    /// a reload. Clocks are read only for what waits.
    pub(super) fn sleep_max(&self) -> Option<Duration> {
        if self.sockets.reads_again() || self.datagrams.read_again() || self.keeper.has_rest {
            return Some(Duration::ZERO);
        }
        let wake = self.core.next_wake_ns().map(|at| Duration::from_nanos(at.saturating_sub(now_ns())));
        let (life, save) = (self.lifecycle.sleep_max(), self.saver.sleep_max(self.core.limits()));
        let reload = self.core.reloads.is_busy().then_some(LOOK_AT_RELOADS);
        [wake, life, save, reload].into_iter().flatten().min()
    }

    /// Reads the tables and the ledger of an earlier host. Entries replace those of the same key,
    /// and ledger lines are added behind those that are there. Only for a host without builds and
    /// sessions. An error says why the host must not start.
    pub(super) fn read_saved(&mut self) -> Result<(), String> {
        self.saver.read(&mut self.core)?;
        self.ledger = Ledger::of(&self.core);
        Ok(())
    }

    /// Tells the keeper which private copies to hold, and which builds run, of libraries whose
    /// records were written. Runs behind their commit, and before copies are removed that the
    /// records no longer name.
    pub(super) fn say_builds(&mut self) {
        for record in self.builds.take_untold() {
            let copies = record.copies().into_iter().map(Path::to_path_buf).collect();
            self.keeper.say_builds(record.path.clone(), copies);
            let RunningBuild { library, hash, .. } = record.current;
            self.keeper.say_runs(record.path, library, hash);
        }
    }

    /// Drops builds and private copies that no session, table or record needs any more. Runs
    /// behind a commit: records written before it count by now. Destructors and the removal of
    /// files run on the prepare thread, because both may block.
    pub(super) fn drop_unused_builds(&mut self) {
        self.say_builds();
        self.threads.prepare.drop_copies(self.builds.take_unused_copies());
        self.builds.forget_files(&mut self.core, self.config.get());
        if let Some(retired) = self.core.take_retired() {
            self.threads.prepare.send(Job::Drop(retired, Vec::new()));
            self.builds.forget_converters(&mut self.core);
        }
    }

    /// Releases UDP ports that do not count any more, and asks for the numbers that peers need.
    pub(super) fn follow_udp_ports(&mut self) {
        self.datagrams.follow(&self.ports, &mut self.keeper, self.sockets.registry());
    }

    /// The status of each service, by the service's number; `None`: withdrawn. O(services x ports).
    pub(super) fn service_statuses(&self) -> Vec<Option<ServiceStatus>> {
        let statuses = self.core.services().iter().map(|s| {
            let build = s.build.as_ref()?;
            let name = &s.offer.name;
            Some(ServiceStatus {
                name: name.clone(),
                library: build.library.clone(),
                generation: build.generation,
                build: build.hash.clone(),
                state_version: s.offer.shape.version,
                listen: self.ports.of_service(name).map(|p| p.named().to_string()).collect(),
                // The keeper knows, which has the sockets.
                dual_stack: Vec::new(),
                sessions: s.sessions,
                turns: s.turns,
                faults: s.faults,
                jobs: JobsStatus::default(),
                canary: s.canary().map(|(build, terms, version)| CanaryStatus {
                    generation: build.generation,
                    build: build.hash.clone(),
                    state_version: version,
                    share: f64::from(terms.share) / 100.0,
                    chosen: terms.chosen.len(),
                }),
            })
        });
        statuses.collect()
    }

    /// Shows the services on the board, where the keeper reads them while no worker lives. Follows
    /// every commit that changes builds, ports or generations.
    pub(super) fn show_services(&self) {
        board_text::write(self.board, &self.service_statuses());
    }
}
