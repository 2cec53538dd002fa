//! Outcome: connections that were made and jobs that are over become actions.

use super::Pass;
use super::open::{Connection, open};
use crate::command::Command;
use crate::effects::action_record::{Data, PendingAction};
use crate::effects::inbox::{Inbox, RunningBatch};
use crate::host_state::HostState;
use crate::host_state::deliver::{connect_outcome, deliver, job_outcome};
use crate::host_state::notice::limit_reached;
use crate::ids::{Slot, public_number};
use crate::limits::names::Limit;
use greenroom_state::abi::{action, connect, job, level};
use greenroom_state::address::Peer;

/// Turns an outbound connection that is open into a session, unless nobody wants it any more.
pub(crate) fn connected(pass: &mut Pass<'_>, number: u64, (slot, id): (Slot, u64), peer: Peer, at_ms: u64) {
    let host = &mut *pass.host;
    let Some((asked, context)) = host.outbound.take(&mut host.store, number) else {
        host.host_records.record_connection_number(id);
        host.commands.push(Command::Close { slot, id });
        return;
    };
    let connection = Connection { slot, id, service: asked.service, peer, at_ms, outbound: true };
    if let Err(why) = open(pass, connection) {
        return connect_outcome(pass.host, asked.owner, number, connect::FAILED, why.as_bytes());
    }
    let host = &mut *pass.host;
    if host.store.reserve([Inbox::record_bytes(0, context.len())]) {
        let (kind, from, data) = (action::DIALED, public_number(asked.owner), Data::Own(&context));
        let dialed = PendingAction { kind, detail: 0, from, depth: 0, name: "", data };
        deliver(host, slot, &dialed, &RunningBatch::default());
    } else {
        let what = "what it was opened for is lost";
        limit_reached(host, Limit::StoreBytesMax, level::ERROR, slot, what);
    }
    connect_outcome(host, asked.owner, number, connect::OPEN, id.to_string().as_bytes());
}

/// Tells the session that asked that a connection can't be made.
pub(crate) fn connect_failed(host: &mut HostState, number: u64, why: &str) {
    let Some((asked, _)) = host.outbound.take(&mut host.store, number) else { return };
    connect_outcome(host, asked.owner, number, connect::FAILED, why.as_bytes());
}

/// Tells the session that started a job its result, or why there is none.
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
    if let Some(ended) = host.jobs.end(&mut host.store, number) {
        job_outcome(host, number, &ended, detail, data);
    }
}
