//! Proxied sessions: those that a PROXY header begins.
//!
//! A session of such an endpoint has no turn before its header, is counted by no peer, and its
//! framing sees no byte of the header. A half header is kept input, and nothing else holds it. So a
//! swap or a death in its middle leaves the session as it is.
//!
//! | header | session |
//! | --- | --- |
//! | whole | has the header's peer; its limits are asked; then its handshake, turn or request |
//! | half | waits, for at most `proxy_header_ms` from its opening |
//! | none, too long, or broken | is closed without a turn, and counted |
//!
//! Costs O(bytes of the header), once for each read in which it is not whole.

use super::Pass;
use super::close::finish;
use super::open::run_opened;
use crate::framing::proxy_header::{Beginning, read};
use crate::host_state::HostState;
use crate::host_state::notice::limit_reached;
use crate::host_state::tls_due;
use crate::ids::Slot;
use crate::limits::names::Limit;
use crate::session::blocked::Blocked;
use crate::session::carrier::Carrier;
use crate::session::life::Life;
use greenroom_state::abi::{closed, level};
use greenroom_state::address::{Peer, Relay};
use std::net::SocketAddr;

/// Outcome of a look at the beginning of a session's input.
pub(super) enum Start {
    /// So many bytes were its header; 0: none is due.
    At(usize),
    /// Half a header, which is kept.
    Waits,
    /// Session closed or gone.
    Ended,
}

/// Reads the header that a session's input begins with, if it is due. O(1) for other sessions.
#[inline]
pub(super) fn begin(pass: &mut Pass<'_>, slot: Slot, input: &[u8]) -> Start {
    match pass.host.sessions.get(slot).map(|s| s.carrier) {
        Some(Carrier::HeaderDue { .. }) => read_header(pass, slot, input),
        _ => Start::At(0),
    }
}

/// Reads the header, names the peer, and runs the first turn.
#[inline(never)]
fn read_header(pass: &mut Pass<'_>, slot: Slot, input: &[u8]) -> Start {
    let (len, client) = match read(input) {
        Beginning::More => return Start::Waits,
        Beginning::Header(len, client) => (len, client),
        Beginning::Refused(why) => {
            let what = format!("closed: {why}");
            limit_reached(pass.host, Limit::ProxyHeader, level::WARN, slot, &what);
            finish(pass, slot, closed::LIMIT);
            return Start::Ended;
        }
    };
    let host = &mut *pass.host;
    if is_one_too_many(host, slot, client) {
        let what = "closed: its client has as many sessions as it may";
        limit_reached(host, Limit::SessionsPerPeerMax, level::WARN, slot, what);
        finish(pass, slot, closed::LIMIT);
        return Start::Ended;
    }
    host.sessions.came_by(slot, client.and_then(|client| behind(host, slot, client)));
    host.sessions.touch(slot);
    if host.tls_due.of(slot).is_some() {
        // The rest of the input is kept: the handshake begins with it.
        tls_due::wait(host, slot);
        return Start::At(len);
    }
    let Some(s) = host.sessions.get_mut(slot) else { return Start::Ended };
    if input.len() > len {
        s.carrier = Carrier::Plain;
    }
    if !host.services[s.service].framings.get(s.framing).begins_with_request() {
        s.block(Blocked::OpenedTurnDue, false);
        run_opened(pass, slot);
    }
    match pass.host.sessions.get(slot).map(|s| s.life) {
        Some(Life::Open) => Start::At(len),
        _ => Start::Ended,
    }
}

/// Whether the client, or the proxy itself, has as many sessions as it may have.
fn is_one_too_many(host: &HostState, slot: Slot, client: Option<SocketAddr>) -> bool {
    let most = host.limits.host().sessions_per_peer_max;
    let own = || host.sessions.get(slot).and_then(|s| s.peer.ip());
    let ip = client.map(|client| client.ip()).or_else(own);
    most > 0 && ip.is_some_and(|ip| host.sessions.count_from(ip) >= most)
}

/// Peer of a client behind the session's own peer.
fn behind(host: &HostState, slot: Slot, client: SocketAddr) -> Option<Peer> {
    match host.sessions.get(slot)?.peer {
        Peer::Tcp(addr) => Some(Peer::relayed(client, Relay::Tcp(addr))),
        Peer::Unix(credentials) => Some(Peer::relayed(client, Relay::Unix(credentials))),
        Peer::Udp(_) | Peer::Relayed(_) => None,
    }
}
