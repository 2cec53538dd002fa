//! Commit: changed sessions are written, and one epoch makes all of it valid.

use crate::host_state::HostState;
use crate::host_state::notice::notice;
use crate::host_state::output::offer;
use crate::store::kind::Kind;
use crate::store::layout::Full;
use greenroom_state::abi::level;
use greenroom_state::session_record::SessionRecord;

/// Ends a pass: all that it changed counts from here on. O(sessions that changed).
pub(crate) fn commit(host: &mut HostState) {
    let changed = host.sessions.take_changed();
    for &slot in &changed {
        let Some(s) = host.sessions.clean(slot) else { continue };
        let input_bytes = s.input.map_or(0, |r| host.store.read(r, <[u8]>::len)) as u32;
        let record = SessionRecord { input_bytes, ..s.to_record() }.encode();
        match host.store.put(s.record, Kind::Session, s.id, &record) {
            Ok(r) => s.record = Some(r),
            // Room for it was reserved when the session opened, and records don't grow.
            Err(Full) => {
                debug_assert!(false, "no room for a session's record");
                let what = "no room for its record: a takeover would give it up".into();
                notice(host, level::ERROR, slot, what);
                continue;
            }
        }
        offer(host, slot);
    }
    host.sessions.changes_written(changed);
    begin_jobs(host);
    host.host_records.write_connection_number(&mut host.store);
    host.store.commit();
}

fn begin_jobs(host: &mut HostState) {
    if host.stopping {
        return;
    }
    let HostState { jobs, store, services, limits, .. } = host;
    jobs.begin(store, limits.host().jobs_running_max, |service| services[service].build.is_some());
}
