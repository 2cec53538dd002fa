//! Delivery of actions: a session gets an action to wait for its turn.
//!
//! A turn's notes and messages have reserved room. Outcomes of jobs and connections use the
//! store's reserve if they must, as their owners wait for them. A session that is not open gets
//! no action. Delivery runs no code: the turn comes in this pass or a later one.

use super::HostState;
use super::notice::{limit_reached, notice};
use crate::command::Command;
use crate::effects::action_record::{Data, PendingAction};
use crate::effects::inbox::Inbox;
use crate::effects::inbox::Put;
use crate::effects::job_forms::EndedJob;
use crate::effects::job_forms::LostJob;
use crate::effects::jobs::JobDeath;
use crate::effects::outbound::OUTCOME_BYTES_MAX;
use crate::effects::running_batch::RunningBatch;
use crate::ids::public_number;
use crate::ids::{ServiceId, Slot};
use crate::limits::names::Limit;
use crate::session::life::Life;
use greenroom_state::abi::{action, job, level};

/// Lets an action wait for a session's turn. Room must be reserved. If the session is closing,
/// or if too many actions wait for it, the action is dropped. Operators are told of the first
/// drop, and of the number of drops once an action finds room again.
pub(crate) fn deliver(host: &mut HostState, slot: Slot, action: &PendingAction<'_>, running: &RunningBatch) {
    // A session that is closing has had its last turn, or has it now: a later action would wait
    // for ever.
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
/// [`greenroom_state::abi::connect`]. If the owner is gone, nothing happens.
pub(crate) fn connect_outcome(host: &mut HostState, owner: u64, number: u64, detail: u32, data: &[u8]) {
    let Some(slot) = host.sessions.slot_of(owner) else { return };
    // No room was reserved: the record may come from the store's reserve, so it is kept short.
    // A character is kept whole, so that a handler can read the reason as text.
    let end = (0..=data.len().min(OUTCOME_BYTES_MAX)).rev().find(|at| starts_character(data, *at));
    let data = Data::Own(&data[..end.unwrap_or(0)]);
    let (kind, detail) = (action::CONNECT, detail as u16);
    let action = PendingAction { kind, detail, from: number, depth: 0, name: b"", data };
    deliver(host, slot, &action, &RunningBatch::default());
}

/// Whether a character of UTF-8 may start at a place: the byte there continues none.
fn starts_character(text: &[u8], at: usize) -> bool {
    text.get(at).is_none_or(|b| b & 0xc0 != 0x80)
}

/// Tells the owner of a job how that ended. `detail` is one of [`job`]. If there is no room for
/// the result, the owner gets a failure that says so. If the owner is gone, nothing happens.
pub(crate) fn job_outcome(host: &mut HostState, number: u64, ended: &EndedJob, detail: u32, data: &[u8]) {
    let Some(slot) = host.sessions.slot_of(ended.owner) else { return };
    let room = host.store.reserve([Inbox::record_bytes(ended.name.len(), data.len())]);
    let (detail, data) = match room {
        true => (detail, data),
        // The short message needs no room below the limit: the store's reserve serves it.
        false => {
            host.limits.reached(Limit::StoreBytesMax);
            (job::FAILED, &b"no room for its result (limit store_bytes_max)"[..])
        }
    };
    let (kind, detail, data) = (action::JOB, detail as u16, Data::Own(data));
    let action = PendingAction { kind, detail, from: number, depth: 0, name: ended.name.as_bytes(), data };
    deliver(host, slot, &action, &RunningBatch::default());
}

/// Begins the jobs of a predecessor anew, before the first pass. Returns service and owner of the
/// job that killed the predecessor.
pub(crate) fn restart_jobs(host: &mut HostState, death: JobDeath) -> Option<(ServiceId, u64)> {
    let killer = host.jobs.killer(death);
    for number in host.jobs.found(&host.store) {
        if let Some(lost) = host.jobs.restart(&mut host.store, number, death) {
            lose_job(host, number, &lost);
        }
    }
    killer
}

/// Ends a job that must not begin again, and tells its owner and operators.
fn lose_job(host: &mut HostState, number: u64, lost: &LostJob) {
    let message = format!("job {} is lost: {}", lost.name, lost.why);
    let (service, session) = (lost.service, public_number(lost.owner));
    host.commands.push(Command::Notice { level: level::ERROR, service, session, message });
    if let Some(ended) = host.jobs.end(&mut host.store, number) {
        job_outcome(host, number, &ended, job::LOST, lost.why.as_bytes());
    }
}
