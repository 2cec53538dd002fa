//! Rebuilds the host's state from the records of a process that died.
//!
//! The records, as [`crate::store::records::Store::recover`] finds them, tell everything up to the
//! last commit. `super::reconcile` compares each session with the kernel's byte counts beyond it.
//! A session that lost a part of itself would go on as another one: it is given up by name.

use super::reconcile::give_up;
use crate::command::Command;
use crate::framing::frame::FrameState;
use crate::host_state::HostState;
use crate::host_state::end::set_deadline;
use crate::host_state::state::input_len;
use crate::ids::{ServiceId, Slot, service_of_number};
use crate::limits::host::Limits;
use crate::pass::timeout::{arm_timeout, frame_waits};
use crate::service::registry::Service;
use crate::session::blocked::Blocked;
use crate::session::life::{Life, Quarantine, Session};
use crate::session::output::{piece_len, piece_offset, recover_piece};
use crate::store::kind::Kind;
use crate::store::layout::Ref;
use crate::store::recover::{Found, Recovered};
use greenroom_state::session_record::SessionRecord;
use std::collections::{BTreeMap, BTreeSet};

/// A session that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survivor {
    /// Slot in which the shell is to keep its connection.
    pub slot: Slot,
    /// Number of the session.
    pub id: u64,
}

/// The state that was rebuilt.
pub(crate) struct Rebuilt {
    pub(crate) host: HostState,
    /// The sessions, in the order of their numbers.
    pub(crate) survivors: Vec<Survivor>,
    /// Losses, in words.
    pub(crate) lost: Vec<String>,
}

/// Kinds of records without which a session is another one.
const PARTS: [Kind; 11] = [
    Kind::State,
    Kind::Input,
    Kind::Framing,
    Kind::Output,
    Kind::Shared,
    Kind::Topics,
    Kind::Quarantine,
    Kind::Action,
    Kind::Timer,
    Kind::Job,
    Kind::Connect,
];

/// Rebuilds the state from the records that were found. `now_ns` is the clock of
/// [`crate::input::Input::PassBegins`], which goes on across processes. O(n log n) in the records.
pub(crate) fn rebuild(limits: Limits, found: Recovered, now_ns: u64) -> Rebuilt {
    let Recovered { store, records, damaged } = found;
    let mut lost: Vec<_> = damaged.iter().map(|(kind, key)| describe(*kind, *key)).collect();
    let mut host = HostState::new(limits, store);
    host.now_ns = now_ns;
    recover_services(&mut host, &records);
    let mut survivors = recover_sessions(&mut host, &records, &mut lost);
    let lacking = recover_records(&mut host, &records, &mut lost);
    let parts =
        damaged.iter().filter(|(kind, _)| Kind::from_number(*kind).is_some_and(|k| PARTS.contains(&k)));
    let damaged: BTreeSet<u64> = parts.map(|(_, key)| *key).chain(lacking).collect();
    survivors.retain(|s| match lacks(&host, s.slot, damaged.contains(&s.id)) {
        Some(part) => {
            lost.push(format!("session {}: {part}", s.id));
            give_up(&mut host, s.slot);
            false
        }
        None => true,
    });
    Rebuilt { host, survivors, lost }
}

fn recover_services(host: &mut HostState, records: &[Found]) {
    let mut names: Vec<_> = records.iter().filter(|f| f.kind == Kind::Service).collect();
    names.sort_by_key(|f| f.key);
    for f in names {
        let name = host.store.read(f.at, |b| String::from_utf8_lossy(b).into_owned());
        // Their numbers have no gaps. If one is lost, those behind it are too, and their sessions
        // are named.
        if f.key == host.services.len() as u64 {
            host.sessions.add_service();
            host.limits.add_service(&name);
            host.services.push(Service::unserved(name));
        } else {
            // Its number will be another service's.
            host.store.delete(f.at);
        }
    }
}

fn recover_sessions(host: &mut HostState, records: &[Found], lost: &mut Vec<String>) -> Vec<Survivor> {
    let mut survivors = Vec::new();
    let mut sessions: Vec<_> = records.iter().filter(|f| f.kind == Kind::Session).collect();
    sessions.sort_by_key(|f| f.key);
    for f in sessions {
        let record = host.store.read(f.at, SessionRecord::decode);
        match record.filter(|r| r.id == f.key && usize::from(r.service) < host.services.len()) {
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

/// Takes in all records but those of services and sessions. Returns the sessions that lack a part
/// of an action.
fn recover_records(host: &mut HostState, records: &[Found], lost: &mut Vec<String>) -> Vec<u64> {
    let mut output: BTreeMap<(u64, u64), Ref> = BTreeMap::new();
    let mut actions = Vec::new();
    for f in records {
        let owner_lives = host.sessions.slot_of(f.key).is_some();
        let services = host.services.len();
        let HostState { store, shared, timers, jobs, outbound, host_records, .. } = host;
        match f.kind {
            Kind::Session | Kind::Service | Kind::Entry => {}
            Kind::Output | Kind::Shared => {
                let offset = store.read(f.at, piece_offset);
                if let Some(other) = output.insert((f.key, offset), f.at) {
                    store.delete(other);
                }
            }
            Kind::Action => actions.push((f.key, f.at)),
            Kind::Payload => shared.recover(f.key, f.at),
            Kind::Timer => timers.recover(store, f.key, f.at, owner_lives),
            Kind::Job => jobs.recover(store, f.key, f.at, owner_lives, services),
            Kind::Connect => outbound.recover(store, f.key, f.at, owner_lives, services),
            Kind::State | Kind::Input | Kind::Framing | Kind::Topics | Kind::Quarantine => {
                recover_part(host, f);
            }
            Kind::Library | Kind::Ports | Kind::Served | Kind::Ledger | Kind::Config => {
                host_records.recover(store, f.kind, f.key, f.at);
            }
        }
    }
    let entries = records.iter().filter(|f| f.kind == Kind::Entry);
    for r in host.tables.recover(&host.store, entries) {
        lost.push("an entry of a table: it can't be read".into());
        host.store.delete(r);
    }
    for ((id, offset), r) in output {
        recover_output(host, id, offset, r);
    }
    let HostState { store, shared, outbound, inbox, sessions, .. } = host;
    outbound.skip_numbers(store);
    let lacking = inbox.recover(store, shared, &actions, |id| sessions.slot_of(id));
    for number in shared.unused() {
        shared.release_unused(store, number);
    }
    lacking
}

/// The part that a session lacks of what its record says, in words.
fn lacks(host: &HostState, slot: Slot, damaged: bool) -> Option<&'static str> {
    let s = host.sessions.get(slot)?;
    let record = host.store.read(s.record?, SessionRecord::decode)?;
    let lost_state = record.state_version != 0 && s.state.is_none();
    let lost_input = record.input_bytes as usize != input_len(host, slot) && record.input_bytes != 0;
    let lost_framing = usize::from(record.frame_bytes) != s.frame.stored().len();
    let lost_topics = usize::from(record.topics) != s.topics().len() && record.topics != 0;
    [
        (lost_state, "its state is lost"),
        (lost_input, "its input is lost"),
        (lost_framing, "its framing state is lost"),
        (lost_topics, "its topics are lost"),
        (damaged, "a part of it is damaged"),
    ]
    .into_iter()
    .find_map(|(lost, what)| lost.then_some(what))
}

fn recover_session(host: &mut HostState, slot: Slot, at: Ref, r: &SessionRecord) {
    let service = ServiceId(r.service);
    let mut s = Session::new(r.id, service, r.peer.clone(), r.opened_at_ms);
    s.record = Some(at);
    s.life = r.life;
    s.peer_done = r.peer_done;
    s.turns = r.turns;
    (s.bytes_in, s.bytes_out, s.bytes_sent) = (r.bytes_in, r.bytes_out, r.bytes_out);
    // Before the first pass: nobody is answered in it, all that have output left take their turn.
    s.heard_ns = host.now_ns.saturating_sub(1);
    s.block(Blocked::OpenedTurnDue, r.opened_turn_due);
    s.block(Blocked::HeldByHandler, r.held);
    s.outbound = r.outbound;
    s.frame.searched = r.frame_searched;
    // The state's version counts once its record is found.
    s.state_version = 0;
    host.services[service].sessions += 1;
    host.sessions.insert(slot, s);
    let (drain_ms, linger_ms) = (host.limits.host().drain_ms, host.limits.host().linger_ms);
    match r.life {
        Life::Open => arm_timeout(host, slot),
        Life::Draining => set_deadline(host, slot, drain_ms),
        Life::Lingering => {
            set_deadline(host, slot, linger_ms);
            // Perhaps our end was shut already; twice does no harm.
            host.commands.push(Command::Shutdown(slot));
        }
    }
    // Kept input may hold whole messages: the session was blocked, or quarantined.
    host.sessions.resume(slot);
}

/// Takes in a record that belongs to a session. One without its session is an orphan of a damaged
/// record.
fn recover_part(host: &mut HostState, f: &Found) {
    let slot = host.sessions.slot_of(f.key);
    if let Some(slot) = slot.filter(|s| s.is_service() && f.kind == Kind::Quarantine) {
        return recover_quarantine(host, slot, f.at);
    }
    let Some((slot, record)) = session_record(host, f.key) else { return host.store.delete(f.at) };
    let Some(s) = host.sessions.get_mut(slot) else { return };
    match f.kind {
        Kind::State => {
            s.state = Some(f.at);
            (s.state_version, s.state_fingerprint) = (record.state_version, record.state_fingerprint);
            host.services[s.service].count_stored(0, record.state_version);
        }
        Kind::Input => {
            s.input = Some(f.at);
            frame_waits(host, slot, true);
        }
        Kind::Framing => {
            let state = host.store.read(f.at, |b| FrameState::new(0, b));
            match state.filter(|s| s.stored().len() == usize::from(record.frame_bytes)) {
                Some(state) => {
                    s.frame = state;
                    host.sessions.set_framing_record(slot, f.at);
                }
                // Not what the session's record names. The session lacks it if that names one.
                None => host.store.delete(f.at),
            }
        }
        Kind::Quarantine => recover_quarantine(host, slot, f.at),
        _ => {
            let names = host.store.read(f.at, |b| String::from_utf8_lossy(b).into_owned());
            for name in names.lines() {
                host.topics.add(name, slot);
                s.subscriptions().topics.push(name.into());
            }
            s.subscriptions().record = Some(f.at);
        }
    }
}

/// Quarantines a session again that a predecessor quarantined for good.
fn recover_quarantine(host: &mut HostState, slot: Slot, record: Ref) {
    let reason =
        |b: &[u8]| String::from_utf8_lossy(b.get(size_of::<u64>()..).unwrap_or_default()).into_owned();
    let reason = host.store.read(record, reason);
    if let Some(s) = host.sessions.get_mut(slot) {
        s.set_quarantine(Quarantine { reason, record: Some(record) });
        host.quarantines.insert(slot);
    }
}

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
        s.bytes_sent = offset;
    }
    s.output.push(r);
    s.bytes_out = s.bytes_out.max(offset + len);
}

fn describe(kind: u8, key: u64) -> String {
    let what = match Kind::from_number(kind) {
        Some(Kind::Session) => "the record",
        Some(Kind::State) => "the state",
        Some(Kind::Input) => "input",
        Some(Kind::Framing) => "the state of the framing",
        Some(Kind::Output | Kind::Shared) => "output",
        Some(Kind::Topics) => "the topics",
        Some(Kind::Entry) => return "an entry of a table: it is damaged".into(),
        Some(Kind::Quarantine) => "the quarantine",
        Some(Kind::Library) => return format!("what library {key} runs: it is damaged"),
        Some(Kind::Payload) => return "a message for several sessions: it is damaged".into(),
        Some(Kind::Action | Kind::Timer | Kind::Job | Kind::Connect) => {
            if let Some(service) = service_of_number(key) {
                return format!(
                    "service {}: a timer, a job or a connection of its own is damaged",
                    service.0
                );
            }
            "an action, a timer, a job or a connection"
        }
        Some(Kind::Config) => return "the configuration in force: it is damaged".into(),
        Some(Kind::Ports) => return "the list of ports: it is damaged".into(),
        Some(Kind::Ledger) => return format!("line {key} of the ledger: it is damaged"),
        Some(Kind::Served) => return "the number of the last connection: it is damaged".into(),
        Some(Kind::Service) => return format!("the name of service {key}: it is damaged"),
        None => return "a block: it is damaged".into(),
    };
    format!("session {key}: {what} is damaged")
}
