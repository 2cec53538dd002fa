//! Commit: changed sessions are written, and one epoch makes all of it valid.
//!
//! Turns have written their states, output, actions and table entries as they ran; none of it
//! counts yet. The commit adds one record for each changed session, whatever number of turns
//! changed it, and ends with one atomic store. A death before that store loses the whole pass;
//! a death after it loses none of its records. The shell sends, closes and logs only after the
//! commit.
//!
//! Costs: O(sessions that changed), and O(jobs that begin). A session that only received whole
//! messages still has a new record: its counters are what recovery compares with the kernel.

use crate::command::Command;
use crate::host_state::HostState;
use crate::host_state::notice::notice;
use crate::host_state::output::offer;
use crate::host_state::state::input_len;
use crate::host_state::tls;
use crate::limits::names::Limit;
use crate::store::kind::Kind;
use crate::store::layout::Full;
use greenroom_state::abi::level;
use greenroom_state::session_record::{SIZE, SessionRecord};

/// Ends a pass: all that it changed counts from here on. O(sessions that changed). Must not be
/// called from a running turn.
pub(crate) fn commit(host: &mut HostState) {
    tls::end_pass(host);
    let changed = host.sessions.take_changed();
    for &slot in &changed {
        let input_bytes = input_len(host, slot) as u32;
        let Some(s) = host.sessions.clean(slot) else { continue };
        s.merge_output(&mut host.store);
        // Only the store knows the length of kept input; recovery compares it with the record
        // it finds.
        let mut record = [0; SIZE];
        SessionRecord { input_bytes, ..s.to_record() }.encode_in(&mut record);
        match host.store.put(s.record, Kind::Session, s.id, &record) {
            Ok(r) => s.record = Some(r),
            // Room for it was reserved when the session opened, and records don't grow.
            Err(Full) => {
                debug_assert!(false, "no room for a session's record");
                // The old record stays, and its counts do not fit those of the kernel.
                let what = "no room for its record: a takeover would give it up".into();
                notice(host, level::ERROR, slot, what);
                continue;
            }
        }
        // Only output whose record is written is offered, so a peer never sees more than a
        // takeover knows.
        offer(host, slot);
    }
    host.sessions.changes_written(changed);
    // The mark that a job has begun must count with this epoch: the shell starts the thread
    // after it.
    begin_jobs(host);
    // A successor takes a connection above this number as new, so the number is as fresh as the
    // sessions.
    host.host_records.write_connection_number(&mut host.store);
    host.store.commit();
    host.tables.commit();
    if !host.watchers.is_empty() && host.watchers.committed(host.limits.host().watcher_bytes_max) {
        host.limits.reached(Limit::WatcherBytesMax);
    }
}

/// Begins jobs that wait, as many as may run at once. Jobs of a service without code wait for
/// it. A host that stops begins none. Operators are shown what changed.
fn begin_jobs(host: &mut HostState) {
    let HostState { jobs, store, services, limits, now_ns, stopping, commands, .. } = host;
    if !*stopping {
        let running_max = limits.host().jobs_running_max;
        jobs.begin(store, running_max, *now_ns, |service| services[service].build.is_some());
    }
    let changed = jobs.shares.take_changed();
    if !changed.is_empty() {
        commands.push(Command::ShowJobs(changed));
    }
}
