//! Timeout: closes sessions whose peer stays silent too long, or takes no output.
//!
//! A peer may leave a session waiting for its first byte, for the rest of a frame, or for
//! anything at all. Each has a limit in milliseconds, and 0 is none. A peer is not expected to
//! send while a reason to wait blocks [`crate::session::blocked::Question::ExpectPeer`]. A
//! deadline that comes then is set again, from that time on.
//!
//! Output that the kernel does not take has a limit of its own, whatever the peer sends. Time
//! counts from the last byte that the kernel took, or from its last word that it has room.
//!
//! A peer of WebSocket that stays silent is pinged, and closed if it stays silent as long again.
//!
//! Deadlines are judged one pass late ([`HostState::heard_until_ns`]): what had arrived when a
//! deadline came is read before the session is closed for it.
//!
//! A handler may ask to be told of a silence ([`crate::session::terms`]). That is an action of its
//! session, and closes nothing.
//!
//! A session has at most one deadline, in [`crate::session::table`]. Messages only note the
//! time; the deadline is looked at when it comes, so a message costs no search.
//!
//! Deadlines are in no record. A successor gives each open session the whole time again, but for
//! the silence of a session with terms.

use super::Pass;
use super::close::finish;
use crate::effects::action_record::{Data, PendingAction};
use crate::effects::inbox::Inbox;
use crate::effects::running_batch::RunningBatch;
use crate::framing::websocket::sent::encode_ping;
use crate::host_state::HostState;
use crate::host_state::deliver::deliver;
use crate::host_state::notice::{limit_reached, notice};
use crate::host_state::output::{note_overflow, send};
use crate::ids::Slot;
use crate::limits::names::Limit;
use crate::session::output::OutputWriter;
use crate::session::terms::Terms;
use greenroom_state::abi::{action, closed, level};
use greenroom_state::address::Peer;

/// Sessions whose deadlines follow changed limits in one pass. A change reaches all of a
/// hundred thousand sessions within a hundred passes, which follow each other at once.
const REARMED_PER_PASS: usize = 1024;
/// Nanoseconds until a session without room is told of its peer's silence.
const NO_ROOM_NS: u64 = 1_000_000_000;

/// Closes an open session whose deadline has come, or sets the deadline again if its peer was
/// heard meanwhile. Runs its last turn.
pub(super) fn on_timeout(pass: &mut Pass<'_>, slot: Slot) {
    let host = &mut *pass.host;
    let (now_ns, heard_until_ns) = (host.now_ns, host.heard_until_ns);
    let stuck = host.sessions.stuck_ns(slot);
    let Some(s) = host.sessions.get(slot) else { return };
    // The host may not even read the session, so silence is not the peer's: both times begin
    // again.
    if !s.expects_peer() {
        host.sessions.begin_silence(slot, now_ns);
    } else if host.sessions.are_terms_due(slot, heard_until_ns) {
        tell_silence(host, slot);
    }
    let Some(s) = host.sessions.get_mut(slot) else { return };
    match s.timeout(host.limits.of(s.service), stuck) {
        Some((at, Limit::PingMs, _)) if at <= heard_until_ns && !s.frame.is_pinged() => {
            s.frame.set_pinged(true);
            ping(host, slot);
            arm_timeout(host, slot);
        }
        // A peer over UDP has no other way to leave, so nothing was reached.
        Some((at, Limit::IdleMs, _)) if at <= heard_until_ns && matches!(s.peer, Peer::Udp(_)) => {
            notice(host, level::DEBUG, slot, "closed: its peer over UDP is silent".into());
            finish(pass, slot, closed::LIMIT);
        }
        Some((at, limit, ms)) if at <= heard_until_ns => {
            let what = match limit {
                Limit::FrameMs => format!("a frame wasn't whole after {ms} ms"),
                Limit::HandshakeMs => format!("nothing came of its handshake for {ms} ms"),
                Limit::ProxyHeaderMs => format!("its PROXY header wasn't whole after {ms} ms"),
                Limit::OutputMs => format!("its peer took no output for {ms} ms"),
                Limit::PingMs => format!("its peer did not answer a ping for {ms} ms"),
                _ => format!("nothing came for {ms} ms"),
            };
            limit_reached(host, limit, level::INFO, slot, &format!("closed: {what}"));
            finish(pass, slot, closed::LIMIT);
        }
        _ => arm_timeout(host, slot),
    }
}

/// Tells a session that its peer is silent, once, if that is due. Else its terms are written anew.
/// Without room the host tries again.
fn tell_silence(host: &mut HostState, slot: Slot) {
    if !host.store.reserve([Terms::RECORD_BYTES, Inbox::record_bytes(0, 0)]) {
        host.limits.reached(Limit::StoreBytesMax);
        return host.sessions.put_off_terms(slot, host.now_ns + NO_ROOM_NS);
    }
    let is_due = host.sessions.silent_at(slot).is_some_and(|at| at <= host.heard_until_ns);
    let terms = host.sessions.terms(slot);
    host.sessions.set_terms(&mut host.store, slot, terms, is_due);
    if is_due {
        let (kind, data) = (action::IDLE, Data::Own(&[]));
        let idle = PendingAction { kind, detail: 0, from: 0, depth: 0, name: b"", data };
        deliver(host, slot, &idle, &RunningBatch::default());
    }
}

/// Notes that the peer of a session speaks, whose silence is told. Its next silence begins.
#[cold]
pub(super) fn speaks_again(host: &mut HostState, slot: Slot) {
    // Without room the terms say what a successor sees as well: more bytes have come.
    if let Some(s) = host.sessions.get_mut(slot) {
        s.silence_told = false;
    }
    if host.store.reserve([Terms::RECORD_BYTES]) {
        let terms = host.sessions.terms(slot);
        host.sessions.set_terms(&mut host.store, slot, terms, false);
    }
    arm_timeout(host, slot);
}

/// Pings a silent peer. Without room for the ping nothing is sent, and the peer has its time all
/// the same.
fn ping(host: &mut HostState, slot: Slot) {
    let mut ping = Vec::new();
    encode_ping(&mut ping);
    if host.store.reserve([OutputWriter::record_bytes(ping.len())]) {
        send(host, slot, &ping);
        note_overflow(host, slot);
    }
}

/// Sets the deadline of an open session by the limits of its service, unless it has an earlier
/// one.
pub(crate) fn arm_timeout(host: &mut HostState, slot: Slot) {
    let Some(service) = host.sessions.get(slot).map(|s| s.service) else { return };
    host.sessions.arm_timeout(slot, host.limits.of(service), host.now_ns);
}

/// Lets deadlines follow changed limits, those of a few sessions in each pass. `from`: the
/// number of the last session that did; `None`: all have. A session that opens meanwhile has
/// the new limits already.
pub(super) fn rearm_timeouts(host: &mut HostState, from: &mut Option<u64>) {
    let Some(after) = *from else { return };
    let sessions = host.sessions.after(after).take(REARMED_PER_PASS);
    let some: Vec<_> = sessions.map(|(slot, s)| (slot, s.id)).collect();
    *from = some.last().filter(|_| some.len() == REARMED_PER_PASS).map(|(_, id)| *id);
    for (slot, _) in some {
        arm_timeout(host, slot);
    }
}

/// Notes that the input left over is an incomplete frame, which begins now if `begins`. A byte
/// that only makes it longer does not begin it anew: a peer that drips has no more time than
/// others.
pub(crate) fn frame_waits(host: &mut HostState, slot: Slot, begins: bool) {
    let now_ns = host.now_ns;
    // What a session in its handshake keeps is no frame.
    let Some(s) = host.sessions.get_mut(slot).filter(|s| !s.tls_due()) else { return };
    if begins || s.frame_ns == 0 {
        s.frame_ns = now_ns;
        arm_timeout(host, slot);
    }
}
