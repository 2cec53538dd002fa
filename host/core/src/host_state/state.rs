//! Writes of a session's state, topics and framing, and the length of the input that it keeps.
//!
//! A new record takes the place of the previous one with the next commit; until then both take
//! room. The version of the state is in the session's own record, which the commit writes for
//! sessions that the pass has touched. So callers touch the session, if the pass has not done
//! so.

use super::HostState;
use crate::effects::holder::Holder;
use crate::framing::frame::FrameState;
use crate::ids::Slot;
use crate::service::registry::Written;
use crate::store::kind::Kind;

/// Writes a session's state, marked with the version and the fingerprint of the build that wrote
/// it. Room must be reserved. Keeps the service's count of states by version right.
pub(crate) fn write_state(host: &mut HostState, slot: Slot, state: &[u8], written: Written) {
    let Some(s) = host.sessions.get_mut(slot) else { return };
    let put = host.store.put(s.state, Kind::State, s.id, state);
    s.state = Some(put.expect("room was reserved before"));
    let from = std::mem::replace(&mut s.state_version, written.version);
    s.state_fingerprint = written.fingerprint;
    host.services[s.service].count_stored(from, written.version);
}

/// Takes a session on a topic, or off it. Room must be reserved. The number of its topics is in
/// the session's record, which the caller's batch touches.
pub(crate) fn change_topics(host: &mut HostState, slot: Slot, topic: &[u8], joins: bool) {
    let HostState { sessions, topics, store, .. } = host;
    let Some(s) = sessions.get_mut(slot) else { return };
    let who = Holder { slot, id: s.id, service: s.service };
    let _ = match joins {
        true => topics.join(store, who, topic),
        false => topics.leave(store, who, topic),
    };
    s.topics = topics.count_of(slot) as u32;
}

/// Takes a session off all its topics. O(its topics).
pub(crate) fn leave_topics(host: &mut HostState, slot: Slot) {
    host.topics.leave_all(&mut host.store, slot);
    if let Some(s) = host.sessions.get_mut(slot) {
        s.topics = 0;
    }
}

/// Gives a name to a session, or takes it away. Room must be reserved.
pub(crate) fn change_names(host: &mut HostState, slot: Slot, name: &[u8], takes: bool) {
    let HostState { sessions, names, store, .. } = host;
    let Some(who) = sessions.get(slot).map(|s| Holder { slot, id: s.id, service: s.service }) else { return };
    match takes {
        true => names.register(store, who, name),
        false => names.unregister(store, who, name),
    }
}

/// Sessions on a topic of a session's library, in the order of the services and their slots.
/// O(services + subscribers).
pub(crate) fn subscribers(host: &HostState, of: Slot, topic: &[u8]) -> Vec<Slot> {
    let Some(s) = host.sessions.get(of) else { return Vec::new() };
    host.topics.subscribers_in(host.services.of_same_library(s.service), topic)
}

/// Gives a session's framing another state, and writes its record. Room must be reserved.
pub(crate) fn write_framing(host: &mut HostState, slot: Slot, state: FrameState) {
    let HostState { sessions, store, .. } = host;
    let record = sessions.take_framing_record(slot);
    let Some(s) = sessions.get_mut(slot) else { return };
    s.frame = state;
    let id = s.id;
    match s.frame.stored() {
        [] => record.into_iter().for_each(|r| store.delete(r)),
        stored => {
            let put = store.put(record, Kind::Framing, id, stored);
            sessions.set_framing_record(slot, put.expect("room was reserved before"));
        }
    }
    sessions.touch(slot);
}

/// Input that a session keeps, in one piece. O(1).
pub(crate) fn kept_input(host: &HostState, slot: Slot) -> &[u8] {
    let input = host.sessions.get(slot).and_then(|s| s.input);
    input.map_or(&[], |r| host.store.bytes_with_tail(r, host.sessions.input_tail(slot)))
}

/// Bytes of input that a session keeps. O(1).
#[inline]
pub(crate) fn input_len(host: &HostState, slot: Slot) -> usize {
    // Most sessions keep none, and a commit asks for each that changed.
    match host.sessions.get(slot).and_then(|s| s.input) {
        None => 0,
        Some(_) => kept_input(host, slot).len(),
    }
}
