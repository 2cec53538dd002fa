//! Dependent records: framings of services, tails of input, records of TLS, streams of WebSocket,
//! and waits for output. Such records are taken in behind the records that they need.

use crate::effects::birth::Birth;
use crate::host_state::HostState;
use crate::ids::{ServiceId, Slot};
use crate::pass::timeout::frame_waits;
use crate::session::blocked::Blocked;
use crate::session::flow_control::FlowControl;
use crate::session::life::Life;
use crate::session::socket_streams::Socket;
use crate::store::kind::Kind;
use crate::store::layout::Ref;
use crate::store::recover::Found;
use crate::store::tail::Tail;
use greenroom_state::session_record::SessionRecord;

/// Takes in the framings of a service's sessions. If they are lost, so are the sessions that have
/// another one than the first.
pub(super) fn recover_framings(host: &mut HostState, service: u64, r: Ref) {
    let number = u16::try_from(service).ok().map(ServiceId);
    if let Some(service) = number.and_then(|number| host.services.get_mut(number)) {
        host.store.read(r, |record| service.framings.recover(record));
    }
}

/// Takes in the tail of a session's kept input. A tail that cannot be right is deleted: the input
/// is shorter then than the session's record says, and the rebuild finds that.
pub(super) fn recover_input_tail(host: &mut HostState, id: u64, r: Ref) {
    let HostState { store, sessions, .. } = host;
    let slot = sessions.slot_of(id);
    let input = slot.and_then(|slot| sessions.get(slot)?.input);
    let tail = store.read(r, Tail::decode);
    match (slot, input, tail) {
        (Some(slot), Some(input), Some(tail))
            if sessions.input_tail_record(slot).is_none() && store.has_tail(input, tail) =>
        {
            sessions.set_input_tail(slot, tail, r);
        }
        _ => store.delete(r),
    }
}

/// Lets a session wait again for those that still have output, or actions that wait. Their sends
/// or turns let it go on, or their ends. A session behind its last turn has no input that could
/// wait.
pub(super) fn recover_wait(host: &mut HostState, id: u64, r: Ref) {
    let numbers = host.store.read(r, FlowControl::decode);
    let slot = host
        .sessions
        .slot_of(id)
        .filter(|slot| host.sessions.get(*slot).is_some_and(|s| s.life == Life::Open && !slot.is_service()));
    let Some(slot) = slot else { return host.store.delete(r) };
    let has_backlog = |slot: &Slot| {
        let unsent = host.sessions.get(*slot).map_or(0, |s| s.unsent());
        unsent > 0 || host.inbox.backlog(*slot).0 > 0
    };
    let other = |id: u64| Some((host.sessions.slot_of(id).filter(has_backlog)?, id));
    let others: Vec<_> = numbers.into_iter().filter_map(other).filter(|(s, _)| *s != slot).collect();
    if host.flow.recover(&mut host.store, slot, r, others)
        && let Some(s) = host.sessions.get_mut(slot)
    {
        s.block(Blocked::OtherSessionsOutput, true);
    }
}

/// Takes in streams of WebSocket. Each peer gets the whole time for the rest of its frame again.
pub(super) fn recover_sockets(host: &mut HostState, records: &[Found]) {
    for f in records.iter().filter(|f| f.kind == Kind::Socket) {
        let HostState { store, sessions, services, sockets, .. } = &mut *host;
        let slot = sessions.slot_of(f.key).filter(|slot| {
            let record = sessions.get(*slot).and_then(|s| s.record);
            let record = record.and_then(|r| store.read(r, SessionRecord::decode));
            record.is_some_and(|record| record.in_socket)
        });
        let socket = slot.and_then(|slot| Some((slot, sockets.recover(store, slot, f.at)?)));
        let Some((slot, socket)) = socket else {
            store.delete(f.at);
            continue;
        };
        let Some(s) = sessions.get_mut(slot) else { continue };
        s.socket = socket;
        if let Socket::Asked { inside } = socket {
            services[s.service].framings.enter(inside);
        }
        if sockets.is_cut(slot) {
            frame_waits(host, slot, true);
        }
    }
}

/// Takes in records of TLS: states first, on which the others depend.
pub(super) fn recover_tls(host: &mut HostState, records: &[Found]) {
    let states = records.iter().filter(|f| f.kind == Kind::Tls);
    let others = records.iter().filter(|f| matches!(f.kind, Kind::TlsInput | Kind::TlsFacts));
    let mut cut = Vec::new();
    let HostState { store, sessions, tls, tls_due, .. } = &mut *host;
    for f in records.iter().filter(|f| f.kind == Kind::TlsDue) {
        let slot = sessions.slot_of(f.key).filter(|s| sessions.get(*s).is_some_and(|s| s.awaits_carrier()));
        if !slot.is_some_and(|slot| tls_due.recover(store, slot, f.at)) {
            store.delete(f.at);
        }
    }
    for f in states.chain(others) {
        let slot = sessions.slot_of(f.key).filter(|s| sessions.get(*s).is_some_and(|s| s.over_tls()));
        match slot.filter(|slot| tls.recover(store, *slot, f.kind, f.at)) {
            None => store.delete(f.at),
            Some(slot) if f.kind == Kind::TlsInput => cut.push(slot),
            Some(_) => {}
        }
    }
    // Each peer gets the whole time for the rest of its record again.
    cut.into_iter().for_each(|slot| frame_waits(host, slot, true));
}

/// Takes in all entries of tables, and the drops of prefixes, in one call in which doubles are
/// found.
pub(super) fn recover_tables(host: &mut HostState, records: &[Found], lost: &mut Vec<String>) {
    let drops = records.iter().filter(|f| f.kind == Kind::Drop);
    let entries = records.iter().filter(|f| matches!(f.kind, Kind::Entry | Kind::Expiring));
    for r in host.tables.recover(&host.store, drops, entries) {
        lost.push("an entry of a table: it can't be read".into());
        host.store.delete(r);
    }
}

/// Takes in the secret of the host, and the time when it began.
pub(super) fn recover_birth(host: &mut HostState, f: &Found) {
    let HostState { store, host_records, birth, .. } = host;
    match store.read(f.at, Birth::decode) {
        Some(found) => {
            *birth = found;
            host_records.recover(store, f.kind, f.key, f.at);
        }
        None => store.delete(f.at),
    }
}
