//! Start of TLS: a session's handshake is done or has failed.
//!
//! The shell reports it behind the commit that let the handshake begin. Input that was kept before
//! was the beginning of the handshake, and the stream begins anew for the framing. The session's
//! first turn comes now if it was due, else an action that tells of TLS.

use super::Pass;
use super::close::finish;
use super::ends::broken;
use super::open::run_opened;
use super::timeout::arm_timeout;
use crate::command::Command;
use crate::effects::action_record::{Data, PendingAction};
use crate::effects::inbox::Inbox;
use crate::effects::running_batch::RunningBatch;
use crate::host_state::HostState;
use crate::host_state::deliver::deliver;
use crate::host_state::notice::{limit_reached, notice};
use crate::ids::Slot;
use crate::input::TlsBegin;
use crate::limits::names::Limit;
use crate::session::blocked::Blocked;
use crate::session::carrier::Carrier;
use crate::session::life::Life;
use crate::session::output::OutputWriter;
use crate::tls::state::{STATE_BYTES, TlsState};
use greenroom_state::abi::{action, closed, level};

/// Makes a session in its handshake one over TLS, or ends it for the reason that the handshake has
/// failed for. A session that has ended meanwhile stays so.
pub(crate) fn ended(pass: &mut Pass<'_>, slot: Slot, outcome: Result<&TlsBegin, &str>) {
    if !is_in_handshake(pass.host, slot) {
        return;
    }
    match outcome {
        Ok(begin) => started(pass, slot, begin),
        Err(why) => {
            notice(pass.host, level::INFO, slot, format!("closed: its handshake of TLS has failed: {why}"));
            broken(pass, slot);
        }
    }
}

/// Makes a session in its handshake one over TLS.
fn started(pass: &mut Pass<'_>, slot: Slot, begin: &TlsBegin) {
    let host = &mut *pass.host;
    if !begin_tls(host, slot, begin) {
        limit_reached(host, Limit::StoreBytesMax, level::WARN, slot, "closed: no room for TLS");
        return finish(pass, slot, closed::LIMIT);
    }
    arm_timeout(host, slot);
    // The peer may have sent records already.
    host.sessions.resume(slot);
    host.commands.push(Command::Resume(slot));
    let Some(s) = host.sessions.get_mut(slot) else { return };
    if !s.is_blocked(Blocked::OpenedTurnDue) {
        let data = Data::Own(&[]);
        let told = PendingAction { kind: action::TLS_STARTED, detail: 0, from: 0, depth: 0, name: b"", data };
        deliver(host, slot, &told, &RunningBatch::default());
    } else if !host.services[s.service].framings.get(s.framing).begins_with_request() {
        s.block(Blocked::OpenedTurnDue, false);
        run_opened(pass, slot);
    }
}

/// Whether a session is open, and its handshake has begun or may begin.
fn is_in_handshake(host: &HostState, slot: Slot) -> bool {
    let s = host.sessions.get(slot).filter(|s| s.carrier == Carrier::TlsDue && s.life == Life::Open);
    s.is_some_and(|s| host.tls_due.is_drained(slot, s.bytes_sent))
}

/// Puts TLS around the session's stream. What was kept behind its mark is sealed with this input.
/// False: there is no room; the session is still in its handshake then.
fn begin_tls(host: &mut HostState, slot: Slot, TlsBegin { state, facts }: &TlsBegin) -> bool {
    let HostState { store, shared, sessions, tls, tls_due, now_ns, .. } = &mut *host;
    let Some(s) = sessions.get_mut(slot) else { return false };
    let kept = s.copy_output(store, shared);
    // The state takes a second block for an update.
    let state_bytes = [STATE_BYTES, STATE_BYTES, facts.len(), Inbox::record_bytes(0, 0)];
    if !store.reserve(state_bytes.into_iter().chain([OutputWriter::record_bytes(kept.len())])) {
        return false;
    }
    let (read, written) = (s.bytes_in + state.read, s.bytes_sent + state.written);
    let state = TlsState { read, written, ..state.clone() };
    if tls.begin(store, slot, s.id, &state, facts).is_err() {
        tls.forget(store, slot);
        return false;
    }
    s.drop_output(store, shared);
    // The kernel counts the bytes of the handshake, too.
    (s.bytes_in, s.bytes_out, s.bytes_sent) = (read, written, written);
    s.carrier = Carrier::Tls;
    (s.heard_ns, s.frame_ns) = (*now_ns, 0);
    s.drop_input(store);
    sessions.drop_input_tail(store, slot);
    if let Some(framing) = sessions.take_framing_record(slot) {
        store.delete(framing);
    }
    tls_due.forget(store, slot);
    tls.push(store, slot, &kept);
    sessions.touch(slot);
    true
}
