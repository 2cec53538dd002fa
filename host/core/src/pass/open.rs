//! Open: a connection becomes a session and runs its first turn.
//!
//! Callers are [`crate::input::Input::Opened`] for accepted connections,
//! [`crate::input::Input::PeerHeard`] for peers over UDP, and `outcome::connected` for outbound
//! connections. A connection becomes a session, or a
//! [`Command::Close`] is queued for it; never both. Its number is stored with the commit in
//! either case, so no successor takes it as new.
//!
//! A first turn that is blocked is due. The mark is in the session's record, and the turn comes
//! before all others of its session.
//!
//! Costs: O(log sessions), one record, and one turn.

use super::Pass;
use super::close::finish;
use super::framing::keep_framing;
use super::timeout::arm_timeout;
use crate::command::Command;
use crate::execute::watched::run_batch;
use crate::framing::Framing;
use crate::framing::peer::{self, LocalEnd};
use crate::host_state::HostState;
use crate::host_state::end::gone;
use crate::host_state::framings::{begin_framing, enter_framings};
use crate::host_state::notice::connection_refused;
use crate::ids::{ServiceId, Slot};
use crate::input::TlsBegin;
use crate::limits::budget::READ_NS;
use crate::limits::names::Limit;
use crate::session::blocked::Blocked;
use crate::session::carrier::Carrier;
use crate::session::life::{Life, Session};
use crate::session::socket_streams::Socket;
use crate::store::layout::Full;
use crate::tls::state::STATE_BYTES;
use greenroom_state::abi::{Action, Bytes, action, closed, level};
use greenroom_state::address::Peer;
use greenroom_state::endpoint::{over_tls, split_kind};
use greenroom_state::session_record;

/// Connection that is to become a session.
#[derive(Debug, Clone)]
pub(crate) struct Connection<'a> {
    /// Place in which the shell keeps the connection.
    pub(crate) slot: Slot,
    /// Number, above all before it.
    pub(crate) id: u64,
    /// Service that accepts it, or for which it was made.
    pub(crate) service: ServiceId,
    /// Kind of the endpoint that accepted it, as [`split_kind`] reads it; empty: the service's
    /// first.
    pub(crate) kind: &'a str,
    /// Address of the other end.
    pub(crate) peer: Peer,
    /// Time of the opening, in milliseconds since 1970.
    pub(crate) at_ms: u64,
    /// End at the host that its first datagram came to; `None`: it is a stream.
    pub(crate) udp: Option<LocalEnd>,
    /// Whether the host connected to the peer. Then no limit counts it by its peer's address.
    pub(crate) outbound: bool,
}

impl<'a> Connection<'a> {
    /// Connection that came to an endpoint of a service, of this kind.
    pub(crate) fn accepted(
        (slot, id): (Slot, u64),
        (service, kind): (ServiceId, &'a str),
        peer: Peer,
        at_ms: u64,
    ) -> Connection<'a> {
        Connection { slot, id, service, kind, peer, at_ms, udp: None, outbound: false }
    }

    /// Peer whose first datagram came to a UDP port of a service.
    pub(crate) fn heard(
        at: (Slot, u64),
        (service, end): (ServiceId, LocalEnd),
        peer: Peer,
        at_ms: u64,
    ) -> Connection<'a> {
        let kind = Framing::Peer { bytes_max: 0 }.kind();
        Connection { udp: Some(end), ..Connection::accepted(at, (service, kind), peer, at_ms) }
    }
}

/// Turns an accepted connection into a session, like [`open`]. Nobody is told why it is refused.
pub(crate) fn accept(pass: &mut Pass<'_>, connection: Connection<'_>, tls: Option<&TlsBegin>) {
    let _ = open(pass, connection, tls);
}

/// Turns a connection into a session, and runs its first turn. Fails if the host stops or a
/// limit is in the way: the connection is closed then, and the error names the reason. `tls`: the
/// outcome of its handshake.
pub(crate) fn open(
    pass: &mut Pass<'_>,
    connection: Connection<'_>,
    tls: Option<&TlsBegin>,
) -> Result<(), &'static str> {
    let Connection { slot, id, service, .. } = connection;
    let host = &mut *pass.host;
    // Counted even if it is refused: a successor must not open a connection that was closed
    // here.
    if connection.udp.is_none() {
        host.host_records.record_connection_number(id);
    }
    let (is_proxied, behind) = split_kind(connection.kind);
    let tls_behind = is_proxied && over_tls(behind).is_some();
    // The state of TLS takes a second block for an update, like the session's record.
    let has_room = tls.is_none_or(|tls| host.store.reserve([STATE_BYTES, STATE_BYTES, tls.facts.len()]));
    let limit = match is_proxied && !host.limits.trusts_proxy(service, &connection.peer) {
        true => Some(Limit::ProxyFrom),
        false => limit_in_the_way(host, &connection, is_proxied),
    };
    let limit = limit.or((!has_room).then_some(Limit::StoreBytesMax));
    if host.stopping || limit.is_some() {
        return Err(refuse(host, &connection, limit));
    }
    let kind = if tls_behind { over_tls(behind).unwrap_or_default() } else { connection.kind };
    let Some((framing, inside)) = begin_framing(host, service, kind) else {
        let why = "the service has no such kind of endpoint, or too many framings in use";
        refuse_for(host, &connection, why);
        return Err(why);
    };
    let mut session = Session::new(id, service, connection.peer.clone(), connection.at_ms);
    session.framing = framing;
    if let Some(end) = connection.udp {
        session.frame = peer::state_of(end);
    }
    (session.outbound, session.heard_ns) = (connection.outbound, host.now_ns);
    if is_proxied {
        // The time of the header counts from here.
        (session.carrier, session.frame_ns) = (Carrier::HeaderDue { tls: tls_behind }, host.now_ns.max(1));
    }
    if begin_tls(host, slot, &mut session, tls_behind, tls).is_err() {
        return Err(refuse(host, &connection, Some(Limit::StoreBytesMax)));
    }
    if begin_socket(host, slot, &mut session, inside).is_err() {
        return Err(refuse(host, &connection, Some(Limit::StoreBytesMax)));
    }
    host.services[service].sessions += 1;
    host.services[service].traffic.opened += 1;
    enter_framings(host, &session);
    // Inserted before its first turn, which may subscribe it, send to it and set timers for it.
    host.sessions.insert(slot, session);
    host.sessions.touch(slot);
    if connection.udp.is_some() && !keep_framing(host, slot) {
        gone(host, slot);
        return Err(Limit::StoreBytesMax.name());
    }
    arm_timeout(host, slot);
    host.budget.spend(READ_NS);
    if is_proxied || host.services[service].framings.get(framing).begins_with_request() {
        // Its header or its request brings the turn.
        if let Some(s) = host.sessions.get_mut(slot) {
            s.block(Blocked::OpenedTurnDue, true);
        }
        return Ok(());
    }
    run_opened(pass, slot);
    Ok(())
}

/// Begins the TLS of a new session: that of a handshake that is done, or one that is `due` behind
/// a header. Fails without room.
fn begin_tls(
    host: &mut HostState,
    slot: Slot,
    session: &mut Session,
    due: bool,
    done: Option<&TlsBegin>,
) -> Result<(), Full> {
    if due {
        host.tls_due.begin(&mut host.store, (slot, session.id), 0, "")?;
    }
    let Some(TlsBegin { state, facts }) = done else { return Ok(()) };
    if let Err(full) = host.tls.begin(&mut host.store, slot, session.id, state, facts) {
        host.tls.forget(&mut host.store, slot);
        return Err(full);
    }
    session.carrier = Carrier::Tls;
    // The kernel counts the bytes of the handshake, too.
    (session.bytes_in, session.bytes_out, session.bytes_sent) = (state.read, state.written, state.written);
    Ok(())
}

/// Begins the stream of WebSocket that carries a new session in the framing `inside`. Fails without
/// room: what its TLS has begun is gone then.
fn begin_socket(
    host: &mut HostState,
    slot: Slot,
    session: &mut Session,
    inside: Option<u8>,
) -> Result<(), Full> {
    let Some(inside) = inside else { return Ok(()) };
    session.socket = Socket::Asked { inside };
    let begun = host.sockets.begin(&mut host.store, (slot, session.id), inside);
    if begun.is_err() {
        host.tls.forget(&mut host.store, slot);
        host.tls_due.forget(&mut host.store, slot);
    }
    begun
}

/// Returns the limit that a new session would break. If there is none, the store has room for
/// its record. An update needs a second block, as the old one is free only after the commit.
fn limit_in_the_way(host: &mut HostState, connection: &Connection<'_>, is_proxied: bool) -> Option<Limit> {
    let Connection { service, ref peer, outbound, .. } = *connection;
    let limits = host.limits.host();
    // The handler chose the peer of an outbound connection, so the peer cannot flood the host
    // that way. A client behind a proxy is known with the header.
    let per_peer = if outbound || is_proxied { 0 } else { limits.sessions_per_peer_max };
    let (all, own) = (host.sessions.len(), host.services[service].sessions);
    if all >= limits.sessions_max || own >= host.limits.of(service).sessions_max {
        Some(Limit::SessionsMax)
    } else if per_peer > 0 && peer.ip().is_some_and(|ip| host.sessions.count_from(ip) >= per_peer) {
        Some(Limit::SessionsPerPeerMax)
    } else if !host.store.reserve([session_record::SIZE; 2]) {
        Some(Limit::StoreBytesMax)
    } else {
        None
    }
}

/// Closes a connection that becomes no session, and tells operators why.
fn refuse_for(host: &mut HostState, connection: &Connection<'_>, why: &str) {
    let Connection { slot, id, service, ref peer, outbound, .. } = *connection;
    let way = if outbound { "to" } else { "from" };
    let message = format!("connection {way} {peer} refused ({why})");
    host.commands.push(Command::Close { slot, id });
    host.commands.push(Command::Notice { level: level::WARN, service, session: id, message });
}

/// Closes a connection that becomes no session, and tells operators. Returns the reason. A host
/// that stops counts no limit.
fn refuse(host: &mut HostState, connection: &Connection<'_>, limit: Option<Limit>) -> &'static str {
    let Connection { slot, id, service, ref peer, outbound, .. } = *connection;
    let way = if outbound { "to" } else { "from" };
    let what = format!("connection {way} {peer} refused");
    host.commands.push(Command::Close { slot, id });
    let Some(limit) = limit.filter(|_| !host.stopping) else {
        let message = format!("{what} (the host is stopping)");
        host.commands.push(Command::Notice { level: level::WARN, service, session: id, message });
        return "the host is stopping";
    };
    connection_refused(host, limit, service, id, &what);
    limit.name()
}

/// Runs a session's first turn. False: the turn was blocked, and comes later. Afterwards the
/// session may be closing or quarantined.
pub(super) fn run_opened(pass: &mut Pass<'_>, slot: Slot) -> bool {
    let opened = Action::new(action::OPENED, Bytes::EMPTY);
    let ran = run_batch(pass.host, pass.executor, slot, &[opened], &mut pass.scratch.running);
    if ran.close {
        finish(pass, slot, closed::HANDLER);
    }
    if ran.consumed == 0
        && let Some(s) = pass.host.sessions.get_mut(slot)
    {
        // The session was quarantined before the turn could run. Without the mark its next turn
        // would be that of a message.
        s.block(Blocked::OpenedTurnDue, true);
        pass.host.sessions.touch(slot);
    }
    // Actions that others caused before this turn have waited for it.
    if ran.consumed > 0 && pass.host.inbox.has(slot) {
        pass.host.sessions.resume(slot);
    }
    ran.consumed > 0
}

/// Returns whether a session's first turn waits for its peer's header or request, which brings it.
/// Actions that others have caused wait as long.
pub(super) fn awaits_peer(host: &HostState, slot: Slot) -> bool {
    host.sessions.get(slot).is_some_and(|s| {
        let by_request = || host.services[s.service].framings.get(s.framing).begins_with_request();
        s.is_blocked(Blocked::OpenedTurnDue) && (s.awaits_carrier() || by_request())
    })
}

/// Runs a session's first turn if that is due. False: it is still blocked. A quarantined
/// session keeps it due.
pub(super) fn run_opened_if_due(pass: &mut Pass<'_>, slot: Slot) -> bool {
    let Some(s) = pass.host.sessions.get(slot) else { return false };
    let due = s.is_blocked(Blocked::OpenedTurnDue);
    let may_not = s.life != Life::Open || s.is_blocked(Blocked::Quarantined);
    // Input that the session kept begins with its header or its request.
    if !due || may_not || awaits_peer(pass.host, slot) {
        return true;
    }
    // Cleared before the turn, as a turn that is blocked again sets the mark again.
    let Some(s) = pass.host.sessions.get_mut(slot) else { return false };
    s.block(Blocked::OpenedTurnDue, false);
    pass.host.sessions.touch(slot);
    run_opened(pass, slot)
}
