//! Subject of a watch: sessions by number, a service, or a peer.

use crate::ids::{ServiceId, Slot};
use crate::session::life::Session;
use greenroom_state::address::Peer;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// Sessions that a watcher watches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// Sessions of these numbers.
    Sessions(Vec<u64>),
    /// Sessions of a service, and the service itself.
    Service {
        /// Name of the service.
        name: String,
        /// Sessions of a thousand that are watched, picked by their numbers; the service itself is
        /// left out below 1000.
        per_mille: u16,
    },
    /// Sessions of a peer, at whatever port of it.
    Peer(IpAddr),
    /// Session of a peer at one port.
    PeerAt(SocketAddr),
}

impl Subject {
    /// Whether a session is watched. `service`: the service of the name, if the subject is one.
    pub(super) fn covers(&self, service: Option<ServiceId>, slot: Slot, s: &Session) -> bool {
        match self {
            Subject::Sessions(ids) => ids.contains(&s.id),
            Subject::Service { per_mille, .. } => {
                service == Some(s.service) && is_picked(*per_mille, slot, s)
            }
            Subject::Peer(ip) => !slot.is_service() && s.peer.ip() == Some(*ip),
            Subject::PeerAt(at) => !slot.is_service() && address_of(&s.peer) == Some(*at),
        }
    }

    /// Whether turns of datagrams from an address are watched.
    pub(super) fn covers_datagram(&self, from: SocketAddr) -> bool {
        match self {
            Subject::Peer(ip) => from.ip() == *ip,
            Subject::PeerAt(at) => from == *at,
            _ => false,
        }
    }
}

/// Whether a session is among those that are picked of a service. The pick follows from the number
/// alone, so a session is watched for its whole life, or never.
fn is_picked(per_mille: u16, slot: Slot, s: &Session) -> bool {
    if per_mille >= 1000 {
        return true;
    }
    // Numbers of one service may come in a pattern: an odd factor spreads them.
    let spread = (s.id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % 1000;
    !slot.is_service() && spread < u64::from(per_mille)
}

/// Address of a peer, as limits count it; `None`: it has none.
fn address_of(peer: &Peer) -> Option<SocketAddr> {
    match peer {
        Peer::Tcp(at) => Some(*at),
        Peer::Udp(at) => Some(**at),
        Peer::Relayed(relayed) => Some(relayed.client),
        Peer::Unix(_) => None,
    }
}
