//! Sessions whose stream is to become one of TLS: what is known of each until its handshake is
//! done.
//!
//! | a session | event | becomes |
//! | --- | --- | --- |
//! | of a stream | a turn starts TLS, or its PROXY header is whole | due |
//! | due | the kernel took all output before the mark, and that is committed | in its handshake |
//! | in its handshake | done | over TLS |
//! | due or in its handshake | failed, or closed for any reason | gone |
//!
//! The *mark* is the place in the output behind which nothing goes out as it is: what is sent later
//! is kept, and sealed when the handshake is done. A session is in its handshake if and only if its
//! committed count of sent bytes is the mark. From then on the kernel counts the bytes of the
//! handshake, too, so a successor goes by the record.
//!
//! | bytes | content of the record |
//! | --- | --- |
//! | 0 | version of this format |
//! | 1..9 | mark (u64, little-endian) |
//! | 9 on | name that the server's certificate must have; empty: the host is the server |

use crate::ids::Slot;
use crate::store::kind::Kind;
use crate::store::layout::{Full, Ref};
use crate::store::records::Store;
use std::collections::HashMap;

/// Version of the format.
const FORMAT: u8 = 1;
/// Bytes before the name.
const HEAD: usize = 9;

/// Most bytes of a server's name: those of a name in DNS.
const NAME_BYTES_MAX: usize = 253;

/// Returns whether a text may be the name of a server: one of DNS, or an IP address.
pub(crate) fn is_server_name(text: &str) -> bool {
    let may_be = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b);
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(may_be)
}

/// Handshake that the shell is to begin.
#[derive(Debug, Clone, Copy)]
pub struct HandshakeDue<'a> {
    /// Name of the session's service.
    pub service: &'a str,
    /// Name that the server's certificate must have; empty: the host is the server.
    pub server_name: &'a str,
    /// Beginning of what the peer says, which was read already.
    pub input: &'a [u8],
}

/// Handshake that one session is to have.
#[derive(Debug)]
pub(crate) struct Due {
    /// Place in the output behind which nothing goes out as it is.
    pub(crate) mark: u64,
    /// Name that the server's certificate must have; empty: the host is the server.
    pub(crate) server_name: Box<str>,
    record: Ref,
}

/// All sessions that TLS is due for, by slot.
#[derive(Debug, Default)]
pub(crate) struct TlsDue {
    all: HashMap<Slot, Due>,
}

impl TlsDue {
    /// Bytes of the record that [`TlsDue::begin`] writes.
    pub(crate) fn record_bytes(name_len: usize) -> usize {
        HEAD + name_len
    }

    /// Notes that TLS is due for a session, behind `mark`. Fails without room.
    pub(crate) fn begin(
        &mut self,
        store: &mut Store,
        (slot, id): (Slot, u64),
        mark: u64,
        server_name: &str,
    ) -> Result<(), Full> {
        let mut bytes = Vec::with_capacity(HEAD + server_name.len());
        bytes.push(FORMAT);
        bytes.extend_from_slice(&mark.to_le_bytes());
        bytes.extend_from_slice(server_name.as_bytes());
        let record = store.put(None, Kind::TlsDue, id, &bytes)?;
        self.all.insert(slot, Due { mark, server_name: server_name.into(), record });
        Ok(())
    }

    /// Takes in a record that recovery found. False: it is of no use, and the caller deletes it.
    pub(crate) fn recover(&mut self, store: &Store, slot: Slot, record: Ref) -> bool {
        let due = store.read(record, |b| {
            let (head, name) = b.split_first_chunk::<HEAD>()?;
            let mark = u64::from_le_bytes(std::array::from_fn(|i| head[1 + i]));
            let server_name = std::str::from_utf8(name).ok()?.into();
            (head[0] == FORMAT).then_some(Due { mark, server_name, record })
        });
        match due.filter(|_| !self.all.contains_key(&slot)) {
            Some(due) => self.all.insert(slot, due).is_none(),
            None => false,
        }
    }

    /// Returns what is due for a session.
    pub(crate) fn of(&self, slot: Slot) -> Option<&Due> {
        self.all.get(&slot)
    }

    /// Whether all output of a session before its mark was sent: its handshake may begin.
    pub(crate) fn is_drained(&self, slot: Slot, bytes_sent: u64) -> bool {
        self.all.get(&slot).is_some_and(|due| due.mark == bytes_sent)
    }

    /// Forgets a session, and deletes its record.
    #[inline]
    pub(crate) fn forget(&mut self, store: &mut Store, slot: Slot) {
        if !self.all.is_empty()
            && let Some(due) = self.all.remove(&slot)
        {
            store.delete(due.record);
        }
    }
}
