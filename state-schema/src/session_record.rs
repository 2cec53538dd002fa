//! Records of sessions: what outlives the code that serves a connection.
//!
//! 128 bytes, little-endian, versioned, and free of pointers, so that another process can read
//! the memory. The state, kept input, unsent output and stored framing state are records of
//! their own.
//!
//! | bytes | version 1: the peer is plain TCP | 2: any peer; 3 to 6: any framing, too |
//! | --- | --- | --- |
//! | 0..4 | version, life, flags, bytes of framing state | same |
//! | 4..6 | service | same |
//! | 6, 7, bits 3 to 7 of 127 | time when the peer was last heard, of a session with terms | same |
//! | 8..64 | number, time, turns, counters, fingerprint | same |
//! | 64..72 | state version, bytes searched | same |
//! | 72..96 | port, family, scope, IP address | peer, in the form of [`Peer::encode`], up to 120 |
//! | 96..102 | bytes of input, topics | |
//! | 120..126 | | bytes of input, topics |
//! | 126 | | number of the framing in versions 3 to 6 |
//!
//! Version 4 is 3 for a session whose PROXY header is not whole. Version 5 is 3 for one over TLS.
//! Version 6 is 3 for one whose stream is to become one of TLS. Version 7 is 3 for one in a
//! stream of WebSocket: byte 127 says what else is around it.
//!
//! [`SessionRecord::encode`] writes the lowest version that is enough, so that an older binary can
//! read the record. [`SessionRecord::decode`] reads all. All other bytes are zero, and a
//! reader ignores them.
//!
//! A commit encodes each changed session once. A takeover decodes every session before it
//! serves, and names each record that can't be read. Both directions are O(1) and check no sum:
//! the store does.

use crate::address::{PEER_BYTES_MAX, Peer};
use std::borrow::Borrow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Size of an encoded record, in bytes. Each session of the host costs as much, beside its
/// other records.
pub const SIZE: usize = 128;
/// Version of the layout for a peer that is plain TCP, in the record's first byte.
pub const VERSION_TCP: u8 = 1;
/// Version of the layout for any peer.
pub const VERSION_ANY_PEER: u8 = 2;
/// Version of the layout for any peer and any framing. A binary that knows versions 1 and 2 alone
/// would cut such a session's input by another framing, so it must not read the record.
pub const VERSION_ANY_FRAMING: u8 = 3;
/// Version of the layout of 3 for a session whose PROXY header is not whole. A binary that knows
/// none would take the header for the session's input, so it must not read the record.
pub const VERSION_HEADER_DUE: u8 = 4;

/// Version of the layout for a stream of TLS. A binary that knows no TLS would run the records as
/// messages, so it must not read the record.
pub const VERSION_TLS: u8 = 5;
/// Version of the layout for a stream that is to become one of TLS. A binary that does not know
/// this would take a handshake for input, so it must not read the record.
pub const VERSION_TLS_DUE: u8 = 6;

/// Version of the layout for a session in a stream of WebSocket. A binary that does not know this
/// would run frames as messages, so it must not read the record.
pub const VERSION_IN_SOCKET: u8 = 7;

/// Place of the peer in version 2. The longest peer must end before the sizes behind it.
const PEER_AT: usize = 72;
const _: () = assert!(PEER_AT + PEER_BYTES_MAX <= 120);
/// Place of the framing's number in version 3.
const FRAMING_AT: usize = 126;
/// Place of the flags in version 7: over TLS, TLS due, header due.
const CARRIER_AT: usize = 127;
/// First bit there of the time when the peer was heard, in all versions.
const HEARD_AT: u32 = 3;

/// Nanoseconds of a unit in which a record holds when the peer was heard, as a power of 2: 8 ms.
const HEARD_SHIFT: u32 = 23;
/// Units that a record tells apart: those of 4.8 hours.
const HEARD_UNITS: u64 = 1 << 21;

/// Returns a time as a record holds it: in whole units, without those of earlier rounds.
#[inline]
pub fn heard_units(ns: u64) -> u32 {
    ((ns >> HEARD_SHIFT) % HEARD_UNITS) as u32
}

/// Returns the time that a record holds, at most a unit late, in nanoseconds. `from_ns` is a time
/// that lies before it, by less than 4.8 hours.
pub fn heard_ns(units: u32, from_ns: u64) -> u64 {
    let behind = u64::from(units.wrapping_sub(heard_units(from_ns))) % HEARD_UNITS;
    (((from_ns >> HEARD_SHIFT) + behind + 1) << HEARD_SHIFT) - 1
}

/// Life of a session, as its number in the record. The core's `session/life.rs` has the table
/// of its transitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Life {
    /// Takes input and runs turns.
    Open = 1,
    /// Last turn ran; output is being flushed.
    Draining = 2,
    /// Output flushed and our end shut; waits for the peer's end, so that the kernel resets nothing
    /// in flight.
    Lingering = 3,
}

/// Record of one session, decoded. A flag that a version did not have is false. Whoever writes
/// one lends the peer (`P` is `&Peer`), since a commit writes a record for each session that
/// changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord<P = Peer> {
    /// Number of the session.
    pub id: u64,
    /// Index of its service in the host's list of services, which are records of their own.
    pub service: u16,
    /// Life that it is in.
    pub life: Life,
    /// Peer has ended its side of the stream.
    pub peer_done: bool,
    /// Input is kept, not run.
    pub quarantined: bool,
    /// First turn is still to come.
    pub opened_turn_due: bool,
    /// Host connected to the peer, not the peer to the host.
    pub outbound: bool,
    /// Stream is one of TLS, whose state is a record of its own.
    pub over_tls: bool,
    /// Stream is to become one of TLS. How far it has come is a record of its own.
    pub tls_due: bool,
    /// Session is in a stream of WebSocket, whose place is a record of its own.
    pub in_socket: bool,
    /// Handler holds its input.
    pub held: bool,
    /// PROXY header is not whole yet.
    pub header_due: bool,
    /// No byte behind the PROXY header has come yet.
    pub first_byte_due: bool,
    /// Time it opened, in milliseconds since 1970.
    pub opened_at_ms: u64,
    /// Turns run since the session opened, failed ones included.
    pub turns: u64,
    /// Bytes taken from the peer. A takeover compares the count with the kernel's.
    pub bytes_in: u64,
    /// Bytes produced for the peer, sent or not.
    pub bytes_out: u64,
    /// Bytes of `bytes_out` that the kernel took. A takeover compares the count with the
    /// kernel's.
    pub bytes_sent: u64,
    /// Version of the stored state; 0: none stored.
    pub state_version: u32,
    /// Bytes of the kept input that framing has already searched. A cache: 0 is always right.
    pub frame_searched: u32,
    /// Fingerprint of the schema that the stored state was written under; 0: none.
    pub state_fingerprint: u64,
    /// Bytes of the kept input, which is a record of its own.
    pub input_bytes: u32,
    /// Topics that it subscribes to, which are a record of their own.
    pub topics: u16,
    /// Time when the peer was last heard, as [`heard_units`] has it, of a session whose handler has
    /// set terms for it; else 0.
    pub heard: u32,
    /// Bytes of the framing's stored state, which is a record of its own; 0: none.
    pub frame_bytes: u8,
    /// Number of its framing among those of its service, which are a record of their own.
    pub framing: u8,
    /// Other end of the connection.
    pub peer: P,
}

impl<P: Borrow<Peer>> SessionRecord<P> {
    /// Whether nothing stands before its stream, or around it.
    fn is_plain(&self) -> bool {
        !self.header_due && !self.over_tls && !self.tls_due && !self.in_socket
    }

    /// Encodes the record: version 7 in a stream of WebSocket; else 6 if TLS is due, 5 over TLS,
    /// 4 if its header is due; else version 1 for a peer that is plain TCP and framing 0, version
    /// 2 for any other peer, version 3 for any other framing.
    pub fn encode(&self) -> [u8; SIZE] {
        let mut b = [0; SIZE];
        self.encode_in(&mut b);
        b
    }

    /// Encodes the record like [`SessionRecord::encode`] into bytes that are all 0, which saves a
    /// copy.
    #[inline]
    pub fn encode_in(&self, b: &mut [u8; SIZE]) {
        b[1] = self.life as u8;
        // The order of the flags is part of the format: a new flag goes behind them, as bit 7.
        // Bit 6 is the header's in version 6 alone: older binaries read version 4.
        b[2] = u8::from(self.peer_done)
            | u8::from(self.quarantined) << 1
            | u8::from(self.opened_turn_due) << 2
            | u8::from(self.outbound) << 3
            | u8::from(self.held) << 4
            | u8::from(self.first_byte_due) << 5
            | u8::from(self.header_due && self.tls_due) << 6;
        b[3] = self.frame_bytes;
        b[4..6].copy_from_slice(&self.service.to_le_bytes());
        let heard = self.heard.to_le_bytes();
        (b[6], b[7], b[CARRIER_AT]) = (heard[0], heard[1], heard[2] << HEARD_AT);
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
        let sizes_at = match self.peer.borrow() {
            Peer::Tcp(addr) if self.framing == 0 && self.is_plain() => {
                b[0] = VERSION_TCP;
                // Binaries that know no other peers can read this layout.
                encode_tcp(*addr, b);
                96
            }
            peer => {
                if self.in_socket {
                    b[CARRIER_AT] |= u8::from(self.over_tls)
                        | u8::from(self.tls_due) << 1
                        | u8::from(self.header_due) << 2;
                }
                b[0] = match self.framing {
                    _ if self.in_socket => VERSION_IN_SOCKET,
                    _ if self.tls_due => VERSION_TLS_DUE,
                    _ if self.header_due => VERSION_HEADER_DUE,
                    _ if self.over_tls => VERSION_TLS,
                    0 => VERSION_ANY_PEER,
                    _ => VERSION_ANY_FRAMING,
                };
                b[FRAMING_AT] = self.framing;
                peer.encode(&mut Room(b[PEER_AT..120].iter_mut()));
                120
            }
        };
        b[sizes_at..][..4].copy_from_slice(&self.input_bytes.to_le_bytes());
        b[sizes_at + 4..][..2].copy_from_slice(&self.topics.to_le_bytes());
    }
}

impl SessionRecord<&Peer> {
    /// Returns a record with a peer of its own.
    pub fn cloned(self) -> SessionRecord {
        let peer = self.peer.clone();
        let SessionRecord {
            id,
            service,
            life,
            peer_done,
            quarantined,
            opened_turn_due,
            outbound,
            over_tls,
            tls_due,
            in_socket,
            held,
            ..
        } = self;
        let SessionRecord { opened_at_ms, turns, bytes_in, bytes_out, bytes_sent, state_version, .. } = self;
        let SessionRecord { frame_searched, state_fingerprint, input_bytes, topics, .. } = self;
        let SessionRecord { frame_bytes, framing, header_due, first_byte_due, heard, .. } = self;
        SessionRecord {
            id,
            service,
            life,
            peer_done,
            quarantined,
            opened_turn_due,
            outbound,
            over_tls,
            tls_due,
            in_socket,
            held,
            header_due,
            first_byte_due,
            opened_at_ms,
            turns,
            bytes_in,
            bytes_out,
            bytes_sent,
            state_version,
            frame_searched,
            state_fingerprint,
            input_bytes,
            topics,
            heard,
            frame_bytes,
            framing,
            peer,
        }
    }
}

impl SessionRecord {
    /// Reads a record of any version that this build knows. `None`: the bytes are no record, or
    /// of another version.
    pub fn decode(b: &[u8]) -> Option<SessionRecord> {
        let b: &[u8; SIZE] = b.try_into().ok()?;
        let word = |i: usize| u64::from_le_bytes(std::array::from_fn(|k| b[8 + 8 * i + k]));
        let half = |at: usize| u32::from_le_bytes(std::array::from_fn(|k| b[at + k]));
        let short = |at: usize| u16::from_le_bytes([b[at], b[at + 1]]);
        let life = match b[1] {
            1 => Life::Open,
            2 => Life::Draining,
            3 => Life::Lingering,
            _ => return None,
        };
        // Each version has its own place for the sizes behind the peer.
        let (peer, sizes_at, framing) = match b[0] {
            VERSION_TCP => (Peer::Tcp(decode_tcp(b)?), 96, 0),
            VERSION_ANY_PEER => (Peer::decode(&b[PEER_AT..120])?, 120, 0),
            VERSION_ANY_FRAMING..=VERSION_IN_SOCKET => (Peer::decode(&b[PEER_AT..120])?, 120, b[FRAMING_AT]),
            _ => return None,
        };
        let in_socket = b[0] == VERSION_IN_SOCKET;
        let has = |flag: u8| in_socket && b[CARRIER_AT] & flag != 0;
        Some(SessionRecord {
            life,
            peer_done: b[2] & 1 != 0,
            quarantined: b[2] & 2 != 0,
            opened_turn_due: b[2] & 4 != 0,
            outbound: b[2] & 8 != 0,
            over_tls: b[0] == VERSION_TLS || has(1),
            tls_due: b[0] == VERSION_TLS_DUE || has(2),
            in_socket,
            held: b[2] & 16 != 0,
            first_byte_due: b[2] & 32 != 0,
            header_due: b[0] == VERSION_HEADER_DUE || b[0] == VERSION_TLS_DUE && b[2] & 64 != 0 || has(4),
            frame_bytes: b[3],
            service: short(4),
            id: word(0),
            opened_at_ms: word(1),
            turns: word(2),
            bytes_in: word(3),
            bytes_out: word(4),
            bytes_sent: word(5),
            state_fingerprint: word(6),
            input_bytes: half(sizes_at),
            topics: short(sizes_at + 4),
            heard: u32::from_le_bytes([b[6], b[7], b[CARRIER_AT] >> HEARD_AT, 0]),
            state_version: half(64),
            frame_searched: half(68),
            framing,
            peer,
        })
    }
}

/// Room for bytes in a record, which a commit fills without an allocation. Bytes beyond it are
/// dropped; the longest peer fits.
struct Room<'a>(std::slice::IterMut<'a, u8>);

impl Extend<u8> for Room<'_> {
    fn extend<T: IntoIterator<Item = u8>>(&mut self, bytes: T) {
        // The bytes come first in `zip`: a place that is taken off without a byte would be lost.
        bytes.into_iter().zip(&mut self.0).for_each(|(byte, place)| *place = byte);
    }
}

/// Writes the peer of version 1. The scope of an IPv6 address is an addition, which older
/// builds skip.
fn encode_tcp(addr: SocketAddr, b: &mut [u8; SIZE]) {
    b[72..74].copy_from_slice(&addr.port().to_le_bytes());
    match addr {
        SocketAddr::V4(v4) => {
            b[74] = 4;
            b[80..84].copy_from_slice(&v4.ip().octets());
        }
        SocketAddr::V6(v6) => {
            b[74] = 6;
            b[76..80].copy_from_slice(&v6.scope_id().to_le_bytes());
            b[80..96].copy_from_slice(&v6.ip().octets());
        }
    }
}

/// Reads the peer of version 1. `None`: the family is neither 4 nor 6.
fn decode_tcp(b: &[u8; SIZE]) -> Option<SocketAddr> {
    let port = u16::from_le_bytes([b[72], b[73]]);
    match b[74] {
        4 => {
            let ip: IpAddr = Ipv4Addr::from(std::array::from_fn::<u8, 4, _>(|k| b[80 + k])).into();
            Some(SocketAddr::new(ip, port))
        }
        6 => {
            let ip = Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|k| b[80 + k]));
            let scope = u32::from_le_bytes(std::array::from_fn(|k| b[76 + k]));
            Some(SocketAddrV6::new(ip, port, 0, scope).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(peer: &str) -> SessionRecord {
        SessionRecord {
            id: u64::MAX - 1,
            service: 513,
            life: Life::Draining,
            peer_done: true,
            quarantined: false,
            opened_turn_due: true,
            outbound: true,
            over_tls: false,
            tls_due: false,
            in_socket: false,
            held: true,
            header_due: false,
            first_byte_due: false,
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
            heard: 0,
            frame_bytes: 11,
            framing: 0,
            peer: peer.parse().unwrap(),
        }
    }

    /// Each kind of peer comes back, in the oldest version that can hold it; other versions are
    /// refused.
    #[test]
    fn survives_its_encoding() {
        for (peer, version) in [
            ("127.0.0.1:4000", VERSION_TCP),
            ("[2001:db8::7]:65535", VERSION_TCP),
            ("[fe80::1%3]:5", VERSION_TCP),
            ("udp://127.0.0.1:4000", VERSION_ANY_PEER),
            ("unix:pid=7,uid=8,gid=9", VERSION_ANY_PEER),
            ("1.2.3.4:5 via 10.0.0.1:5000", VERSION_ANY_PEER),
            ("[fe80::1%3]:1 via [fe80::2%4]:2", VERSION_ANY_PEER),
            ("1.2.3.4:5 via unix:pid=7,uid=8,gid=9", VERSION_ANY_PEER),
        ] {
            let r = record(peer);
            assert_eq!(r.encode()[0], version, "{peer}");
            assert_eq!(SessionRecord::decode(&r.encode()), Some(r.clone()), "{peer}");
            let framed = SessionRecord { framing: 12, heard: 0x1e_dcba, ..r.clone() };
            let over_tls = SessionRecord { over_tls: true, ..framed.clone() };
            assert_eq!(over_tls.encode()[0], VERSION_TLS);
            assert_eq!(SessionRecord::decode(&over_tls.encode()), Some(over_tls));
            assert_eq!(framed.encode()[0], VERSION_ANY_FRAMING, "{peer}");
            assert_eq!(SessionRecord::decode(&framed.encode()), Some(framed), "{peer}");
            let due = SessionRecord { header_due: true, framing: 0, ..r.clone() };
            assert_eq!(due.encode()[0], VERSION_HEADER_DUE, "{peer}");
            assert_eq!(SessionRecord::decode(&due.encode()), Some(due), "{peer}");
            for header_due in [true, false] {
                let due = SessionRecord { header_due, tls_due: true, ..r.clone() };
                assert_eq!(due.encode()[0], VERSION_TLS_DUE, "{peer}");
                assert_eq!(SessionRecord::decode(&due.encode()), Some(due), "{peer}");
            }
            for (over_tls, tls_due, header_due) in
                [(false, false, false), (true, false, false), (false, true, true), (false, true, false)]
            {
                let inside = SessionRecord {
                    in_socket: true,
                    heard: 0x1f_edcb,
                    over_tls,
                    tls_due,
                    header_due,
                    ..r.clone()
                };
                assert_eq!(inside.encode()[0], VERSION_IN_SOCKET, "{peer}");
                assert_eq!(SessionRecord::decode(&inside.encode()), Some(inside), "{peer}");
            }
            let behind = SessionRecord { first_byte_due: true, heard: 1 << 20, ..r.clone() };
            assert_eq!(behind.encode()[0], version, "{peer}");
            assert_eq!(SessionRecord::decode(&behind.encode()), Some(behind), "{peer}");
            for unknown in [0, 8, 200] {
                let mut other = r.encode();
                other[0] = unknown;
                assert_eq!(SessionRecord::decode(&other), None, "an unknown layout is no record");
            }
            assert_eq!(SessionRecord::decode(&r.encode()[1..]), None);
        }
    }

    /// A time comes back at most a unit late, and never early, also over the end of a round.
    #[test]
    fn times_come_back_behind_an_earlier_one() {
        const UNIT: u64 = 1 << HEARD_SHIFT;
        for from in [0, 1, UNIT - 1, 5 * UNIT + 3, HEARD_UNITS * UNIT - 1, 7 * HEARD_UNITS * UNIT + 9] {
            for later in [0, 1, UNIT, 3 * UNIT + 7, (HEARD_UNITS - 1) * UNIT - UNIT] {
                let at = from + later;
                let back = heard_ns(heard_units(at), from);
                assert!((at..at + UNIT).contains(&back), "{from} {later}");
            }
        }
    }

    /// A record of an earlier build, as its bytes were.
    #[test]
    fn version_1_keeps_its_bytes() {
        let mut bytes = [0; SIZE];
        bytes[..6].copy_from_slice(&[1, 2, 0b11101, 0, 1, 2]);
        bytes[8..16].copy_from_slice(&(u64::MAX - 1).to_le_bytes());
        for n in 1..=5 {
            bytes[8 + 8 * n] = n as u8;
        }
        bytes[56] = 8;
        (bytes[64], bytes[68]) = (6, 7);
        bytes[72..76].copy_from_slice(&[0xa0, 0x0f, 4, 0]);
        bytes[80..84].copy_from_slice(&[127, 0, 0, 1]);
        (bytes[96], bytes[100]) = (9, 10);
        let expected = SessionRecord { frame_bytes: 0, ..record("127.0.0.1:4000") };
        assert_eq!(SessionRecord::decode(&bytes), Some(expected.clone()));
        assert_eq!(expected.encode(), bytes);
    }

    /// Damage in the kind, version or family of the peer is found.
    #[test]
    fn a_peer_that_is_none_makes_no_record() {
        for (peer, at) in [("127.0.0.1:4000", 74), ("udp://127.0.0.1:4000", 72), ("udp://127.0.0.1:4000", 73)]
        {
            let mut bytes = record(peer).encode();
            bytes[at] = 77;
            assert_eq!(SessionRecord::decode(&bytes), None, "{peer}: byte {at}");
        }
    }
}
