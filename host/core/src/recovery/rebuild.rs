//! Rebuilds the host's state from the records of a process that died.
//!
//! The records, as [`crate::store::records::Store::recover`] finds them, tell everything up to
//! the last commit. `super::reconcile` compares each session with the kernel's byte counts
//! beyond it. A session that lost a part of itself would go on as another one: it is given up
//! by name.
//!
//! Records lie in the order of their places, which means nothing, so they are taken in by need.
//! Services come first, as sessions hold their numbers. Sessions come next, as all other
//! records have owners. Output and actions come last: they have an order of their own, and name
//! shared payloads.
//!
//! A rebuild runs no handler code and writes no record. It only deletes records that have no
//! use, and a deletion counts with the first commit. So a process that dies before that commit
//! leaves its successor what it found itself.
//!
//! Deadlines and the send queue are in no record: deadlines begin anew, and the queue follows from
//! the output. Costs O(n log n) in the records.
//!
//! Nothing fails: a record that cannot be read costs the session, entry or line that it belongs
//! to, and is named in `Rebuilt::lost`.

use super::dependent::{
    recover_birth, recover_framings, recover_input_tail, recover_sockets, recover_tables, recover_tls,
    recover_wait,
};
use super::lost::describe;
use super::reconcile::give_up;
use crate::command::Command;
use crate::effects::holder::Holder;
use crate::framing::frame::FrameState;
use crate::host_state::HostState;
use crate::host_state::end::set_deadline;
use crate::host_state::framings::enter_framings;
use crate::host_state::state::input_len;
use crate::ids::{ServiceId, Slot};
use crate::limits::host::Limits;
use crate::pass::timeout::{arm_timeout, frame_waits};
use crate::service::registry::Service;
use crate::session::blocked::Blocked;
use crate::session::life::{Life, Quarantine, Session};
use crate::session::output::{piece_len, piece_offset, recover_piece};
use crate::session::terms::Terms;
use crate::store::kind::Kind;
use crate::store::layout::Ref;
use crate::store::recover::{Found, Recovered};
use greenroom_state::session_record::SessionRecord;
use std::collections::{BTreeMap, BTreeSet};

/// Session that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survivor {
    /// Slot in which the shell is to keep its connection.
    pub slot: Slot,
    /// Number of the session.
    pub id: u64,
}

/// State that was rebuilt. Its services have names and no code yet.
pub(crate) struct Rebuilt {
    /// Host as of the last commit, at the time of the rebuild.
    pub(crate) host: HostState,
    /// The sessions, in the order of their numbers.
    pub(crate) survivors: Vec<Survivor>,
    /// Losses in words, for the log.
    pub(crate) lost: Vec<String>,
}

/// Rebuilds the state from the records that were found. `now_ns` is the clock of
/// [`crate::input::Input::PassBegins`], which goes on across processes. O(n log n) in the
/// records.
pub(crate) fn rebuild(limits: Limits, found: Recovered, now_ns: u64) -> Rebuilt {
    let Recovered { store, records, erased, mended, without_secrets } = found;
    let mut lost: Vec<_> = erased.iter().map(describe).collect();
    if mended > 0 {
        lost.push(format!("{mended} bytes of the directory of the store; the blocks told them again"));
    }
    let mut host = HostState::new(limits, store);
    // Before the sessions, whose deadlines count from here.
    host.now_ns = now_ns;
    recover_services(&mut host, &records);
    let mut survivors = recover_sessions(&mut host, &records, &mut lost);
    recover_tls(&mut host, &records);
    recover_sockets(&mut host, &records);
    let lacking = recover_records(&mut host, &records, &mut lost);
    let parts = erased.iter().filter(|e| Kind::from_number(e.kind).is_some_and(Kind::is_part_of_session));
    let damaged: BTreeSet<u64> = parts.map(|e| e.key).chain(lacking).collect();
    // Last, since only now all parts of a session have been seen.
    survivors.retain(|s| match lacks(&host, s.slot, damaged.contains(&s.id), without_secrets) {
        Some(part) => {
            lost.push(format!("session {}: {part}", s.id));
            give_up(&mut host, s.slot);
            false
        }
        None => true,
    });
    Rebuilt { host, survivors, lost }
}

/// Takes in the names of services, in the order of their numbers. Their code comes with the
/// builds. A name behind a gap is deleted.
fn recover_services(host: &mut HostState, records: &[Found]) {
    let mut names: Vec<_> = records.iter().filter(|f| f.kind == Kind::Service).collect();
    names.sort_by_key(|f| f.key);
    for f in names {
        let name = host.store.read(f.at, |b| String::from_utf8_lossy(b).into_owned());
        // Numbers have no gaps. If a name is lost, the services behind it are too, and their
        // sessions are named as lost.
        if f.key == host.services.len() as u64 {
            host.sessions.add_service();
            host.limits.add_service(&name);
            host.services.push(Service::unserved(name));
        } else {
            // The next new service gets this number, and its name needs the place.
            host.store.delete(f.at);
        }
    }
    for f in records.iter().filter(|f| f.kind == Kind::Framings) {
        recover_framings(host, f.key, f.at);
    }
}

/// Takes in the records of sessions. Slots are given in the order of the numbers, from 0. A
/// record that cannot be read, or names no service or framing, is deleted: the session is lost.
fn recover_sessions(host: &mut HostState, records: &[Found], lost: &mut Vec<String>) -> Vec<Survivor> {
    let mut survivors = Vec::new();
    let mut sessions: Vec<_> = records.iter().filter(|f| f.kind == Kind::Session).collect();
    sessions.sort_by_key(|f| f.key);
    for f in sessions {
        let record = host.store.read(f.at, SessionRecord::decode);
        let knows = |r: &SessionRecord| {
            host.services.all().get(usize::from(r.service)).is_some_and(|s| s.framings.has(r.framing))
        };
        match record.filter(|r| r.id == f.key && knows(r)) {
            Some(record) => {
                let slot = Slot(survivors.len() as u32);
                recover_session(host, slot, f.at, &record);
                survivors.push(Survivor { slot, id: record.id });
            }
            None => {
                lost.push(format!("session {}: its record can't be read", f.key));
                host.store.delete(f.at);
            }
        }
    }
    survivors
}

/// Takes in all records but those of services and sessions. Returns the sessions that lack a
/// part of an action.
fn recover_records(host: &mut HostState, records: &[Found], lost: &mut Vec<String>) -> Vec<u64> {
    // By session and offset: pieces must follow each other in the stream.
    let mut output: BTreeMap<(u64, u64), Ref> = BTreeMap::new();
    // Kept for later: a payload may lie behind the action that names it, and output behind the
    // wait for it.
    let (mut actions, mut waits, mut tails) = (Vec::new(), Vec::new(), Vec::new());
    for f in records {
        let owner = host.sessions.slot_of(f.key).and_then(|slot| host.sessions.get(slot));
        let (owner_lives, asked_by) = (owner.is_some(), owner.map(|s| s.service));
        let services = host.services.len();
        let HostState { store, shared, timers, jobs, outbound, host_records, .. } = host;
        match f.kind {
            Kind::Session
            | Kind::Service
            | Kind::Entry
            | Kind::Drop
            | Kind::Expiring
            | Kind::Tls
            | Kind::TlsInput
            | Kind::TlsFacts
            | Kind::TlsDue
            | Kind::Socket => {}
            Kind::Output | Kind::Shared => {
                let offset = store.read(f.at, piece_offset);
                // No session writes two pieces at one offset: without this the stream would
                // have bytes twice.
                if let Some(other) = output.insert((f.key, offset), f.at) {
                    store.delete(other);
                }
            }
            Kind::Action => actions.push((f.key, f.at)),
            Kind::Waits => waits.push((f.key, f.at)),
            Kind::InputTail => tails.push((f.key, f.at)),
            Kind::Payload => shared.recover(f.key, f.at),
            Kind::Timer => timers.recover(store, f.key, f.at, owner_lives),
            Kind::Job => jobs.recover(store, f.key, f.at, owner_lives, services),
            Kind::Connect => outbound.recover(store, f.key, f.at, asked_by, services),
            Kind::State
            | Kind::Input
            | Kind::Framing
            | Kind::Topics
            | Kind::Subscription
            | Kind::Name
            | Kind::Terms
            | Kind::Quarantine => recover_part(host, f),
            Kind::Library
            | Kind::Undo
            | Kind::Ports
            | Kind::Served
            | Kind::Ledger
            | Kind::Config
            | Kind::HeldFile
            | Kind::Canary
            | Kind::Framings => {
                host_records.recover(store, f.kind, f.key, f.at);
            }
            Kind::Birth => recover_birth(host, f),
        }
    }
    recover_tables(host, records, lost);
    for ((id, offset), r) in output {
        recover_output(host, id, offset, r);
    }
    for (id, r) in tails {
        recover_input_tail(host, id, r);
    }
    recover_actions(host, &actions, waits)
}

/// Takes in waiting actions and waits, behind all that they name. Returns the sessions that lack a
/// part of an action.
fn recover_actions(host: &mut HostState, actions: &[(u64, Ref)], waits: Vec<(u64, Ref)>) -> Vec<u64> {
    let HostState { store, shared, outbound, inbox, sessions, .. } = host;
    // The shell may remember numbers of a pass that never counted, so none of them is used
    // again.
    outbound.skip_numbers(store);
    let lacking = inbox.recover(store, shared, actions, |id| sessions.slot_of(id));
    // Named by damaged records alone, so nobody would ever free it.
    for number in shared.unused() {
        shared.release_unused(store, number);
    }
    // Behind the output and the actions that they are for.
    for (id, r) in waits {
        recover_wait(host, id, r);
    }
    lacking
}

/// Returns the part that a session lacks of what its record says, in words. `without_secrets`: no
/// copy has those.
fn lacks(host: &HostState, slot: Slot, damaged: bool, without_secrets: bool) -> Option<&'static str> {
    let s = host.sessions.get(slot)?;
    let record = host.store.read(s.record?, SessionRecord::decode)?;
    let lost_state = record.state_version != 0 && s.state.is_none();
    // 0 in the record asks for nothing; any other number must be met exactly.
    let lost_input = record.input_bytes as usize != input_len(host, slot) && record.input_bytes != 0;
    let lost_framing = usize::from(record.frame_bytes) != s.frame.stored().len();
    let lost_topics = record.topics != s.to_record().topics && record.topics != 0;
    [
        (lost_state, "its state is lost"),
        (lost_input, "its input is lost"),
        (lost_framing, "its framing state is lost"),
        (lost_topics, "its topics are lost"),
        (record.tls_due && host.tls_due.of(slot).is_none(), "its handshake is lost"),
        (record.in_socket && !host.sockets.has(slot), "its stream of WebSocket is lost"),
        (s.over_tls() && !without_secrets && !host.tls.has(slot), "its keys are lost"),
        (damaged, "a part of it is damaged"),
    ]
    .into_iter()
    .find_map(|(lost, what)| lost.then_some(what))
}

/// Makes a session of its record. Its parts are not there yet.
fn recover_session(host: &mut HostState, slot: Slot, at: Ref, r: &SessionRecord) {
    let service = ServiceId(r.service);
    let mut s = Session::new(r.id, service, r.peer.clone(), r.opened_at_ms);
    s.record = Some(at);
    s.life = r.life;
    s.peer_done = r.peer_done;
    s.turns = r.turns;
    // All output counts as sent until a piece of it is found, which sets the number back.
    (s.bytes_in, s.bytes_out, s.bytes_sent) = (r.bytes_in, r.bytes_out, r.bytes_out);
    // Before the first pass, so no session counts as one whose peer has just spoken: all with
    // output left take their turn.
    s.heard_ns = host.now_ns.saturating_sub(1);
    s.block(Blocked::OpenedTurnDue, r.opened_turn_due);
    s.block(Blocked::HeldByHandler, r.held);
    s.outbound = r.outbound;
    s.recover_carrier(r, host.now_ns);
    s.frame.set_searched(r.frame_searched);
    // The version counts once the state's record is found.
    s.state_version = 0;
    s.framing = r.framing;
    host.services[service].count_session(r.id, true);
    enter_framings(host, &s);
    host.sessions.insert(slot, s);
    let (drain_ms, linger_ms) = (host.limits.host().drain_ms, host.limits.host().linger_ms);
    match r.life {
        Life::Open => arm_timeout(host, slot),
        // No record holds a deadline, so each session gets the whole time again.
        Life::Draining => set_deadline(host, slot, drain_ms),
        Life::Lingering => {
            set_deadline(host, slot, linger_ms);
            // The predecessor may have shut our end already; a second time does no harm.
            host.commands.push(Command::Shutdown(slot));
        }
    }
    // Kept input may hold whole messages: the session was blocked, or quarantined.
    host.sessions.resume(slot);
}

/// Takes in a record that belongs to a session. A record without its session is an orphan of a
/// damaged one, and is deleted.
fn recover_part(host: &mut HostState, f: &Found) {
    let slot = host.sessions.slot_of(f.key);
    // A service's own turns have no session record, but may be quarantined.
    if let Some(slot) = slot.filter(|s| s.is_service() && f.kind == Kind::Quarantine) {
        return recover_quarantine(host, slot, f.at);
    }
    let Some((slot, record)) = session_record(host, f.key) else { return host.store.delete(f.at) };
    let Some(s) = host.sessions.get_mut(slot) else { return };
    match f.kind {
        Kind::State => {
            s.state = Some(f.at);
            (s.state_version, s.state_fingerprint) = (record.state_version, record.state_fingerprint);
            // Counted only now that the state is there: a session without it holds no version.
            host.services[s.service].count_stored(0, record.state_version);
        }
        Kind::Input => {
            s.input = Some(f.at);
            // The peer gets the whole time for the rest of its frame again.
            frame_waits(host, slot, true);
        }
        Kind::Framing => {
            let state = host.store.read(f.at, |b| FrameState::new(0, b));
            match state.filter(|s| s.stored().len() == usize::from(record.frame_bytes)) {
                Some(state) => {
                    s.frame = state;
                    host.sessions.set_framing_record(slot, f.at);
                    // A framing with pings has a deadline for them.
                    arm_timeout(host, slot);
                }
                // The session's record names another one, or none. If it names one, `lacks`
                // finds that missing.
                None => host.store.delete(f.at),
            }
        }
        Kind::Quarantine => recover_quarantine(host, slot, f.at),
        Kind::Terms => match host.store.read(f.at, Terms::decode) {
            Some(terms) => {
                host.sessions.recover_terms(slot, terms, f.at, record.heard, host.now_ns);
                arm_timeout(host, slot);
            }
            None => host.store.delete(f.at),
        },
        Kind::Name => {
            let who = Holder { slot, id: s.id, service: s.service };
            host.names.recover(&mut host.store, who, f.at);
        }
        _ => {
            let service = s.service;
            match f.kind {
                Kind::Topics => host.topics.recover_list(&host.store, slot, service, f.at),
                _ => host.topics.recover(&mut host.store, slot, service, f.at),
            }
            s.topics = host.topics.count_of(slot) as u32;
        }
    }
}

/// Quarantines a session again that a predecessor quarantined for good. The record holds the
/// turn (u64), then the reason.
fn recover_quarantine(host: &mut HostState, slot: Slot, record: Ref) {
    let reason =
        |b: &[u8]| String::from_utf8_lossy(b.get(size_of::<u64>()..).unwrap_or_default()).into_owned();
    let reason = host.store.read(record, reason);
    if let Some(s) = host.sessions.get_mut(slot) {
        s.set_quarantine(Quarantine { reason, record: Some(record) });
        host.quarantines.insert(slot);
    }
}

/// Returns the slot and the record of a session that was found.
fn session_record(host: &HostState, id: u64) -> Option<(Slot, SessionRecord)> {
    let slot = host.sessions.slot_of(id)?;
    let r = host.sessions.get(slot)?.record?;
    Some((slot, host.store.read(r, SessionRecord::decode)?))
}

/// Takes in a piece of output. Pieces come in the order of their offsets, and must follow each
/// other to the stream's end.
fn recover_output(host: &mut HostState, id: u64, offset: u64, r: Ref) {
    let slot = host.sessions.slot_of(id).filter(|slot| !slot.is_service());
    // A missing piece is found when the session is compared with the kernel's counts.
    let Some(slot) = slot.filter(|_| recover_piece(&host.store, &mut host.shared, r)) else {
        return host.store.delete(r);
    };
    let len = piece_len(&host.store, r) as u64;
    let Some(s) = host.sessions.get_mut(slot) else { return };
    if s.output.is_empty() {
        // The first piece may have been sent in part: the kernel says how much of it.
        s.bytes_sent = offset;
    }
    s.output.push(r);
    s.bytes_out = s.bytes_out.max(offset + len);
}
