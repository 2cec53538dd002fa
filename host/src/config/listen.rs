//! Endpoints of a service, as the file lists them: kinds, stacks, and what a service can't have.

use greenroom_core::framing::Framing;
use greenroom_core::service::offer::Offer;
use greenroom_state::address::Address;
use greenroom_state::endpoint::{Endpoint, in_websocket, over_tls, split_kind};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Endpoint with its kind. An address of UDP without one is of the first kind over UDP that the
/// service offers, or of the service itself: it has no sessions unless its handler asks for them.
pub(super) fn named(offer: &Offer, endpoint: &Endpoint) -> Endpoint {
    let mut endpoint = endpoint.clone();
    if endpoint.kind.is_empty() && matches!(endpoint.address, Address::Udp(_)) {
        let offered = offer.endpoints.iter().map(|e| e.framing).find(Framing::is_of_datagrams);
        endpoint.kind = offered.unwrap_or(Framing::Datagrams { bytes_max: 0 }).kind().into();
    }
    endpoint
}

/// Endpoints of a service in both stacks: behind each one at `[::]` comes its twin at 0.0.0.0,
/// unless the list has it. Two sockets, because the kernel can't change what one takes. Fails if
/// nothing is at `[::]`, and for port 0, which would be two ports.
pub(super) fn with_ipv4(listen: &[Endpoint]) -> Result<Vec<Endpoint>, String> {
    let mut all = Vec::new();
    for endpoint in listen {
        all.push(endpoint.clone());
        let Some(addr) = endpoint.address.socket_addr().filter(|a| a.ip() == Ipv6Addr::UNSPECIFIED) else {
            continue;
        };
        if addr.port() == 0 {
            return Err(format!("dual_stack: {endpoint} needs a port, as port 0 would be two ports"));
        }
        let v4 = (Ipv4Addr::UNSPECIFIED, addr.port()).into();
        let is_udp = matches!(endpoint.address, Address::Udp(_));
        let address = if is_udp { Address::Udp(v4) } else { Address::Tcp(v4) };
        let twin = Endpoint { kind: endpoint.kind.clone(), address };
        if !listen.contains(&twin) {
            all.push(twin);
        }
    }
    match listen.iter().any(|e| e.address.socket_addr().is_some_and(|a| a.ip() == Ipv6Addr::UNSPECIFIED)) {
        true => Ok(all),
        false => Err("dual_stack is for endpoints at [::], and `listen` has none".into()),
    }
}

/// Names the keys that an endpoint over TLS needs.
pub(super) fn needs_tls(service: &str) -> String {
    format!("TLS needs service.{service}.tls.certificate and service.{service}.tls.key")
}

/// Reason why a service can't listen on an endpoint. `None`: it can.
pub(super) fn why_not(offer: &Offer, endpoint: &Endpoint, has_tls: bool) -> Option<String> {
    let named = named(offer, endpoint);
    let (_, kind) = split_kind(&named.kind);
    let wants_tls = over_tls(kind);
    if wants_tls.is_some() && !matches!(endpoint.address, Address::Tcp(_)) {
        return Some("TLS is for TCP alone".into());
    }
    if wants_tls.is_some() && !has_tls {
        return Some(needs_tls(&offer.name));
    }
    let is_udp = matches!(endpoint.address, Address::Udp(_));
    let fits = |f: &Framing| f.is_of_datagrams() == is_udp;
    let kind = wants_tls.unwrap_or(kind);
    if offer.framing_of_kind(kind).is_some_and(|f| fits(&f)) {
        return None;
    }
    let in_socket = !is_udp && in_websocket(kind).is_some();
    let own = offer.endpoints.iter().map(|e| e.framing);
    let all = own.chain(Framing::ANY_SERVICE).filter(fits).filter(|f| !in_socket || f.may_be_inside());
    let kinds: BTreeSet<_> = all.map(|f| f.kind()).collect();
    let kinds = kinds.into_iter().collect::<Vec<_>>().join(", ");
    let road = match (is_udp, in_socket) {
        (true, _) => "over UDP",
        (false, true) => "in a stream of WebSocket",
        (false, false) => "over a stream",
    };
    // An address without a kind is one of TCP.
    let only_udp = !is_udp && offer.endpoints.iter().all(|e| e.framing.is_of_datagrams());
    let hint = match (only_udp, &endpoint.address) {
        (true, Address::Tcp(addr)) => format!("; its own endpoint is written udp://{addr}"),
        _ => String::new(),
    };
    Some(format!("{road} it can be had as {kinds}{hint}"))
}
