//! Keep: input that can't run yet is stored with its session.
//!
//! A session has one record of kind [`Kind::Input`] for it, maybe with a tail. Memory alone holds
//! none. If the store has no room, the session is closed with [`closed::LIMIT`]. Operators are
//! told.
//!
//! Costs: short kept input is copied and stored again with each read that adds to it. To long input
//! the read is appended in place, as long as no message is whole and its block has room.

use super::Pass;
use super::close::finish;
use super::framing::keep_framing;
use super::timeout::frame_waits;
use crate::host_state::HostState;
use crate::host_state::framings::limited_framing;
use crate::host_state::notice::limit_reached;
use crate::host_state::state::input_len;
use crate::ids::Slot;
use crate::limits::names::Limit;
use crate::store::kind::Kind;
use crate::store::tail::Tail;
use greenroom_state::abi::{closed, level};

/// Bytes of kept input from which a read is appended in place. Below, a copy costs less than the
/// record of the tail.
const APPEND_FROM_BYTES: usize = 1024;

/// Appends a read to long kept input in place, if that makes no message whole. O(bytes read), and
/// as much of the input as the framing searches again. False: nothing has changed, and the caller
/// assembles the input.
pub(super) fn append_input(pass: &mut Pass<'_>, slot: Slot, bytes: &[u8]) -> bool {
    let Pass { host, scratch, .. } = pass;
    let limited = limited_framing(host, slot);
    let HostState { store, sessions, services, .. } = &mut **host;
    let (tail, record) = (sessions.input_tail(slot), sessions.input_tail_record(slot));
    let stored = sessions.framing_record(slot).is_some();
    let Some(s) = sessions.get_mut(slot) else { return false };
    let Some(input) = s.input.filter(|r| store.read(*r, <[u8]>::len) >= APPEND_FROM_BYTES) else {
        return false;
    };
    // The framing began anew, and its record is to go; or it is not asked yet.
    if s.awaits_carrier() || stored == s.frame.stored().is_empty() {
        return false;
    }
    // Room for the tail's record first: without it the session is closed, as for any input.
    if !store.reserve([Tail::BYTES]) {
        return false;
    }
    // Behind the tail that counts, so nothing has changed as long as the record is not put.
    let Some(tail) = store.extend_tail(input, tail, bytes) else { return false };
    if s.may_run_frames() {
        let before = s.frame.clone();
        let framing = limited.as_ref().unwrap_or(services[s.service].framings.get(s.framing));
        if framing.calls_code() {
            return false;
        }
        if !scratch.cut.finds_none(framing, store.bytes_with_tail(input, tail), &mut s.frame) {
            s.frame = before;
            return false;
        }
    }
    let put = store.put(record, Kind::InputTail, s.id, &tail.encode());
    sessions.set_input_tail(slot, tail, put.expect("room was reserved before"));
    frame_waits(host, slot, false);
    true
}

/// Keeps the rest of a session's input, and the state of its framing. If the store has no room,
/// the session is closed. `begins`: the rest is not what was kept before, so its frame begins
/// now.
pub(super) fn keep_input(pass: &mut Pass<'_>, slot: Slot, rest: &[u8], begins: bool) {
    let host = &mut *pass.host;
    let Some(s) = host.sessions.get_mut(slot) else { return };
    // A framing that cuts slices stores nothing.
    let stores = !host.services[s.service].framings.get(s.framing).cuts_slices();
    match rest.is_empty() && s.input.is_none() && !stores {
        true => s.frame_ns = 0,
        false => keep_rest(pass, slot, (rest, begins), stores),
    }
}

/// Keeps the rest as above. `stores`: the framing may store something.
#[inline(never)]
fn keep_rest(pass: &mut Pass<'_>, slot: Slot, (rest, begins): (&[u8], bool), stores: bool) {
    let host = &mut *pass.host;
    let is_kept = !stores || keep_framing(host, slot);
    let Some(s) = host.sessions.get_mut(slot) else { return };
    if rest.is_empty() && is_kept {
        s.frame_ns = 0;
        if let Some(r) = s.input.take() {
            host.store.delete(r);
            host.sessions.drop_input_tail(&mut host.store, slot);
        }
        return;
    }
    // Nothing was consumed, and nothing was added: the input is what was kept before.
    if is_kept && !begins && input_len(host, slot) == rest.len() {
        return frame_waits(host, slot, false);
    }
    let Some(s) = host.sessions.get_mut(slot) else { return };
    // Reserved although the old record goes: its block is free only after the commit. Without
    // the check a put would eat the reserve, which is for sessions that go on and close.
    let room = is_kept && host.store.reserve([rest.len()]);
    match room.then(|| host.store.put(s.input, Kind::Input, s.id, rest)) {
        Some(Ok(r)) => {
            s.input = Some(r);
            host.sessions.drop_input_tail(&mut host.store, slot);
            frame_waits(host, slot, begins);
        }
        _ => {
            limit_reached(host, Limit::StoreBytesMax, level::WARN, slot, "closed: no room for its input");
            finish(pass, slot, closed::LIMIT);
        }
    }
}
