//! Outbound connections: asked for, open, failed. The shell makes them; then they are sessions.
//!
//! A connection is asked for with the commit of the turn that wants it, and its record stays until
//! it is open or has failed: whatever process serves then, the session that asked is told once. If
//! the process dies meanwhile, the connection may be tried again.

use crate::ids::ServiceId;
use crate::store::kind::Kind;
use crate::store::layout::Ref;
use crate::store::records::Store;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Bits that number the connections of one pass: a pass can't ask for more.
const CONNECTS_PER_PASS_BITS: u32 = 20;
/// Bytes of a connection's record beside its address and context.
const CONNECT_HEAD: usize = 16;
/// Bytes of an address as text, at most.
const ADDR_BYTES_MAX: usize = 64;
/// Bytes of the outcome that a session is told, at most. An outcome uses the store's reserve, so it
/// is short.
pub(crate) const OUTCOME_BYTES_MAX: usize = 4 * ADDR_BYTES_MAX;

/// A connection to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dial {
    /// Number by which its outcome is reported.
    pub number: u64,
    /// Address to connect to.
    pub addr: SocketAddr,
}

/// A connection that is being made.
#[derive(Debug)]
pub(crate) struct Connect {
    /// Number of the session that asked for it, or of the service.
    pub(crate) owner: u64,
    /// Service that it will be a session of.
    pub(crate) service: ServiceId,
    pub(crate) addr: SocketAddr,
    record: Ref,
}

/// The connections that are being made.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    all: BTreeMap<u64, Connect>,
    /// Connections asked for in this pass.
    begun: Vec<u64>,
    last: u64,
}

/// A connection's record: its number (u64, little-endian), service and length of the address (u16
/// each), four bytes of nothing, the address, the context.
fn encode(number: u64, service: ServiceId, addr: SocketAddr, context: &[u8]) -> Vec<u8> {
    let addr = addr.to_string();
    let mut bytes = Vec::with_capacity(CONNECT_HEAD + addr.len() + context.len());
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&service.0.to_le_bytes());
    bytes.extend_from_slice(&(addr.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(addr.as_bytes());
    bytes.extend_from_slice(context);
    bytes
}

fn decode(bytes: &[u8]) -> Option<(u64, ServiceId, SocketAddr, &[u8])> {
    let (head, rest) = bytes.split_at_checked(CONNECT_HEAD)?;
    let short = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    let (addr, context) = rest.split_at_checked(usize::from(short(10)))?;
    let addr = std::str::from_utf8(addr).ok()?.parse().ok()?;
    Some((u64::from_le_bytes(head[..8].try_into().ok()?), ServiceId(short(8)), addr, context))
}

impl Outbound {
    /// Bytes of the record that [`Outbound::ask`] writes, at most.
    pub(crate) fn record_bytes(context_len: usize) -> usize {
        CONNECT_HEAD + ADDR_BYTES_MAX + context_len
    }

    /// Number of the next connection.
    pub(crate) fn next(&self) -> u64 {
        self.last + 1
    }

    /// Connections that are being made.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether the shell has connections to make.
    pub(crate) fn are_begun(&self) -> bool {
        !self.begun.is_empty()
    }

    /// Asks for a connection. Room must be reserved.
    pub(crate) fn ask(
        &mut self,
        store: &mut Store,
        owner: u64,
        number: u64,
        (service, addr): (ServiceId, SocketAddr),
        context: &[u8],
    ) {
        let put = store.put(None, Kind::Connect, owner, &encode(number, service, addr, context));
        let record = put.expect("room was reserved before");
        self.insert(number, Connect { owner, service, addr, record });
    }

    fn insert(&mut self, number: u64, connect: Connect) {
        self.last = self.last.max(number);
        self.all.insert(number, connect);
        self.begun.push(number);
    }

    /// The connections to make, after a commit.
    pub(crate) fn take_begun(&mut self) -> Vec<Dial> {
        let begun = std::mem::take(&mut self.begun);
        let all = &self.all;
        begun.into_iter().filter_map(|number| Some(Dial { number, addr: all.get(&number)?.addr })).collect()
    }

    /// The connections of an owner, by number. O(connections).
    pub(crate) fn of(&self, owner: u64) -> impl Iterator<Item = (u64, &Connect)> {
        self.all.iter().filter(move |(_, c)| c.owner == owner).map(|(number, c)| (*number, c))
    }

    /// Takes off a connection that is open or has failed, with its context. `None`: nobody wants it
    /// any more.
    pub(crate) fn take(&mut self, store: &mut Store, number: u64) -> Option<(Connect, Vec<u8>)> {
        let connect = self.all.remove(&number)?;
        let context = store.read(connect.record, |b| decode(b).map(|(.., c)| c.to_vec()));
        store.delete(connect.record);
        Some((connect, context.unwrap_or_default()))
    }

    /// Drops all connections of an owner that ends. O(connections).
    pub(crate) fn drop_all(&mut self, store: &mut Store, owner: u64) {
        if self.all.is_empty() {
            return;
        }
        let own: Vec<u64> = self.of(owner).map(|(number, _)| number).collect();
        for number in own {
            if let Some(c) = self.all.remove(&number) {
                store.delete(c.record);
            }
        }
    }

    /// Takes in a connection that recovery found, and asks for it again. A double, one that can't
    /// be read, one of an unknown service and one without an owner alive are deleted.
    pub(crate) fn recover(
        &mut self,
        store: &mut Store,
        owner: u64,
        record: Ref,
        owner_lives: bool,
        services: usize,
    ) {
        let read = store.read(record, |b| decode(b).map(|(n, s, a, _)| (n, s, a)));
        let sound = |(n, s, _): &(u64, ServiceId, SocketAddr)| {
            owner_lives && usize::from(s.0) < services && !self.all.contains_key(n)
        };
        match read.filter(sound) {
            Some((number, service, addr)) => {
                self.insert(number, Connect { owner, service, addr, record });
            }
            None => store.delete(record),
        }
    }

    /// Sees to it that no number is used again, as the shell remembers some.
    pub(crate) fn skip_numbers(&mut self, store: &Store) {
        self.last = self.last.max(store.epoch() << CONNECTS_PER_PASS_BITS);
    }
}
