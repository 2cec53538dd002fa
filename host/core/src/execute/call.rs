//! Calls of a service's code with a session's state.
//!
//! A call reads the host, and writes nothing but the staging buffers. So it may be repeated, and
//! dropping its outcome leaves no trace in the host. The state is copied out of the store for
//! each call: O(bytes of the state). Two calls never overlap, as they share one [`Executor`].
//!
//! | function | state | used by |
//! | --- | --- | --- |
//! | `attempt` | the stored one | batches |
//! | `call` | given, of any build | the fallback |
//! | `rehearse` | the stored one, without actions | sweeps, operators |
//! | `reread` | a given one, without actions | checks before an operator restore |
//! | `retrace` | the stored one, with the question what becomes of a dialogue | rehearsals |
//!
//! A call can't fail in itself. A fault of the handler, or a state that can't be read, is in the
//! buffers afterwards.

use super::Executor;
use crate::effects::running_batch::RunningBatch;
use crate::framing::Framing;
use crate::host_state::HostState;
use crate::host_state::framings::kind_of;
use crate::ids::{ServiceId, Slot};
use crate::service::convert::{Reread, convert_value};
use crate::tls::facts;
use crate::turn::code::{Batch, Code};
use crate::turn::context::Convert;
use crate::turn::context::TurnContext;
use crate::turn::fault::Fault;
use crate::turn::host_numbers::HostNumbers;
use crate::turn::noted::{self, TapNames};
use crate::turn::staging::{Buffers, Staging};
use crate::turn::stored_tables::StoredTables;
use crate::turn::tap::TurnTap;
use greenroom_state::abi::{Action, Bytes, action, fault};
use greenroom_state::address::Peer;

/// The code that is called, and how it sees the entries of tables.
pub(crate) struct Callee<'a> {
    /// Code of the build, for the service of the session.
    pub(crate) code: &'a dyn Code,
    /// Code that frames messages, if the framing is a library's own. Sessions share their framings,
    /// so a canary's candidate sends by that of the build that serves.
    pub(crate) framing: &'a dyn Code,
    /// Generation of the build. The board names it, so that a death is blamed on it.
    pub(crate) generation: u64,
    /// Conversion of a stored value to the version that this build reads.
    pub(crate) convert: &'a Convert<'a>,
}

/// Actions of one session for one call.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    /// Slot of the session, which may stand for a service's own turns.
    pub(crate) slot: Slot,
    /// Actions, oldest first. None: the state is only read, and handed over.
    pub(crate) actions: &'a [Action<'a>],
    /// Depths of the actions, if they come from an inbox.
    pub(crate) running: &'a RunningBatch,
}

/// Calls a handler with a state and its version; `None`: there is none. Leaves the result in
/// `buffers`. Returns the flags of [`Code::run`].
///
/// If there is no session in the slot, the buffers keep the outcome of the previous call:
/// callers look for the session first.
pub(crate) fn call(
    host: &HostState,
    callee: &Callee<'_>,
    call: Call<'_>,
    state: Option<(u32, &[u8])>,
    buffers: &mut Buffers,
) -> u32 {
    let Some(session) = host.sessions.get(call.slot) else { return 0 };
    let batch = Batch {
        service: session.service,
        generation: callee.generation,
        session: session.id,
        turn: session.turns,
        now_ns: host.now_ns,
        state,
        actions: call.actions,
        timed: host.services[session.service].canary.is_some(),
    };
    let framing = host.services[session.service].framings.get(session.framing_sent());
    // Out of the buffers meanwhile, so that the context can lend it.
    let tap = buffers.tap.take();
    let reads = tap.as_deref().and_then(TurnTap::reads);
    let context = TurnContext {
        tables: StoredTables { store: &host.store, tables: &host.tables, reads },
        convert: callee.convert,
        limits: host.limits.of(session.service),
        session,
        timers: &host.timers,
        jobs: &host.jobs,
        outbound: &host.outbound,
        slot: call.slot,
        topics: &host.topics,
        session_next: &|after| host.sessions.next_open(session.service, after),
        topic_next: &|from| {
            let own = host.services.of_same_library(session.service);
            own.filter_map(|service| host.topics.next(service, from)).min()
        },
        names: &host.names,
        birth: &host.birth,
        buckets: &host.buckets,
        pass_number: [host.store.epoch(), host.services[session.service].turns],
        host_numbers: &|| numbers(host, session.service, callee.generation),
        subscribers: &|topic| host.topics.count_in(host.services.of_same_library(session.service), topic),
        own_framing: &|message| callee.framing.encode(message),
        encodes: Some(framing).filter(|f| f.encodes() || session.in_socket()),
        service: &|name| host.services.dialled(name),
        fact: &|name| fact(host, callee.generation, &call, name),
        // Looked up when a turn broadcasts twice in a row, and not before: O(services).
        keeps_messages_apart: &|| host.services.any_encodes() || !host.sockets.is_empty(),
        depths: call.running.depths(),
        now_ns: host.now_ns,
        wall_ns: host.wall_ns,
        is_watched: tap.is_some(),
        reads,
    };
    let mut staging = Staging::new(buffers, &context, call.actions.len());
    let flags = callee.code.run(&batch, &mut staging);
    // A handler that returns in the middle of a turn has not ended it, so the turn does not
    // count.
    buffers.cut();
    if let Some(mut tap) = tap {
        note(host, callee, (&batch, call), buffers, &mut tap);
        buffers.tap = Some(tap);
    }
    flags
}

/// Notes a turn that is watched, behind its call. Rehearsals are no turns.
#[cold]
fn note(
    host: &HostState,
    callee: &Callee<'_>,
    (batch, call): (&Batch<'_>, Call<'_>),
    buffers: &Buffers,
    tap: &mut TurnTap,
) {
    let (Some(session), Some(action)) = (host.sessions.get(call.slot), batch.actions.first()) else { return };
    let service = &host.services[batch.service];
    let builds = [
        service.standby.as_ref().map(|b| (&b.build, &b.offer)),
        service.canary.as_ref().map(|c| (&c.build.build, &c.build.offer)),
        service.build.as_ref().map(|b| (b, &service.offer)),
    ];
    let build = builds.into_iter().flatten().find(|(b, _)| b.generation == callee.generation);
    let names = TapNames {
        service: &service.offer.name,
        build: build.map_or("", |(b, _)| &b.hash),
        version: build.map_or(0, |(_, offer)| offer.shape.version),
        framing: *service.framings.get(session.framing_sent()),
        depth: call.running.depths().first().copied().unwrap_or(0),
        wall_ns: host.wall_ns,
        action: callee.code.bytes_of(action),
        services: &|id| host.services[id].offer.name.clone(),
    };
    noted::note(tap, batch, session, buffers, &names);
}

/// Fact that any turn of a call may ask for.
fn fact(host: &HostState, generation: u64, call: &Call<'_>, name: &str) -> Option<String> {
    let session = host.sessions.get(call.slot)?;
    let is = |yes: bool| Some(if yes { "yes" } else { "no" }.to_owned());
    match name {
        "endpoint" => Some(match call.actions.first() {
            // A datagram of the service itself came by no session's framing.
            Some(a) if a.kind == action::DATAGRAM => Framing::Datagrams { bytes_max: 0 }.kind().to_owned(),
            _ => kind_of(host, session),
        }),
        "generation" => Some(generation.to_string()),
        "transport" => Some(transport(&session.peer).to_owned()),
        "tls" => is(session.over_tls()),
        "outbound" => is(session.outbound),
        _ if session.over_tls() => {
            let facts = host.tls.facts(&host.store, call.slot);
            facts::find(facts, name).map(|value| String::from_utf8_lossy(value).into_owned())
        }
        _ => None,
    }
}

/// Name of what carries a session's bytes to its peer, or to the peer's proxy.
fn transport(peer: &Peer) -> &'static str {
    match peer {
        Peer::Udp(_) => "udp",
        other if other.is_over_tcp() => "tcp",
        _ => "unix",
    }
}

/// Numbers of the host, for a turn of a service.
fn numbers(host: &HostState, service: ServiceId, generation: u64) -> HostNumbers {
    let of = &host.services[service];
    HostNumbers {
        sessions: host.sessions.len() as u64,
        service_sessions: of.sessions as u64,
        turns: of.turns,
        faults: of.faults,
        generation,
        uptime_ns: host.birth.age_ns(host.now_ns),
        store_bytes: host.store.bytes() as u64,
        store_bytes_max: host.limits.host().store_bytes_max as u64,
    }
}

/// Calls the build that runs a session with a state and its version. Entries of tables are
/// converted to the versions of their owners.
pub(crate) fn call_own(
    host: &HostState,
    of: Call<'_>,
    state: Option<(u32, &[u8])>,
    buffers: &mut Buffers,
) -> u32 {
    let Some(session) = host.sessions.get(of.slot) else { return 0 };
    let service = &host.services[session.service];
    let build = service.build_of(session.id);
    let convert = |table: &str, stored: u32, value: &[u8]| {
        convert_value(&host.services, &host.owners, table, stored, value)
    };
    let (code, framing, generation) = (build.code, &*service.code, build.generation);
    call(host, &Callee { code, framing, generation, convert: &convert }, of, state, buffers)
}

/// Calls the build that runs a session with the session's stored state. A state that a newer
/// build left is downgraded first. If that fails, the handler is not called, and the fault is
/// one of the state.
pub(super) fn attempt(host: &HostState, executor: &mut Executor, of: Call<'_>) -> u32 {
    let Executor { buffers, state, .. } = executor;
    let Some(session) = host.sessions.get(of.slot) else { return 0 };
    // The copy is what a downgrade replaces in place.
    state.clear();
    let Some(r) = session.state else { return call_own(host, of, None, buffers) };
    host.store.read(r, |b| state.extend_from_slice(b));
    let service = &host.services[session.service];
    let wanted = service.build_of(session.id).written.version;
    match service.downgrade_state(session.state_version, wanted, state) {
        Ok(version) => call_own(host, of, Some((version, state)), buffers),
        Err(message) => {
            buffers.clear();
            let message = format!("its state can't be read: {message}");
            buffers.fault = Some(Fault { kind: fault::STATE, message, file: String::new(), line: 0 });
            0
        }
    }
}

/// Lets the build that runs a session read its state, and migrate it if it must, as its next
/// turn would. Nothing of it is kept: the caller stores the result, or drops it. Fails with the
/// handler's words, or if the result is over `state_bytes_max`.
pub(crate) fn rehearse(host: &HostState, executor: &mut Executor, slot: Slot) -> Result<Reread, String> {
    let Some(s) = host.sessions.get(slot) else { return Err("it is gone".into()) };
    let before = s.state.map(|r| (s.state_version, host.store.read(r, <[u8]>::to_vec)));
    attempt(host, executor, Call { slot, actions: &[], running: &RunningBatch::default() });
    let buffers = &mut executor.buffers;
    if let Some(fault) = buffers.fault.take() {
        return Err(fault.message);
    }
    let after = buffers.has_state.then(|| buffers.state.clone());
    let max = host.limits.of(s.service).state_bytes_max;
    match after.as_ref().is_some_and(|a| a.len() > max) {
        true => Err("its state would be over limit state_bytes_max".into()),
        false => Ok(Reread { before, after }),
    }
}

/// Asks the build that runs a session what becomes of the dialogue that the session is in.
/// Returns its answer as JSON; `None`: it finds none. Nothing of that turn is kept. An error is
/// the build's, or says that it is too old.
pub(crate) fn retrace(
    host: &HostState,
    executor: &mut Executor,
    slot: Slot,
) -> Result<Option<String>, String> {
    let session = host.sessions.get(slot).ok_or("it is gone")?;
    if !host.services[session.service].build_of(session.id).code.knows(action::DIALOGUE) {
        return Err("it was built before ABI 1.8".into());
    }
    let asks = Action::new(action::DIALOGUE, Bytes::EMPTY);
    attempt(host, executor, Call { slot, actions: &[asks], running: &RunningBatch::default() });
    match executor.buffers.fault.take() {
        None => Ok(None),
        Some(told) if told.kind == fault::DIALOGUE => Ok(Some(told.message)),
        Some(fault) => Err(fault.message),
    }
}

/// Lets the build that runs a session read a state as if it were stored, and write it. Returns
/// what it would store; `None`: it keeps no state. A newer state is downgraded first. Fails with
/// the words of the handler, or if no build at hand can downgrade it.
pub(crate) fn reread(
    host: &HostState,
    executor: &mut Executor,
    slot: Slot,
    service: ServiceId,
    (version, packed): (u32, &[u8]),
) -> Result<Option<Vec<u8>>, String> {
    let Executor { buffers, state, .. } = executor;
    let s = &host.services[service];
    let id = host.sessions.get(slot).map_or(0, |session| session.id);
    let wanted = s.build_of(id).written.version;
    state.clear();
    match version > wanted {
        true => *state = s.left_by_newer(version, wanted, packed)?,
        false => state.extend_from_slice(packed),
    }
    // A batch without actions, and not `convert`: libraries of ABI 1.0 convert nothing. The
    // board names the session meanwhile, so a death is blamed on it.
    let of = Call { slot, actions: &[], running: &RunningBatch::default() };
    call_own(host, of, Some((version.min(wanted), state)), buffers);
    let kept = buffers.has_state.then(|| buffers.state.clone());
    buffers.fault.take().map_or(Ok(kept), |fault| Err(fault.message))
}
