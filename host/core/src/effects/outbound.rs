//! Outbound connections: asked for, open, failed. The keeper makes them; then they are sessions.
//!
//! | connection | event | becomes |
//! | --- | --- | --- |
//! | asked for | the commit of the turn | being made |
//! | being made | open | a session, and an outcome for the owner |
//! | being made | failed, or `connect_ms` are over | an outcome for the owner |
//! | being made | its owner ends | dropped: given up, and closed at once if it opens |
//! | dropped | its outcome is reported | forgotten |
//! | being made | the worker died | asked for again by the successor |
//!
//! A connection is one record until its outcome is an action. The same commit deletes the record
//! and adds the action, so the owner is told once, by whichever worker serves then. After the death
//! of a worker, the peer may see a connection twice.
//!
//! `connects_max` bounds the connections that are being made: a turn that asks for one more is
//! refused. A dropped one counts until its outcome is reported, as it costs the keeper a socket.
//! Each service has a share of that limit, whatever others have.

use crate::ids::ServiceId;
use crate::store::kind::Kind;
use crate::store::layout::Ref;
use crate::store::records::Store;
use greenroom_state::address::Address;
use std::collections::{BTreeMap, BTreeSet};

/// Bits of a number below the epoch. As long as a pass asks for fewer than 2^20 connections on
/// average, a successor that counts on from the epoch repeats no number.
const CONNECTS_PER_PASS_BITS: u32 = 20;
/// Bytes of a connection's record beside its address and context.
const CONNECT_HEAD: usize = 16;
/// Text before the address of a connection over TLS.
const OVER_TLS: &str = "tls+";
/// Bytes of an address as text, at most. Room for a record is reserved for this length.
const ADDR_BYTES_MAX: usize = 128;
/// Bytes of the outcome that a session is told, at most. An outcome uses the store's reserve, so
/// longer ones are cut.
pub(crate) const OUTCOME_BYTES_MAX: usize = 2 * ADDR_BYTES_MAX;

/// Target of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Address.
    pub addr: Address,
    /// Name that the server's certificate must have; `None`: the connection is not over TLS.
    pub over_tls: Option<Box<str>>,
}

/// A connection for the shell to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dial {
    /// Number by which its outcome is reported.
    pub number: u64,
    /// Service that it will be a session of.
    pub service: ServiceId,
    /// Target to connect to.
    pub target: Target,
}

/// A connection that is being made. Its context is in its record alone.
#[derive(Debug)]
pub(crate) struct Connect {
    /// Number of the session that asked for it, or of the service.
    pub(crate) owner: u64,
    /// Service of the owner.
    asked_by: ServiceId,
    /// Service that it will be a session of.
    pub(crate) service: ServiceId,
    /// Target to connect to, kept for operators and for [`Outbound::take_begun`].
    pub(crate) target: Target,
    record: Ref,
}

/// The connections that are being made.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    /// Connections by number.
    all: BTreeMap<u64, Connect>,
    /// Owner and number of each.
    by_owner: BTreeSet<(u64, u64)>,
    /// Connections asked for since [`Outbound::take_begun`].
    begun: BTreeSet<u64>,
    /// Dropped connections whose outcome has not been reported, with the service of the owner.
    dropped: BTreeMap<u64, ServiceId>,
    /// Connections that count, by the service of the owner.
    counts: BTreeMap<ServiceId, usize>,
    /// Highest number given so far.
    last: u64,
}

/// Encodes a connection's record. Numbers are little-endian.
///
/// | bytes | field |
/// | --- | --- |
/// | 0 to 7 | number |
/// | 8 to 11 | service, length of the address (2 bytes each) |
/// | 12 to 13 | length of the server's name, over TLS |
/// | 14 to 15 | zero |
/// | 16 on | the address, behind `tls+` over TLS; the server's name; the context |
///
/// An older binary finds no address in a record over TLS. So it drops the record, and does not
/// connect without TLS.
fn encode(number: u64, service: ServiceId, target: &Target, context: &[u8]) -> Vec<u8> {
    let over_tls = if target.over_tls.is_some() { OVER_TLS } else { "" };
    let addr = format!("{over_tls}{}", target.addr.stored_text());
    let name = target.over_tls.as_deref().unwrap_or_default();
    let mut bytes = Vec::with_capacity(CONNECT_HEAD + addr.len() + name.len() + context.len());
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&service.0.to_le_bytes());
    bytes.extend_from_slice(&(addr.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&(name.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(addr.as_bytes());
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(context);
    bytes
}

/// Decodes a record: number, service, target, context. `None`: it is too short, or its address
/// is none.
fn decode(bytes: &[u8]) -> Option<(u64, ServiceId, Target, &[u8])> {
    let (head, rest) = bytes.split_at_checked(CONNECT_HEAD)?;
    let short = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    let (addr, rest) = rest.split_at_checked(usize::from(short(10)))?;
    let (name, context) = rest.split_at_checked(usize::from(short(12)))?;
    let addr = std::str::from_utf8(addr).ok()?;
    let (addr, over_tls) = match addr.strip_prefix(OVER_TLS) {
        Some(addr) => (addr, Some(std::str::from_utf8(name).ok()?.into())),
        None => (addr, None),
    };
    let target = Target { addr: addr.parse().ok()?, over_tls };
    Some((u64::from_le_bytes(head[..8].try_into().ok()?), ServiceId(short(8)), target, context))
}

impl Outbound {
    /// Bytes of the record that [`Outbound::ask`] writes.
    pub(crate) fn record_bytes(addr: &Address, name_len: Option<usize>, context_len: usize) -> usize {
        let over_tls = name_len.map_or(0, |len| OVER_TLS.len() + len);
        CONNECT_HEAD + addr.stored_text().len() + over_tls + context_len
    }

    /// Number of the next connection. A turn that fails leaves its numbers to later ones.
    pub(crate) fn next(&self) -> u64 {
        self.last + 1
    }

    /// Connections that are being made, dropped ones included.
    pub(crate) fn len(&self) -> usize {
        self.all.len() + self.dropped.len()
    }

    /// Connections of a service's sessions and of its own, dropped ones included. O(log services).
    pub(crate) fn of_service(&self, service: ServiceId) -> usize {
        self.counts.get(&service).copied().unwrap_or(0)
    }

    /// Whether the shell has connections to make.
    pub(crate) fn are_begun(&self) -> bool {
        !self.begun.is_empty()
    }

    /// Asks for a connection: the turn that wants it is applied. Room must be reserved. The
    /// shell gets it after the commit.
    pub(crate) fn ask(
        &mut self,
        store: &mut Store,
        (owner, asked_by): (u64, ServiceId),
        number: u64,
        (service, target): (ServiceId, Target),
        context: &[u8],
    ) {
        let put = store.put(None, Kind::Connect, owner, &encode(number, service, &target, context));
        let record = put.expect("room was reserved before");
        self.insert(number, Connect { owner, asked_by, service, target, record });
    }

    /// Enters a connection, to be made after the next commit.
    fn insert(&mut self, number: u64, connect: Connect) {
        self.last = self.last.max(number);
        self.by_owner.insert((connect.owner, number));
        *self.counts.entry(connect.asked_by).or_default() += 1;
        self.all.insert(number, connect);
        self.begun.insert(number);
    }

    /// Takes a connection out of the indexes. It counts until [`Outbound::counts_no_more`].
    fn take_out(&mut self, number: u64) -> Option<Connect> {
        let connect = self.all.remove(&number)?;
        self.by_owner.remove(&(connect.owner, number));
        Some(connect)
    }

    /// Ends the count of a connection, of which an outcome was reported or none will be.
    fn counts_no_more(&mut self, asked_by: ServiceId) {
        if let Some(count) = self.counts.get_mut(&asked_by) {
            *count = count.saturating_sub(1);
        }
    }

    /// The connections to make, after a commit. Those that were dropped since are left out.
    pub(crate) fn take_begun(&mut self) -> Vec<Dial> {
        let begun = std::mem::take(&mut self.begun);
        let dial = |number| {
            let Connect { service, target, .. } = self.all.get(&number)?;
            Some(Dial { number, service: *service, target: target.clone() })
        };
        begun.into_iter().filter_map(dial).collect()
    }

    /// The connections of an owner, by number. O(its connections + log connections).
    pub(crate) fn of(&self, owner: u64) -> impl Iterator<Item = (u64, &Connect)> {
        let own = self.by_owner.range((owner, 0)..=(owner, u64::MAX));
        own.filter_map(|(_, number)| Some((*number, self.all.get(number)?)))
    }

    /// Takes off a connection that is open or has failed, with its context. `None`: nobody wants
    /// it any more. The caller tells the owner in the same pass: one commit has both.
    pub(crate) fn take(&mut self, store: &mut Store, number: u64) -> Option<(Connect, Vec<u8>)> {
        if let Some(asked_by) = self.dropped.remove(&number) {
            self.counts_no_more(asked_by);
        }
        let connect = self.take_out(number)?;
        self.counts_no_more(connect.asked_by);
        let context = store.read(connect.record, |b| decode(b).map(|(.., c)| c.to_vec()));
        store.delete(connect.record);
        Some((connect, context.unwrap_or_default()))
    }

    /// Drops all connections of an owner that ends. O(its connections). Returns the numbers that
    /// the shell is to give up. One that opens all the same finds no record, and is closed.
    pub(crate) fn drop_all(&mut self, store: &mut Store, owner: u64) -> Vec<u64> {
        if self.all.is_empty() {
            return Vec::new();
        }
        let mut own: Vec<u64> = self.of(owner).map(|(number, _)| number).collect();
        own.retain(|number| {
            let Some(c) = self.take_out(*number) else { return false };
            store.delete(c.record);
            // A connection that the shell was never told of has no outcome.
            let is_asked = !self.begun.remove(number);
            match is_asked {
                true => _ = self.dropped.insert(*number, c.asked_by),
                false => self.counts_no_more(c.asked_by),
            }
            is_asked
        });
        own
    }

    /// Takes in a connection that recovery found, and asks for it again under its number. A
    /// double, one that can't be read, one of an unknown service and one without an owner alive
    /// are deleted. `asked_by`: service of the owner; `None`: it does not live.
    pub(crate) fn recover(
        &mut self,
        store: &mut Store,
        owner: u64,
        record: Ref,
        asked_by: Option<ServiceId>,
        services: usize,
    ) {
        let read = store.read(record, |b| decode(b).map(|(n, s, a, _)| (n, s, a)));
        let sound =
            |(n, s, _): &(u64, ServiceId, Target)| usize::from(s.0) < services && !self.all.contains_key(n);
        match read.filter(sound).zip(asked_by) {
            Some(((number, service, target), asked_by)) => {
                self.insert(number, Connect { owner, asked_by, service, target, record });
            }
            None => store.delete(record),
        }
    }

    /// Lets new numbers begin behind all that a predecessor gave: the keeper may still report
    /// some of those. Called once, by recovery.
    pub(crate) fn skip_numbers(&mut self, store: &Store) {
        self.last = self.last.max(store.epoch() << CONNECTS_PER_PASS_BITS);
    }
}
