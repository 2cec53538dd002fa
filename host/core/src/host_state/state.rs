//! Writes of a session's state, topics and framing, and the length of the input that it keeps.
//!
//! A new record takes the place of the previous one with the next commit; until then both take
//! room. The version of the state is in the session's own record, which the commit writes for
//! sessions that the pass has touched. So callers touch the session, if the pass has not done
//! so.

use super::HostState;
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

/// Bytes of the record that [`write_topics`] writes for these topics.
pub(crate) fn topics_record_bytes<'t>(topics: impl Iterator<Item = &'t str>) -> usize {
    // A line feed stands between two names.
    topics.map(|t| t.len() + 1).sum::<usize>().saturating_sub(1)
}

/// Writes the record that lists a session's topics, a line each. Room must be reserved. A
/// session without topics has no record, and no memory for any.
pub(crate) fn write_topics(host: &mut HostState, slot: Slot) {
    let Some(s) = host.sessions.get_mut(slot) else { return };
    let id = s.id;
    let Some(on) = &mut s.subscriptions else { return };
    if on.topics.is_empty() {
        if let Some(r) = on.record {
            host.store.delete(r);
        }
        s.subscriptions = None;
    } else {
        let names = on.topics.join("\n");
        let put = host.store.put(on.record, Kind::Topics, id, names.as_bytes());
        on.record = Some(put.expect("room was reserved before"));
    }
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
