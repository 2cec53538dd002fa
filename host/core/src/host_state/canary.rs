//! Records of the counts of canaries.

use super::HostState;
use crate::store::kind::Kind;

/// Writes the counts that have changed, just before the commit of a pass. O(1) without a canary. If
/// the store has not even a reserve left, the counts of an earlier commit stay.
pub(crate) fn write_counts(host: &mut HostState) {
    if host.canaries.is_empty() {
        return;
    }
    let HostState { services, host_records, store, .. } = host;
    for (number, service) in services.iter_mut().enumerate() {
        if let Some(canary) = service.canary.as_mut().filter(|c| c.changed) {
            canary.changed = false;
            let bytes = canary.counts.encode(canary.build.build.generation);
            let put = host_records.put(store, Kind::Canary, number as u64, &bytes);
            debug_assert!(put, "no room for the counts of a canary");
        }
    }
}
