//! A session's record: everything about one connection that outlives the code that serves it.
//!
//! 128 bytes, little-endian, versioned, and free of pointers, so that it may lie in memory that another
//! process maps later. The state itself, input left over and output not yet sent are records of their own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Size of an encoded record, in bytes.
pub const SIZE: usize = 128;
/// Layout version, in the record's first byte.
pub const VERSION: u8 = 1;

/// Where a session is in its life. See the table in the core's `session.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Life {
    /// It takes input and runs turns.
    Open = 1,
    /// Its last turn ran; output is being flushed.
    Draining = 2,
    /// Output is flushed and our end shut; waiting for the peer's end, so that the kernel doesn't reset what is in flight.
    Lingering = 3,
}

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionRecord {
    /// The session's number.
    pub id: u64,
    /// Index of its service in the host's list of services.
    pub service: u16,
    /// Where it is in its life.
    pub life: Life,
    /// The peer has ended its side of the stream.
    pub peer_done: bool,
    /// Its state can't be migrated; input is kept, not run.
    pub quarantined: bool,
    /// Its first turn is still to come.
    pub greeting_due: bool,
    /// We connected to its peer, not its peer to us.
    pub outbound: bool,
    /// Its handler has its input wait.
    pub held: bool,
    /// When it opened, in milliseconds since 1970.
    pub opened_at_ms: u64,
    /// Turns run, failed ones included.
    pub turns: u64,
    /// Bytes taken from the peer.
    pub bytes_in: u64,
    /// Bytes produced for the peer.
    pub bytes_out: u64,
    /// Of those, bytes that the kernel took.
    pub bytes_sent: u64,
    /// Version of the stored state; 0: none stored.
    pub state_version: u32,
    /// Bytes of the input left over that framing has already searched.
    pub frame_searched: u32,
    /// Fingerprint of the schema that the stored state was written under.
    pub state_fingerprint: u64,
    /// Bytes of the input left over, which is a record of its own.
    pub input_bytes: u32,
    /// Topics that it is on, which are in a record of their own.
    pub topics: u16,
    /// The peer's address.
    pub peer: SocketAddr,
}

impl SessionRecord {
    /// The record as bytes.
    pub fn encode(&self) -> [u8; SIZE] {
        let mut b = [0; SIZE];
        b[0] = VERSION;
        b[1] = self.life as u8;
        let flags = [self.peer_done, self.quarantined, self.greeting_due, self.outbound, self.held];
        b[2] = flags.iter().enumerate().map(|(i, flag)| u8::from(*flag) << i).sum();
        b[4..6].copy_from_slice(&self.service.to_le_bytes());
        for (i, n) in [
            self.id,
            self.opened_at_ms,
            self.turns,
            self.bytes_in,
            self.bytes_out,
            self.bytes_sent,
            self.state_fingerprint,
        ]
        .into_iter()
        .enumerate()
        {
            b[8 + 8 * i..][..8].copy_from_slice(&n.to_le_bytes());
        }
        b[64..68].copy_from_slice(&self.state_version.to_le_bytes());
        b[68..72].copy_from_slice(&self.frame_searched.to_le_bytes());
        b[96..100].copy_from_slice(&self.input_bytes.to_le_bytes());
        b[100..102].copy_from_slice(&self.topics.to_le_bytes());
        b[72..74].copy_from_slice(&self.peer.port().to_le_bytes());
        match self.peer.ip() {
            IpAddr::V4(ip) => {
                b[74] = 4;
                b[80..84].copy_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                b[74] = 6;
                b[80..96].copy_from_slice(&ip.octets());
            }
        }
        b
    }

    /// Reads a record; `None` when it is none, or of a layout that this version doesn't know.
    pub fn decode(b: &[u8]) -> Option<SessionRecord> {
        let b: &[u8; SIZE] = b.try_into().ok()?;
        let word = |i: usize| u64::from_le_bytes(std::array::from_fn(|k| b[8 + 8 * i + k]));
        let half = |at: usize| u32::from_le_bytes(std::array::from_fn(|k| b[at + k]));
        let short = |at: usize| u16::from_le_bytes([b[at], b[at + 1]]);
        let life = match (b[0], b[1]) {
            (VERSION, 1) => Life::Open,
            (VERSION, 2) => Life::Draining,
            (VERSION, 3) => Life::Lingering,
            _ => return None,
        };
        let ip: IpAddr = match b[74] {
            4 => Ipv4Addr::from(std::array::from_fn::<u8, 4, _>(|k| b[80 + k])).into(),
            6 => Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|k| b[80 + k])).into(),
            _ => return None,
        };
        Some(SessionRecord {
            life,
            peer_done: b[2] & 1 != 0,
            quarantined: b[2] & 2 != 0,
            greeting_due: b[2] & 4 != 0,
            outbound: b[2] & 8 != 0,
            held: b[2] & 16 != 0,
            service: short(4),
            id: word(0),
            opened_at_ms: word(1),
            turns: word(2),
            bytes_in: word(3),
            bytes_out: word(4),
            bytes_sent: word(5),
            state_fingerprint: word(6),
            input_bytes: half(96),
            topics: short(100),
            state_version: half(64),
            frame_searched: half(68),
            peer: SocketAddr::new(ip, short(72)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_its_encoding() {
        for peer in ["127.0.0.1:4000", "[2001:db8::7]:65535"] {
            let r = SessionRecord {
                id: u64::MAX - 1,
                service: 513,
                life: Life::Draining,
                peer_done: true,
                quarantined: false,
                greeting_due: true,
                outbound: true,
                held: true,
                opened_at_ms: 1,
                turns: 2,
                bytes_in: 3,
                bytes_out: 4,
                bytes_sent: 5,
                state_version: 6,
                frame_searched: 7,
                state_fingerprint: 8,
                input_bytes: 9,
                topics: 10,
                peer: peer.parse().unwrap(),
            };
            assert_eq!(SessionRecord::decode(&r.encode()), Some(r));
            let mut other = r.encode();
            other[0] = 200;
            assert_eq!(SessionRecord::decode(&other), None, "an unknown layout is no record");
            assert_eq!(SessionRecord::decode(&r.encode()[1..]), None);
        }
    }
}
