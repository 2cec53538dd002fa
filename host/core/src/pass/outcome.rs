//! Outcome: connections that were made and jobs that are over become actions.
//!
//! The shell reports each end by the number under which a turn asked for it. The request's
//! record is deleted and the outcome's action is written in the same pass, so the owner is told
//! once. A report for a request that nobody waits for makes no action; its connection is
//! closed.
//!
//! Outcomes of connections are short and use the store's reserve, so they check no room. A
//! job's result may be long: without room the owner is told that the job failed.

use super::Pass;
use super::open::{Connection, open};
use crate::command::Command;
use crate::effects::action_record::{Data, PendingAction};
use crate::effects::inbox::Inbox;
use crate::effects::running_batch::RunningBatch;
use crate::host_state::HostState;
use crate::host_state::deliver::{connect_outcome, deliver, job_outcome};
use crate::host_state::notice::limit_reached;
use crate::ids::{Slot, public_number};
use crate::input::TlsBegin;
use crate::limits::names::Limit;
use greenroom_state::abi::{action, connect, job, level};
use greenroom_state::address::Peer;

/// Turns an outbound connection that is open into a session, unless nobody wants it any more,
/// and tells the session that asked. The new session gets its opened turn first, then the
/// context that it was dialed with. `at_ms` is in milliseconds since 1970.
pub(crate) fn connected(
    pass: &mut Pass<'_>,
    number: u64,
    (slot, id): (Slot, u64),
    (peer, at_ms): (Peer, u64),
    tls: Option<&TlsBegin>,
) {
    let host = &mut *pass.host;
    let Some((asked, context)) = host.outbound.take(&mut host.store, number) else {
        // Counted as served: a successor must not take the closed connection as new.
        host.host_records.record_connection_number(id);
        host.commands.push(Command::Close { slot, id });
        return;
    };
    let service = asked.service;
    let connection = Connection { slot, id, service, kind: "", peer, at_ms, udp: None, outbound: true };
    if let Err(why) = open(pass, connection, tls) {
        return connect_outcome(pass.host, asked.owner, number, connect::FAILED, why.as_bytes());
    }
    let host = &mut *pass.host;
    // The request's own record is free only after the commit, so the context needs room of its
    // own.
    if host.store.reserve([Inbox::record_bytes(0, context.len())]) {
        let (kind, from, data) = (action::DIALED, public_number(asked.owner), Data::Own(&context));
        let dialed = PendingAction { kind, detail: 0, from, depth: 0, name: b"", data };
        deliver(host, slot, &dialed, &RunningBatch::default());
    } else {
        let what = "what it was opened for is lost";
        limit_reached(host, Limit::StoreBytesMax, level::ERROR, slot, what);
    }
    connect_outcome(host, asked.owner, number, connect::OPEN, id.to_string().as_bytes());
}

/// Tells the session that asked that a connection cannot be made. No-op if nobody waits for it.
pub(crate) fn connect_failed(host: &mut HostState, number: u64, why: &str) {
    let Some((asked, _)) = host.outbound.take(&mut host.store, number) else { return };
    connect_outcome(host, asked.owner, number, connect::FAILED, why.as_bytes());
}

/// Tells the session that started a job its result, or why there is none. A result over
/// `job_result_bytes_max` is dropped, and the job counts as failed; a longer reason is cut.
pub(crate) fn job_done(host: &mut HostState, number: u64, result: Result<&[u8], &str>) {
    let max = host.limits.host().job_result_bytes_max;
    let (detail, data) = match result {
        Ok(bytes) if bytes.len() > max => {
            host.limits.reached(Limit::JobResultBytesMax);
            let why = &b"its result is too long (limit job_result_bytes_max)"[..];
            (job::FAILED, why)
        }
        Ok(bytes) => (job::DONE, bytes),
        Err(why) => (job::FAILED, &why.as_bytes()[..why.floor_char_boundary(max)]),
    };
    // Ends even an abandoned job here: its thread is free for the next one.
    if let Some(ended) = host.jobs.end(&mut host.store, number) {
        job_outcome(host, number, &ended, detail, data);
    }
}
