//! UDP ports of a worker: taken in from the keeper, and read into the core.
//!
//! Reading is part of the pass, behind the connections that the poll has reported. A pass that has
//! no time left leaves datagrams in the buffer, and ports unread.

use crate::clock::unix_ms;
use crate::protocol::keeper::EndpointId;
use crate::worker::datagrams::is_of_peers;
use crate::worker::shell::Shell;
use greenroom_core::ids::ServiceId;
use greenroom_core::input::Input;
use greenroom_state::address::Peer;
use std::ops::Range;
use std::os::fd::OwnedFd;

/// Datagrams between two looks at the time of the pass.
const RUN_AT_ONCE: usize = 16;

/// Takes a UDP port in, or has the keeper release it: it is closed by now, or the poll refuses it.
pub(super) fn take(shell: &mut Shell, key: u32, number: u64, endpoint: EndpointId, fd: OwnedFd) {
    let held = shell.ports.held().iter().any(|p| p.endpoint == endpoint);
    if shell.datagrams.place_of(endpoint).is_some() {
        // The keeper has handed it over twice.
        return;
    }
    if !held {
        return shell.keeper.release(key, number);
    }
    if let Err(e) = shell.datagrams.add(shell.sockets.registry(), (key, number), endpoint, fd) {
        tracing::error!("a UDP port cannot be polled: {e}");
        shell.keeper.release(key, number);
    }
}

/// Reads the ports that have datagrams, as far as the pass has time: they have a budget apart, so
/// that streams do not keep them waiting.
///
/// Each port is read once: its answers leave before more is read. So peers work on them meanwhile,
/// and their next datagrams find room.
pub(super) fn read(shell: &mut Shell) {
    if !shell.datagrams.read_again() {
        return;
    }
    shell.core.begin_stage();
    run(shell);
    for _ in 0..shell.datagrams.ready() {
        if shell.datagrams.is_left() || shell.core.pass_is_full() || !shell.datagrams.receive(&shell.ports) {
            return;
        }
        run(shell);
    }
}

/// Runs the datagrams that were read, until the time of the pass is over.
fn run(shell: &mut Shell) {
    while !shell.core.pass_is_full()
        && let Some((endpoint, places)) = shell.datagrams.take_heard(RUN_AT_ONCE)
    {
        // Datagrams of a port that is closed by now are dropped.
        let Some(port) = shell.ports.of_connection(endpoint, None) else { continue };
        let Some(service) = shell.core.service_named(&port.port.0) else { continue };
        match is_of_peers(port) {
            true => places.for_each(|at| hear_peer(shell, service, at)),
            false => hear_all(shell, service, places),
        }
    }
}

/// Runs datagrams as actions of the service itself. Those that came to one end are one batch, which
/// is all of them at a port of one address.
fn hear_all(shell: &mut Shell, service: ServiceId, places: Range<usize>) {
    let mut at = places.start;
    while at < places.end {
        let end = shell.datagrams.end(at);
        let same = (at..places.end).take_while(|at| shell.datagrams.end(*at) == end).count();
        let mut datagrams = Vec::with_capacity(same);
        datagrams.extend((at..at + same).filter_map(|at| shell.datagrams.datagram(at)));
        shell.core.handle(Input::Datagrams { service, end, datagrams: &datagrams });
        at += same;
    }
}

/// Runs a datagram as a message of its peer's session, which opens if there is none. It is dropped
/// if it is too long, or if the session takes no input now.
fn hear_peer(shell: &mut Shell, service: ServiceId, at: usize) {
    let Some((from, bytes)) = shell.datagrams.datagram(at) else { return };
    if bytes.len() > shell.core.services()[usize::from(service.0)].offer.framing().bytes_max() as usize {
        return;
    }
    let slot = match shell.datagrams.session(at, from) {
        Some(slot) => slot,
        None => {
            let Some(id) = shell.datagrams.take_number() else { return };
            let slot = shell.sockets.take_slot();
            // Known whether it opens or not: the core orders a close if it does not.
            let end = shell.datagrams.end(at);
            shell.datagrams.know(slot, end, from);
            let (peer, at_ms) = (Peer::udp(from), unix_ms());
            shell.core.handle(Input::PeerHeard { slot, id, service, end, peer, at_ms });
            slot
        }
    };
    if shell.core.wants_input(slot) {
        let bytes = shell.datagrams.framed(at);
        shell.core.handle(Input::Received { slot, bytes });
    }
}
