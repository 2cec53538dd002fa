//! Match of connections with sessions, and of records with the kernel's byte counts.
//!
//! The kernel counts the bytes of a connection in both directions, and its counts outlive a worker.
//! Input that the kernel counts and no record has was read by the predecessor and is found in the
//! input memory. Output that a record has and the kernel does not count is sent again by the core.
//!
//! | connection | session | becomes |
//! | --- | --- | --- |
//! | there | counts fit | The session goes on. |
//! | there | counts do not fit | The session is given up, and the connection released. |
//! | gone | there | The session is given up. |
//! | a Unix socket, behind a crash | there | The session is told that the connection broke. |
//! | none: over UDP | there | The session goes on; behind a crash, its unsent output is dropped. |
//! | there, untouched, with a later number | none | A new session opens in the first pass. |
//! | there, any other | none | The connection is released. |
//!
//! *Invariant*: no byte of a stream is run twice, lost, or sent twice. A session for which that
//! cannot be shown is given up with an error in the log, and its handler is not told.
//!
//! A successor runs this once, before its first turn. Only memory of this process and uncommitted
//! records change, so another successor may repeat all of it. O(connections + sessions), with a few
//! system calls for each connection.

use crate::crash_points;
use crate::net::stream::{Stream, is_unix};
use crate::protocol::keeper::EndpointId;
use crate::sys::tcp;
use crate::worker::datagrams::is_udp;
use crate::worker::shell::Shell;
use greenroom_core::ids::Slot;
use greenroom_core::recovery::rebuild::Survivor;
use greenroom_core::recovery::reconcile::StreamCounts;
use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;

/// A connection that the keeper has handed over, with a descriptor of this process.
pub(super) struct HandedOver {
    /// The keeper's key.
    pub key: u32,
    /// Number of the connection, and of its session. Numbers are never used twice.
    pub number: u64,
    /// Endpoint that accepted the connection.
    pub endpoint: EndpointId,
    /// Descriptor of the connection.
    pub fd: OwnedFd,
}

/// Work of the first pass. Lost input is no part of it: its sessions are given up.
#[derive(Default)]
pub(super) struct Backlog {
    /// Whether the predecessor has handed over.
    in_order: bool,
    /// Input that the predecessor had read and not committed, whole for each session.
    pub input: Vec<(Slot, Vec<u8>)>,
    /// Connections whose streams end here: a crash leaves a Unix socket without byte counts. Their
    /// sessions are told that the connection broke.
    pub ended: Vec<Slot>,
    /// Connections that were reset meanwhile, and to which nothing can be sent any more. Their
    /// input is read to its end, although the poll may report nothing.
    pub broken: Vec<Slot>,
    /// Connections without a session yet, and UDP ports, in the order of their numbers.
    pub fresh: Vec<HandedOver>,
    /// Connections without a session that are released, key and number of each. A session that
    /// asked for one of them is told in the first pass.
    pub refused: Vec<(u32, u64)>,
}

/// Puts every session back on its connection, and asks the kernel how far each one got.
///
/// A session without a connection, or whose byte counts do not fit, is given up with an error in
/// the log. A connection without a session is released, or is fresh. The caller has told which
/// connections are outbound. If there are sessions, nothing is committed since the records were
/// read.
///
/// `in_order`: the predecessor has handed over, so its records count what it read and sent.
pub(super) fn reconcile(
    shell: &mut Shell,
    survivors: &[Survivor],
    handed_over: Vec<HandedOver>,
    in_order: bool,
) -> Backlog {
    let mut backlog = Backlog { in_order, ..Backlog::default() };
    // The predecessor noted its reads under the epoch that it was about to commit.
    let epoch = shell.core.store().epoch() + 1;
    reserve_slots(shell, survivors);
    let mut slots: HashMap<u64, Slot> = survivors.iter().map(|s| (s.id, s.slot)).collect();
    let mut seen = HashSet::new();
    for connection in handed_over {
        let HandedOver { key, number, .. } = connection;
        if !seen.insert(number) {
            // The keeper has handed the connection over twice.
            continue;
        }
        if is_udp(&connection.fd) {
            backlog.fresh.push(connection);
            continue;
        }
        // Sessions that are left over at the end have no connection.
        let Some(slot) = slots.remove(&number) else {
            match is_fresh(shell, &connection, in_order) {
                true => backlog.fresh.push(connection),
                false => backlog.refused.push((key, number)),
            }
            continue;
        };
        if !put_back(shell, slot, connection, epoch, &mut backlog) {
            give_up(shell, slot);
            shell.keeper.release(key, number);
        }
    }
    for (session, slot) in slots {
        if shell.core.sessions().get(slot).is_some_and(|s| s.udp_end().is_some()) {
            match go_on_over_udp(shell, slot, in_order) {
                Ok(()) => continue,
                Err(why) => tracing::error!("given up, because it cannot be trusted: {why}"),
            }
            shell.sockets.give_back(slot);
            continue;
        }
        tracing::error!(session, "session given up: the connection is gone");
        give_up(shell, slot);
    }
    backlog
}

/// Lets a session over UDP go on, which has no connection. What a predecessor that died has not
/// sent may have been sent, so it is dropped: datagrams go out at most once. The error says why the
/// session is gone.
fn go_on_over_udp(shell: &mut Shell, slot: Slot, in_order: bool) -> Result<(), String> {
    let Some(s) = shell.core.sessions().get(slot) else { return Err("it is gone".into()) };
    let counts = match in_order {
        true => StreamCounts::Recorded,
        false => StreamCounts::Kernel { read: s.bytes_in, sent: Some(s.bytes_out) },
    };
    shell.core.reconcile(slot, counts)?;
    shell.datagrams.take_over(&shell.core, slot);
    Ok(())
}

/// Reserves the slots of all sessions. Slots between them are free. Must come before any connection
/// is put in its place. O(highest slot).
fn reserve_slots(shell: &mut Shell, survivors: &[Survivor]) {
    let end = survivors.iter().map(|s| s.slot.0 as usize + 1).max().unwrap_or(0);
    shell.sockets.reserve(end);
    let used: HashSet<Slot> = survivors.iter().map(|s| s.slot).collect();
    for slot in (0..end as u32).map(Slot).filter(|s| !used.contains(s)) {
        shell.sockets.give_back(slot);
    }
}

/// Returns whether a connection without a session is a new one: later than all that were served,
/// and without any byte read or sent. A session for any other one was closed already, or was given
/// up. A connection whose counts cannot be read is not fresh.
///
/// The kernel counts nothing for a Unix socket. It is fresh if the predecessor has handed over: a
/// crash leaves open what was read.
fn is_fresh(shell: &Shell, connection: &HandedOver, in_order: bool) -> bool {
    let number = connection.number;
    if is_unix(&connection.fd) {
        return in_order && number > shell.core.connection_number();
    }
    // Its secrets say whether a session had it before. They may come late, so its number tells
    // nothing.
    if shell.handshakes.of(number).is_some() {
        return true;
    }
    // On an outbound connection the host's own SYN counts as a byte.
    let own_syn = u64::from(shell.keeper.dialed(number).is_some());
    let untouched =
        tcp::counts(&connection.fd).is_ok_and(|c| c.read == 0 && c.sent.is_none_or(|n| n == own_syn));
    let later = number > shell.core.connection_number();
    if later && !untouched {
        tracing::error!(session = number, "connection given up: no session is recorded for it");
    }
    later && untouched
}

/// Puts a session back on its connection. False: that fails, and the log says why. The caller gives
/// the session up then. The comparison comes first, because it needs the descriptor.
fn put_back(
    shell: &mut Shell,
    slot: Slot,
    connection: HandedOver,
    epoch: u64,
    backlog: &mut Backlog,
) -> bool {
    let HandedOver { key, number, fd, .. } = connection;
    if let Err(why) = compare(shell, slot, number, &fd, epoch, backlog) {
        tracing::error!("given up, because it cannot be trusted: {why}");
        return false;
    }
    let socket = Stream::from(fd);
    // The predecessor may have found its peer slow.
    socket.acknowledge_within(shell.core.limits().dead_peer_ms);
    if let Err(e) = shell.sockets.put(slot, socket, key) {
        tracing::error!(session = number, "session given up: the connection cannot be taken in: {e}");
        return false;
    }
    true
}

/// Forgets a session of the predecessor, and frees its slot. Its handler is not told.
fn give_up(shell: &mut Shell, slot: Slot) {
    shell.core.give_up(slot);
    shell.sockets.give_back(slot);
}

/// Compares a session with the kernel's byte counts, and finds the input that the predecessor had
/// read and not committed. An error says why the session cannot be trusted.
///
/// A session is not trusted if the kernel has given out fewer bytes than were run. The same holds
/// if it has taken output that no record has, or if input that was read is lost.
///
/// O(output pieces), and a scan of the notes of reads if input is missing. If segments arrive
/// meanwhile, the kernel is asked again until its counts stand still.
fn compare(
    shell: &mut Shell,
    slot: Slot,
    number: u64,
    fd: &OwnedFd,
    epoch: u64,
    backlog: &mut Backlog,
) -> Result<(), String> {
    let Some(session) = shell.core.sessions().get(slot) else { return Err("it is gone".into()) };
    let (bytes_in, bytes_sent) = (session.bytes_in, session.bytes_sent);
    if is_unix(fd) {
        if backlog.in_order {
            return shell.core.reconcile(slot, StreamCounts::Recorded).map(|_| ());
        }
        shell.core.reconcile(slot, StreamCounts::Kernel { read: bytes_in, sent: None })?;
        backlog.ended.push(slot);
        return Ok(());
    }
    // On an outbound connection the host's own SYN counts as a byte.
    let own_syn = u64::from(session.outbound);
    // For the chaos test: shows that a takeover without the kernel's counts loses bytes.
    if crash_points::unreconciled() {
        let _ = shell.core.reconcile(slot, StreamCounts::Kernel { read: bytes_in, sent: Some(bytes_sent) });
        return Ok(());
    }
    let counts = tcp::counts(fd).map_err(|e| format!("session {number}: {e}"))?;
    let sent = counts.sent.map(|n| n.saturating_sub(own_syn));
    let missing = shell.core.reconcile(slot, StreamCounts::Kernel { read: counts.read, sent })?;
    if missing > 0 {
        match shell.sockets.find_input(number, bytes_in, missing as usize, epoch) {
            Some(bytes) => backlog.input.push((slot, bytes)),
            // The peer of a dead connection gets no answer: the input is unneeded.
            None if counts.broken => {}
            None => return Err(format!("session {number}: {missing} bytes of its input can't be found")),
        }
    }
    if counts.broken {
        // The predecessor may have taken the error from the socket, so a read reports only an end.
        shell.sockets.note_broken(slot);
        if counts.sent.is_none() {
            backlog.broken.push(slot);
        }
    }
    Ok(())
}
