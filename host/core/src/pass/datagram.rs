//! Datagrams of a service itself: each is an action, and no session has it.
//!
//! A datagram has its turn at once, or is dropped: nothing of it is kept. What its turn asks for is
//! as durable as what any turn asks for. But the datagram itself, and its answers, are carried out
//! at most once. A worker that dies before the commit loses both.
//!
//! A datagram whose turn killed the process has the hash of its bytes as its number. So the same
//! bytes from any address are dropped once they are blocked, and not run a third time.
//!
//! Costs: a turn for each datagram, and a call of the library for up to `BATCH_ACTIONS_MAX`.

use super::Pass;
use crate::effects::running_batch::RunningBatch;
use crate::execute::watched::run_batch;
use crate::framing::peer::LocalEnd;
use crate::host_state::HostState;
use crate::host_state::notice::notice;
use crate::ids::{ServiceId, Slot};
use crate::limits::budget::READ_NS;
use crate::limits::host::BATCH_ACTIONS_MAX;
use crate::limits::names::Limit;
use greenroom_state::abi::{Action, Bytes, action, level};
use std::io::Write as _;
use std::net::SocketAddr;

/// Runs the turns of datagrams that came to one end of a service. Datagrams are dropped while the
/// host stops, if no build serves, if they are too long, and if they are blocked.
pub(crate) fn received(
    pass: &mut Pass<'_>,
    service: ServiceId,
    end: LocalEnd,
    datagrams: &[(SocketAddr, &[u8])],
) {
    pass.host.budget.spend(READ_NS);
    let slot = Slot::of_service(service);
    if pass.host.stopping || pass.host.services[service].build.is_none() {
        return;
    }
    let bytes_max = pass.host.services[service].offer.framing().bytes_max() as usize;
    let takes = |(_, bytes): &&(SocketAddr, &[u8])| bytes.len() <= bytes_max;
    let mut taken = Vec::new();
    let mut rest = datagrams;
    let too_long = datagrams.len() - datagrams.iter().filter(takes).count();
    if too_long > 0 {
        (0..too_long).for_each(|_| pass.host.limits.reached(Limit::FrameBytesMax));
        taken.extend(datagrams.iter().filter(takes).copied());
        rest = &taken;
    }
    while !rest.is_empty() {
        // Bytes that are blocked are looked for one by one, and somebody may watch one address.
        let one_by_one = pass.host.quarantines.blocks_actions() || !pass.host.watchers.is_empty();
        let most = if one_by_one { 1 } else { BATCH_ACTIONS_MAX };
        let (batch, _) = rest.split_at(rest.len().min(most));
        rest = &rest[run(pass, slot, end, batch).clamp(1, batch.len())..];
    }
}

/// Runs a batch. Returns how many datagrams have had their turns, or are dropped; at least 1.
fn run(pass: &mut Pass<'_>, slot: Slot, end: LocalEnd, batch: &[(SocketAddr, &[u8])]) -> usize {
    let Pass { host, executor, .. } = pass;
    if !name_turn(host, slot, batch[0].1) {
        return 1;
    }
    let mut names = Vec::with_capacity(batch.len() * V4_TEXT_BYTES_MAX);
    let ends: Vec<_> = batch
        .iter()
        .map(|(from, _)| {
            write_address(*from, &mut names);
            names.len()
        })
        .collect();
    let begins = std::iter::once(0).chain(ends.iter().copied());
    let actions: Vec<_> = (batch.iter().zip(begins).zip(&ends))
        .map(|(((_, bytes), begin), until)| Action {
            detail: end.port,
            name: Bytes::from(&names[begin..*until]),
            ..Action::new(action::DATAGRAM, Bytes::from(*bytes))
        })
        .collect();
    executor.hear(end, batch.iter().map(|(from, bytes)| (*from, bytes.len())));
    let ran = run_batch(host, executor, slot, &actions, &mut RunningBatch::default());
    executor.hear(LocalEnd::default(), std::iter::empty());
    // The state of a service's own turns is none, so nothing may wait: a datagram that no build
    // can run is dropped.
    ran.consumed.max(1)
}

/// Longest text of an address of IPv4 with a port.
const V4_TEXT_BYTES_MAX: usize = "255.255.255.255:65535".len();

/// Appends an address as text. The formatter would be half of what a datagram of IPv4 costs here.
fn write_address(addr: SocketAddr, out: &mut Vec<u8>) {
    let SocketAddr::V4(v4) = addr else {
        // Writing to memory cannot fail.
        let _ = write!(out, "{addr}");
        return;
    };
    let mut text = [0; V4_TEXT_BYTES_MAX];
    let mut len = 0;
    let mut put = |byte: u8| {
        text[len] = byte;
        len += 1;
    };
    for (n, octet) in v4.ip().octets().into_iter().enumerate() {
        if octet >= 100 {
            put(b'0' + octet / 100);
        }
        if octet >= 10 {
            put(b'0' + octet / 10 % 10);
        }
        put(b'0' + octet % 10);
        put(if n < 3 { b'.' } else { b':' });
    }
    let port = v4.port();
    for power in [10_000, 1000, 100, 10] {
        if port >= power {
            put(b'0' + (port / power % 10) as u8);
        }
    }
    put(b'0' + (port % 10) as u8);
    out.extend_from_slice(&text[..len]);
}

/// Gives a datagram's turn its number. False: these bytes are blocked, and operators are told.
fn name_turn(host: &mut HostState, slot: Slot, bytes: &[u8]) -> bool {
    let Some(s) = host.sessions.get_mut(slot) else { return false };
    // FNV-1a. The shift leaves the upper bit free, so that counting turns on can't overflow.
    let step = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
    // A prefix tells datagrams apart well enough, and costs the same for long ones.
    let head = &bytes[..bytes.len().min(64)];
    s.turns = head.iter().fold(0xcbf2_9ce4_8422_2325 ^ bytes.len() as u64, step) >> 1;
    let (id, turn) = (s.id, s.turns);
    if host.quarantines.blocks_actions() && host.quarantines.is_blocked(id, turn, action::DATAGRAM) {
        notice(host, level::WARN, slot, "a datagram was dropped: its turn has killed the process".into());
        return false;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_the_formatter_does() {
        for addr in ["0.0.0.0:0", "127.0.0.1:9", "255.255.255.255:65535", "10.20.30.4:100", "[fe80::1%3]:53"]
        {
            let mut out = b"before".to_vec();
            write_address(addr.parse().unwrap(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), format!("before{addr}"));
        }
    }
}
