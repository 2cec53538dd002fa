//! Datagrams to send: the shell sends them behind the commit, at most once.
//!
//! Datagrams are no records. A worker that dies before it has sent them loses them, as the
//! network loses others. Costs one copy of the bytes.

use crate::framing::peer::LocalEnd;
use crate::ids::ServiceId;
use std::net::SocketAddr;

/// Datagram to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Service whose turn sends it.
    pub service: ServiceId,
    /// End to send it from.
    pub from: LocalEnd,
    /// Address to send it to.
    pub to: SocketAddr,
    /// Bytes of the datagram.
    pub bytes: &'a [u8],
}

/// Datagrams of a pass, oldest first.
#[derive(Debug, Default)]
pub struct DatagramsToSend {
    bytes: Vec<u8>,
    /// Service, end at the host, address, and end of the bytes.
    all: Vec<(ServiceId, LocalEnd, SocketAddr, usize)>,
}

impl DatagramsToSend {
    /// Moves all datagrams into another list, whose own are dropped. Its memory is used again.
    pub(crate) fn move_to(&mut self, into: &mut DatagramsToSend) {
        into.clear();
        std::mem::swap(self, into);
    }

    /// Adds a datagram.
    pub(crate) fn push(&mut self, service: ServiceId, from: LocalEnd, to: SocketAddr, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.all.push((service, from, to, self.bytes.len()));
    }

    /// Number of them.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Datagrams in the order in which turns sent them.
    pub fn iter(&self) -> impl Iterator<Item = Datagram<'_>> {
        let begins = std::iter::once(0).chain(self.all.iter().map(|(.., end)| *end));
        self.all.iter().zip(begins).map(|(&(service, from, to, end), begin)| Datagram {
            service,
            from,
            to,
            bytes: &self.bytes[begin..end],
        })
    }

    /// Drops all, and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.all.clear();
    }
}
