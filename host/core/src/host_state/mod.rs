//! Everything the host holds, by owner.
//!
//! The struct has no behaviour. A step that needs several parts and runs no handler code is a
//! function in one of the files beside it:
//!
//! | file | does |
//! | --- | --- |
//! | [`deliver`] | lets an action wait for a session |
//! | [`end`] | forgets a session, and all it owns |
//! | [`notice`] | tells operators, and counts limits that are reached |
//! | [`output`] | queues output, and books what the kernel took |
//! | [`state`] | writes a session's state |

pub(crate) mod deliver;
pub(crate) mod end;
pub(crate) mod notice;
pub(crate) mod output;
pub(crate) mod state;

use crate::command::Command;
use crate::effects::inbox::Inbox;
use crate::effects::jobs::Jobs;
use crate::effects::outbound::Outbound;
use crate::effects::timers::Timers;
use crate::effects::topics::Topics;
use crate::ids::Slot;
use crate::limits::host::Limits;
use crate::limits::in_force::LimitsInForce;
use crate::service::probation::Probations;
use crate::service::registry::Services;
use crate::session::flow_control::FlowControl;
use crate::session::output::OutputWriter;
use crate::session::quarantine::Quarantines;
use crate::session::send_queue::SendQueue;
use crate::session::table::Sessions;
use crate::store::host_records::HostRecords;
use crate::store::records::Store;
use crate::store::shared::SharedRecords;
use crate::tables::index::Tables;
use crate::tables::owner::TableOwners;

/// The state of a host, but for sockets, files, threads and loaded code.
pub(crate) struct HostState {
    /// Time of the pass (CLOCK_MONOTONIC, nanoseconds).
    pub(crate) now_ns: u64,
    /// Whether the host stops: every session has had its last turn.
    pub(crate) stopping: bool,
    pub(crate) store: Store,
    pub(crate) shared: SharedRecords,
    pub(crate) host_records: HostRecords,
    pub(crate) limits: LimitsInForce,
    pub(crate) services: Services,
    pub(crate) probations: Probations,
    pub(crate) sessions: Sessions,
    pub(crate) output: OutputWriter,
    pub(crate) send_queue: SendQueue,
    pub(crate) flow: FlowControl,
    pub(crate) quarantines: Quarantines,
    pub(crate) inbox: Inbox,
    pub(crate) timers: Timers,
    pub(crate) jobs: Jobs,
    pub(crate) outbound: Outbound,
    pub(crate) topics: Topics,
    pub(crate) tables: Tables,
    pub(crate) owners: TableOwners,
    /// Commands for the shell, in order.
    pub(crate) commands: Vec<Command>,
}

impl HostState {
    /// A host without services over a store.
    pub(crate) fn new(limits: Limits, store: Store) -> HostState {
        HostState {
            now_ns: 0,
            stopping: false,
            store,
            shared: SharedRecords::default(),
            host_records: HostRecords::default(),
            limits: LimitsInForce::new(limits),
            services: Services::default(),
            probations: Probations::default(),
            sessions: Sessions::default(),
            output: OutputWriter::default(),
            send_queue: SendQueue::default(),
            flow: FlowControl::default(),
            quarantines: Quarantines::default(),
            inbox: Inbox::default(),
            timers: Timers::default(),
            jobs: Jobs::default(),
            outbound: Outbound::default(),
            topics: Topics::default(),
            tables: Tables::default(),
            owners: TableOwners::default(),
            commands: Vec::new(),
        }
    }

    /// The limits of a session's service; the host's, if there is no such session.
    #[inline]
    pub(crate) fn limits_of(&self, slot: Slot) -> &Limits {
        self.sessions.get(slot).map_or(self.limits.host(), |s| self.limits.of(s.service))
    }
}
