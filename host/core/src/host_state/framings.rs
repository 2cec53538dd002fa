//! Framings of new sessions, and the records of those that services have.

use super::HostState;
use crate::framing::Framing;
use crate::ids::{ServiceId, Slot};
use crate::session::life::Session;
use crate::session::socket_streams::Socket;
use crate::store::kind::Kind;
use greenroom_state::endpoint::{in_websocket, split_kind};

/// Returns the number of the framing that a new session of a service begins with: that of the
/// endpoint's kind, or of the first endpoint. In a stream of WebSocket that is the one of its
/// request, and beside it stands the one inside.
///
/// A framing that the service did not have is recorded with this pass. `None`: the service has no
/// such kind, or too many framings. O(framings).
pub(crate) fn begin_framing(
    host: &mut HostState,
    service: ServiceId,
    kind: &str,
) -> Option<(u8, Option<u8>)> {
    let of = &mut host.services[service];
    // Datagrams of the service itself are no session's.
    let has_sessions = |f: &Framing| !matches!(f, Framing::Datagrams { .. });
    let framing = of.offer.framing_of_kind(kind).filter(has_sessions)?;
    let number = of.framings.number(&framing)?;
    let numbers = match in_websocket(split_kind(kind).1) {
        None => (number, None),
        Some(_) => {
            // Held while the other number is looked for, which could take its place.
            of.framings.enter(number);
            let socket = of.framings.number(&Framing::WebSocket { bytes_max: framing.bytes_max() });
            of.framings.leave(number);
            (socket?, Some(number))
        }
    };
    record_of(host, service);
    Some(numbers)
}

/// Counts a session that begins, or is taken in, by the framings that it needs.
pub(crate) fn enter_framings(host: &mut HostState, s: &Session) {
    let framings = &mut host.services[s.service].framings;
    framings.enter(s.framing);
    if let Socket::Asked { inside } = s.socket {
        framings.enter(inside);
    }
}

/// Counts a session that has ended by the framings that it needed.
pub(crate) fn leave_framings(host: &mut HostState, s: &Session) {
    let framings = &mut host.services[s.service].framings;
    framings.leave(s.framing);
    if let Socket::Asked { inside } = s.socket {
        framings.leave(inside);
    }
}

/// Returns the kind of the endpoint that a session came by, without what is around WebSocket.
pub(crate) fn kind_of(host: &HostState, s: &Session) -> String {
    let kind = host.services[s.service].framings.get(s.framing_sent()).kind();
    if s.in_socket() { format!("ws+{kind}") } else { kind.to_owned() }
}

/// Returns the framing of a session whose handler has bounded its messages; `None`: the session has
/// its service's.
#[inline]
pub(crate) fn limited_framing(host: &HostState, slot: Slot) -> Option<Framing> {
    let s = host.sessions.get(slot).filter(|s| s.has_terms)?;
    let framing = host.services[s.service].framings.get(s.framing);
    let own = host.sessions.terms(slot).frame_max();
    (own > 0 && own < framing.bytes_max()).then(|| framing.with_bytes_max(own))
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
