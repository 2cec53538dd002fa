//! All state of the host, by its owner.
//!
//! The struct has no behaviour: each part has its own methods, and knows no part beside it. A
//! step that needs several parts and runs no handler code is a function in one of the files
//! beside it. Turns run in `crate::execute`, which is above this folder, so no function here can
//! start one.
//!
//! Most parts are indexes over records, and recovery builds them again
//! (`crate::recovery::rebuild`). Parts change memory and records together; the records count
//! with the next commit.
//!
//! | file | does |
//! | --- | --- |
//! | [`canary`] | writes the counts of canaries |
//! | [`deliver`] | lets an action wait for a session |
//! | [`end`] | forgets a session, and all it owns |
//! | [`framings`] | gives a session its framing, and records those of its service |
//! | [`notice`] | tells operators, and counts limits that are reached |
//! | [`output`] | queues output, and books what the kernel took |
//! | [`state`] | writes a session's state |
//! | [`tls`] | seals data into the output, and writes states of TLS |

pub(crate) mod canary;
pub(crate) mod deliver;
pub(crate) mod end;
pub(crate) mod framings;
pub(crate) mod notice;
pub(crate) mod output;
pub(crate) mod state;
pub(crate) mod tls;
pub(crate) mod tls_due;

use crate::command::Command;
use crate::effects::birth::{Birth, SECRET_BYTES};
use crate::effects::buckets::Buckets;
use crate::effects::datagrams::DatagramsToSend;
use crate::effects::inbox::Inbox;
use crate::effects::jobs::Jobs;
use crate::effects::names::Names;
use crate::effects::outbound::Outbound;
use crate::effects::timers::Timers;
use crate::effects::topics::Topics;
use crate::ids::Slot;
use crate::limits::budget::Budget;
use crate::limits::host::Limits;
use crate::limits::in_force::LimitsInForce;
use crate::limits::names::Limit;
use crate::service::canaries::Canaries;
use crate::service::probation::Probations;
use crate::service::registry::Services;
use crate::session::flow_control::FlowControl;
use crate::session::output::OutputWriter;
use crate::session::quarantine::Quarantines;
use crate::session::send_queue::SendQueue;
use crate::session::socket_streams::SocketStreams;
use crate::session::table::Sessions;
use crate::store::host_records::HostRecords;
use crate::store::kind::Kind;
use crate::store::records::Store;
use crate::store::shared::SharedRecords;
use crate::tables::index::Tables;
use crate::tables::owner::TableOwners;
use crate::tls::due::TlsDue;
use crate::tls::table::TlsSessions;
use crate::watch::watchers::Watchers;

/// The state of a host, without sockets, files, threads and loaded code.
pub(crate) struct HostState {
    /// Time of the pass: CLOCK_MONOTONIC, in nanoseconds. All turns of a pass have the same
    /// time.
    pub(crate) now_ns: u64,
    /// Time of the calendar in this pass: nanoseconds since 1970, UTC. For turns and for deadlines
    /// of entries: it may go back.
    pub(crate) wall_ns: u64,
    /// Time until which each turn is committed by itself; 0: none is.
    pub(crate) one_by_one_until_ns: u64,
    /// Time by which deadlines are judged, in nanoseconds: all that had arrived by then was read.
    /// The time of an earlier pass, so that a host that stood still hears its peers first.
    pub(crate) heard_until_ns: u64,
    /// Whether the pass leaves input behind that had arrived when it began.
    pub(crate) leaves_input: bool,
    /// Work that the stage under way may still do.
    pub(crate) budget: Budget,
    /// Work that closing sessions over their output limit may still do in this pass.
    close_budget: Budget,
    /// Whether the host stops: each session has its last turn, and none opens.
    pub(crate) stopping: bool,
    /// Number of the last session that had its last turn because the host stops; `None`: all had,
    /// or the host serves.
    pub(crate) stopped_to: Option<u64>,
    /// The records. Parts get it as an argument.
    pub(crate) store: Store,
    /// Records that several others name.
    pub(crate) shared: SharedRecords,
    /// The host's own records: libraries, ports, ledger, configuration.
    pub(crate) host_records: HostRecords,
    /// Limits of the host and of single services, and those that were reached.
    pub(crate) limits: LimitsInForce,
    /// Services with their builds, by number.
    pub(crate) services: Services,
    /// Builds on probation, at most one for each library.
    pub(crate) probations: Probations,
    /// Canaries under way.
    pub(crate) canaries: Canaries,
    /// Sessions by slot and number, and those that this pass changed.
    pub(crate) sessions: Sessions,
    /// Memory for output records in the making.
    pub(crate) output: OutputWriter,
    /// Sessions to send to, and sessions whose output is over its limit.
    pub(crate) send_queue: SendQueue,
    /// Sessions that wait until another session's output drains.
    pub(crate) flow: FlowControl,
    /// Sessions in a stream of WebSocket.
    pub(crate) sockets: SocketStreams,
    /// Quarantined sessions, and actions that must not run.
    pub(crate) quarantines: Quarantines,
    /// Actions that wait for a session.
    pub(crate) inbox: Inbox,
    /// Timers that are not due.
    pub(crate) timers: Timers,
    /// Jobs that have not ended.
    pub(crate) jobs: Jobs,
    /// Connections that are being made.
    pub(crate) outbound: Outbound,
    /// Records and stages of the sessions over TLS.
    pub(crate) tls: TlsSessions,
    /// Sessions whose stream is to become one of TLS.
    pub(crate) tls_due: TlsDue,
    /// Names that sessions hold.
    pub(crate) names: Names,
    /// Secret of the host, and its age.
    pub(crate) birth: Birth,
    /// Token buckets of all services.
    pub(crate) buckets: Buckets,
    /// Subscribers of each topic.
    pub(crate) topics: Topics,
    /// Watchers of turns.
    pub(crate) watchers: Watchers,
    /// Entries of the tables.
    pub(crate) tables: Tables,
    /// Owners of the tables, as the serving builds declare them.
    pub(crate) owners: TableOwners,
    /// Datagrams to send behind the commit.
    pub(crate) datagrams: DatagramsToSend,
    /// Commands for the shell, in order. The shell takes them after the commit.
    pub(crate) commands: Vec<Command>,
}

/// Milliseconds after which a host with entries that expire looks at the calendar, at the latest.
const EXPIRY_LOOK_MS: u64 = 10_000;

impl HostState {
    /// State of a host without services over a store.
    pub(crate) fn new(limits: Limits, store: Store) -> HostState {
        HostState {
            now_ns: 0,
            wall_ns: 0,
            one_by_one_until_ns: 0,
            heard_until_ns: 0,
            leaves_input: false,
            budget: Budget::default(),
            close_budget: Budget::default(),
            stopping: false,
            stopped_to: None,
            store,
            shared: SharedRecords::default(),
            host_records: HostRecords::default(),
            limits: LimitsInForce::new(limits),
            services: Services::default(),
            probations: Probations::default(),
            canaries: Canaries::default(),
            sessions: Sessions::default(),
            output: OutputWriter::default(),
            send_queue: SendQueue::default(),
            flow: FlowControl::default(),
            sockets: SocketStreams::default(),
            quarantines: Quarantines::default(),
            inbox: Inbox::default(),
            timers: Timers::default(),
            jobs: Jobs::default(),
            outbound: Outbound::default(),
            tls: TlsSessions::default(),
            tls_due: TlsDue::default(),
            names: Names::default(),
            birth: Birth::default(),
            buckets: Buckets::default(),
            topics: Topics::default(),
            watchers: Watchers::default(),
            tables: Tables::default(),
            owners: TableOwners::default(),
            datagrams: DatagramsToSend::default(),
            commands: Vec::new(),
        }
    }

    /// Begins the host, unless a predecessor has: with its secret, at this time.
    pub(crate) fn is_born(&mut self, secret: [u8; SECRET_BYTES], now_ns: u64) {
        let birth = Birth::new(secret, now_ns);
        if self.host_records.last_key(Kind::Birth).is_none() {
            let put = self.host_records.put(&mut self.store, Kind::Birth, 0, &birth.encode());
            debug_assert!(put, "no room for the host's secret");
            self.birth = birth;
        }
    }

    /// Begins a pass at this time. Deadlines are judged by the time of the pass before, unless
    /// that left input behind.
    pub(crate) fn begin_pass(&mut self, now_ns: u64) {
        if !std::mem::take(&mut self.leaves_input) {
            self.heard_until_ns = self.now_ns;
        }
        self.now_ns = now_ns;
        self.begin_stage();
        self.close_budget = std::mem::take(&mut self.budget);
    }

    /// Takes the time of the calendar for the pass that begins next, or is under way.
    pub(crate) fn take_wall_clock(&mut self, unix_ns: u64) {
        self.wall_ns = unix_ns;
        self.tables.tick(unix_ns / 1_000_000);
    }

    /// Time of the calendar, in milliseconds since 1970; 0: not known yet.
    pub(crate) fn wall_ms(&self) -> u64 {
        self.wall_ns / 1_000_000
    }

    /// Counts the quarantined sessions of a library's services. O(quarantined sessions).
    pub(crate) fn quarantined(&self, library: &str) -> usize {
        let sessions = self.quarantines.slots().filter_map(|slot| self.sessions.get(slot));
        sessions.filter(|s| self.services[s.service].is_of(library)).count()
    }

    /// Begins a stage of a pass, with a budget of its own.
    pub(crate) fn begin_stage(&mut self) {
        match self.runs_one_by_one() {
            true => self.budget.begin_least(),
            false => self.budget.begin(self.limits.host().pass_us),
        }
    }

    /// Enters the stage that closes sessions over their output limit, or leaves it for the stage
    /// under way.
    pub(crate) fn swap_close_stage(&mut self) {
        std::mem::swap(&mut self.budget, &mut self.close_budget);
    }

    /// Has each turn be committed by itself, for so many milliseconds.
    pub(crate) fn run_one_by_one(&mut self, ms: u64) {
        self.one_by_one_until_ns = self.now_ns + ms * 1_000_000;
    }

    /// Whether each turn is committed by itself.
    #[inline]
    pub(crate) fn runs_one_by_one(&self) -> bool {
        self.now_ns < self.one_by_one_until_ns
    }

    /// Whether the stage under way leaves the rest of its work to the next pass. The first answer
    /// of a stage counts the limit.
    pub(crate) fn stage_is_over(&mut self) -> bool {
        if self.budget.is_spent_anew() {
            self.limits.reached(Limit::PassUs);
        }
        self.budget.is_spent()
    }

    /// Whether the next pass is due at once: something goes on in it.
    pub(crate) fn is_due(&self) -> bool {
        self.sessions.has_resumed()
            || self.sessions.has_changed()
            || !self.send_queue.is_empty()
            || self.send_queue.overflows()
            || self.inbox.is_ready()
            || self.jobs.are_begun()
            || self.outbound.are_begun()
            || !self.commands.is_empty()
            || self.stopped_to.is_some()
            || self.tables.dropped_left() > 0
            || self.tables.has_rest()
    }

    /// Time of the next thing that is due: a deadline, a timer, the end of a probation, a job that
    /// is late.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        let own = self.sessions.next_deadline_ns().into_iter().chain(self.jobs.late_ns(self.limits.host()));
        // A host that stops begins no job.
        let own = own.chain(self.jobs.alone_until_ns().filter(|_| !self.stopping));
        // Operators may set the clock of the calendar while the host sleeps, and the store may
        // have room again.
        let expiry = self.tables.next_in_ms().map(|ms| self.now_ns + ms.min(EXPIRY_LOOK_MS) * 1_000_000);
        own.chain(self.probations.next_ns())
            .chain(self.canaries.next_ns())
            .chain(self.timers.next_ns())
            .chain(expiry)
            .min()
    }

    /// Limits of a session's service; the host's, if there is no such session.
    #[inline]
    pub(crate) fn limits_of(&self, slot: Slot) -> &Limits {
        self.sessions.get(slot).map_or(self.limits.host(), |s| self.limits.of(s.service))
    }
}
