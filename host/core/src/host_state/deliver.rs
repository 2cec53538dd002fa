//! Lets an action wait for a session.

use super::HostState;
use super::notice::{limit_reached, notice};
use crate::command::Command;
use crate::effects::action_record::{Data, PendingAction};
use crate::effects::inbox::Inbox;
use crate::effects::inbox::{Put, RunningBatch};
use crate::effects::jobs::EndedJob;
use crate::effects::jobs::LostJob;
use crate::effects::outbound::OUTCOME_BYTES_MAX;
use crate::ids::Slot;
use crate::ids::public_number;
use crate::limits::names::Limit;
use crate::session::life::Life;
use greenroom_state::abi::{action, job, level};

/// Lets an action wait for a session's turn. Room must be reserved. A session that is closing does
/// not get it; a session for which too many wait neither, and operators are told once.
pub(crate) fn deliver(host: &mut HostState, slot: Slot, action: &PendingAction<'_>, running: &RunningBatch) {
    let Some(s) = host.sessions.get(slot).filter(|s| s.life == Life::Open) else { return };
    let (id, service) = (s.id, s.service);
    let HostState { inbox, store, shared, limits, .. } = &mut *host;
    match inbox.put(store, shared, (slot, id), action, limits.of(service), running) {
        Put::Waits => {}
        Put::WaitsAfterDrops(dropped) => {
            notice(host, level::WARN, slot, format!("{dropped} notes and messages to it were dropped"));
        }
        Put::Dropped(limit, None) => host.limits.reached(limit),
        Put::Dropped(limit, Some(waiting)) => {
            let what = format!("{waiting} actions wait for it: notes and messages to it are dropped");
            limit_reached(host, limit, level::WARN, slot, &what);
        }
    }
}

/// Tells the owner of an outbound connection how that ended. `detail` is one of
/// [`greenroom_state::abi::connect`].
pub(crate) fn connect_outcome(host: &mut HostState, owner: u64, number: u64, detail: u32, data: &[u8]) {
    let Some(slot) = host.sessions.slot_of(owner) else { return };
    // A reserve is kept for what must not fail; this is short.
    let data = Data::Own(&data[..data.len().min(OUTCOME_BYTES_MAX)]);
    let (kind, detail) = (action::CONNECT, detail as u16);
    let action = PendingAction { kind, detail, from: number, depth: 0, name: "", data };
    deliver(host, slot, &action, &RunningBatch::default());
}

/// Tells the owner of a job how that ended. `detail` is one of [`job`].
pub(crate) fn job_outcome(host: &mut HostState, number: u64, ended: &EndedJob, detail: u32, data: &[u8]) {
    let Some(slot) = host.sessions.slot_of(ended.owner) else { return };
    let room = host.store.reserve([Inbox::record_bytes(ended.name.len(), data.len())]);
    let (detail, data) = match room {
        true => (detail, data),
        // A reserve is kept for what must not fail.
        false => {
            host.limits.reached(Limit::StoreBytesMax);
            (job::FAILED, &b"no room for its result (limit store_bytes_max)"[..])
        }
    };
    let (kind, detail, data) = (action::JOB, detail as u16, Data::Own(data));
    let action = PendingAction { kind, detail, from: number, depth: 0, name: &ended.name, data };
    deliver(host, slot, &action, &RunningBatch::default());
}

/// Ends a job that must not begin again, and tells its owner and operators.
pub(crate) fn lose_job(host: &mut HostState, number: u64, lost: &LostJob) {
    let message = format!("job {} is lost: {}", lost.name, lost.why);
    let (service, session) = (lost.service, public_number(lost.owner));
    host.commands.push(Command::Notice { level: level::ERROR, service, session, message });
    if let Some(ended) = host.jobs.end(&mut host.store, number) {
        job_outcome(host, number, &ended, job::LOST, lost.why.as_bytes());
    }
}
