//! State of a session over TLS, as it is stored: secrets, keys and numbers of both directions.
//!
//! | bytes of format 1 | 2 | content |
//! | --- | --- | --- |
//! | 0 | same | number of the format |
//! | 1 | same | flags |
//! | 2..6 | same | version of TLS, cipher suite (u16 each, big-endian, as TLS has them) |
//! | 6 | same | bytes of a secret; 0 in TLS 1.2 |
//! | 7 | same | changes of the peer's keys since its last data |
//! | 8..108 | same | what the peer seals: secret (48), key (32), IV (12), number (u64) |
//! | 108..208 | same | what the host seals, likewise |
//! | 208..224 | 208..220 | bytes of the stream that the handshake has read, and written |
//! | 224..232 | 220..224 | changes of the peer's keys, and of the host's |
//! | 232..248 | | zero |
//!
//! Format 2 is that of records: a record in it has half the block that one in format 1 needs. Its
//! counts have six bytes, and changes two: what is beyond is left out, as people alone read them.
//! Format 1 is that of messages between processes, and of records of older binaries.
//!
//! Numbers are little-endian. Nothing here depends on a library: these are the values of the RFCs,
//! so a successor with another one goes on.
//!
//! The types can't be printed or serialized, and wipe themselves: they hold what opens a stream.

use zeroize::Zeroize;

/// Bytes of a state in a record.
pub const STATE_BYTES: usize = 224;
/// Bytes of a state in a message.
pub const MESSAGE_BYTES: usize = 248;
/// Format of messages.
const FORMAT_MESSAGE: u8 = 1;
/// Format of records.
const FORMAT_RECORD: u8 = 2;
/// Bytes of a stored direction.
const DIRECTION_BYTES: usize = 100;
/// Place of the direction that the peer seals.
const PEER_AT: usize = 8;
/// Place of the direction that the host seals.
const HOST_AT: usize = PEER_AT + DIRECTION_BYTES;
/// Place of the offsets and counts.
const COUNTS_AT: usize = HOST_AT + DIRECTION_BYTES;

/// Flag: the peer has ended its side by an alert.
const PEER_CLOSED: u8 = 1;
/// Flag: the host has sent its last alert.
const HOST_CLOSED: u8 = 1 << 1;
/// Flag: the host is the client.
const IS_CLIENT: u8 = 1 << 2;

/// Secret, key and number of one direction.
#[derive(Clone, PartialEq, Eq)]
pub struct Direction {
    /// Traffic secret of TLS 1.3, from which the next one is derived; else zero.
    pub secret: [u8; 48],
    /// Bytes of the secret; 0: there is none.
    pub secret_len: u8,
    /// Key of the cipher.
    pub key: [u8; 32],
    /// IV. In TLS 1.2 a cipher may use a part of it.
    pub iv: [u8; 12],
    /// Number of the next record.
    pub number: u64,
}

impl Default for Direction {
    fn default() -> Direction {
        Direction { secret: [0; 48], secret_len: 0, key: [0; 32], iv: [0; 12], number: 0 }
    }
}

impl Drop for Direction {
    fn drop(&mut self) {
        self.secret.zeroize();
        self.key.zeroize();
        self.iv.zeroize();
    }
}

/// State of a session over TLS.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TlsState {
    /// Version: [`super::record::TLS_1_2`] or [`super::record::TLS_1_3`].
    pub version: u16,
    /// Number of the cipher suite.
    pub suite: u16,
    /// Direction that the peer seals.
    pub peer: Direction,
    /// Direction that the host seals.
    pub host: Direction,
    /// Bytes of the stream that the handshake has read.
    pub read: u64,
    /// Bytes of the stream that the handshake has written.
    pub written: u64,
    /// Changes of the peer's keys so far.
    pub peer_updates: u32,
    /// Changes of the host's keys so far.
    pub host_updates: u32,
    /// Changes of the peer's keys since its last data.
    pub updates_in_a_row: u8,
    /// The peer has ended its side by an alert, so an end of the stream is no cut.
    pub peer_closed: bool,
    /// The host has sent its last alert: nothing may follow.
    pub host_closed: bool,
    /// The host is the client of the connection, and its peer the server.
    pub is_client: bool,
}

impl TlsState {
    /// Encodes the state for a record. The caller wipes the bytes.
    pub fn encode(&self) -> [u8; STATE_BYTES] {
        let mut b = [0; STATE_BYTES];
        self.encode_head(FORMAT_RECORD, &mut b);
        b[COUNTS_AT..COUNTS_AT + 6].copy_from_slice(&self.read.to_le_bytes()[..6]);
        b[COUNTS_AT + 6..COUNTS_AT + 12].copy_from_slice(&self.written.to_le_bytes()[..6]);
        b[COUNTS_AT + 12..COUNTS_AT + 14].copy_from_slice(&self.peer_updates.to_le_bytes()[..2]);
        b[COUNTS_AT + 14..COUNTS_AT + 16].copy_from_slice(&self.host_updates.to_le_bytes()[..2]);
        b
    }

    /// Encodes the state for a message. The caller wipes the bytes.
    pub fn encode_message(&self) -> [u8; MESSAGE_BYTES] {
        let mut b = [0; MESSAGE_BYTES];
        self.encode_head(FORMAT_MESSAGE, &mut b);
        b[COUNTS_AT..COUNTS_AT + 8].copy_from_slice(&self.read.to_le_bytes());
        b[COUNTS_AT + 8..COUNTS_AT + 16].copy_from_slice(&self.written.to_le_bytes());
        b[COUNTS_AT + 16..COUNTS_AT + 20].copy_from_slice(&self.peer_updates.to_le_bytes());
        b[COUNTS_AT + 20..COUNTS_AT + 24].copy_from_slice(&self.host_updates.to_le_bytes());
        b
    }

    /// Encodes what both formats have at the same places.
    fn encode_head(&self, format: u8, b: &mut [u8]) {
        b[0] = format;
        b[1] = if self.peer_closed { PEER_CLOSED } else { 0 };
        b[1] |= if self.host_closed { HOST_CLOSED } else { 0 };
        b[1] |= if self.is_client { IS_CLIENT } else { 0 };
        b[2..4].copy_from_slice(&self.version.to_be_bytes());
        b[4..6].copy_from_slice(&self.suite.to_be_bytes());
        b[6] = self.host.secret_len;
        b[7] = self.updates_in_a_row;
        for (at, d) in [(PEER_AT, &self.peer), (HOST_AT, &self.host)] {
            b[at..at + 48].copy_from_slice(&d.secret);
            b[at + 48..at + 80].copy_from_slice(&d.key);
            b[at + 80..at + 92].copy_from_slice(&d.iv);
            b[at + 92..at + 100].copy_from_slice(&d.number.to_le_bytes());
        }
    }

    /// Decodes a state of either format; `None`: the bytes are none, or of a later format.
    pub fn decode(b: &[u8]) -> Option<TlsState> {
        let is_record = match (b.first()?, b.len()) {
            (&FORMAT_RECORD, STATE_BYTES) => true,
            (&FORMAT_MESSAGE, MESSAGE_BYTES) => false,
            _ => return None,
        };
        let secret_len = b[6];
        if secret_len > 48 {
            return None;
        }
        let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| b[at + i]));
        let short = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| b[at + i]));
        let direction = |at: usize| Direction {
            secret: std::array::from_fn(|i| b[at + i]),
            secret_len,
            key: std::array::from_fn(|i| b[at + 48 + i]),
            iv: std::array::from_fn(|i| b[at + 80 + i]),
            number: long(at + 92),
        };
        let (read, written, peer_updates, host_updates) = match is_record {
            true => {
                let six = |at: usize| long(at) & ((1 << 48) - 1);
                let two = |at: usize| u32::from(u16::from_le_bytes([b[at], b[at + 1]]));
                (six(COUNTS_AT), six(COUNTS_AT + 6), two(COUNTS_AT + 12), two(COUNTS_AT + 14))
            }
            false => {
                let [peer, host] = [16, 20].map(|at| short(COUNTS_AT + at));
                (long(COUNTS_AT), long(COUNTS_AT + 8), peer, host)
            }
        };
        Some(TlsState {
            version: u16::from_be_bytes([b[2], b[3]]),
            suite: u16::from_be_bytes([b[4], b[5]]),
            peer: direction(PEER_AT),
            host: direction(HOST_AT),
            read,
            written,
            peer_updates,
            host_updates,
            updates_in_a_row: b[7],
            peer_closed: b[1] & PEER_CLOSED != 0,
            host_closed: b[1] & HOST_CLOSED != 0,
            is_client: b[1] & IS_CLIENT != 0,
        })
    }
}
