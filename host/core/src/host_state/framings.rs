//! Framings of new sessions, and the records of those that services have.

use super::HostState;
use crate::framing::Framing;
use crate::ids::ServiceId;
use crate::store::kind::Kind;

/// Returns the number of the framing that a new session of a service begins with: that of the
/// endpoint's kind, or of the first endpoint. A framing that the service did not have is recorded
/// with this pass. `None`: the service has no such kind, or too many framings. O(framings).
pub(crate) fn begin_framing(host: &mut HostState, service: ServiceId, kind: &str) -> Option<u8> {
    let of = &mut host.services[service];
    // Datagrams of the service itself are no session's.
    let has_sessions = |f: &Framing| !matches!(f, Framing::Datagrams { .. });
    let framing = of.offer.framing_of_kind(kind).filter(has_sessions)?;
    let number = of.framings.number(&framing)?;
    record_of(host, service);
    Some(number)
}

/// Records the framings of all services whose list has changed. O(services).
pub(crate) fn record_framings(host: &mut HostState) {
    for service in 0..host.services.len() {
        record_of(host, ServiceId(service as u16));
    }
}

/// Records the framings of a service, if their list has changed.
fn record_of(host: &mut HostState, service: ServiceId) {
    if let Some(record) = host.services[service].framings.take_changed() {
        // The store keeps a reserve beyond its limit, for records that must not fail.
        let put = host.host_records.put(&mut host.store, Kind::Framings, service.0.into(), &record);
        debug_assert!(put, "no room for the framings of a service");
    }
}
