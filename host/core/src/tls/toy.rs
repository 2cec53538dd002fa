//! Toy cipher for tests: bytes mixed with key and number, and a sum behind them.

use super::protection::{Open, Protection, Seal};
use super::record::{TLS_1_2, TLS_1_3};
use super::state::{Direction, TlsState};

/// Toy ciphers of every suite.
pub(crate) struct Toy;

/// Bytes of the sum.
const SUM: usize = 16;

fn mix(key: &[u8; 32], number: u64, at: usize) -> u8 {
    key[at % 32] ^ (number as u8).wrapping_mul(31) ^ (at as u8)
}

fn sum(key: &[u8; 32], number: u64, bytes: &[u8]) -> [u8; SUM] {
    let fold = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
    let h = key.iter().chain(&number.to_le_bytes()).chain(bytes).fold(0xcbf2_9ce4_8422_2325, fold);
    let mut out = [0; SUM];
    out[..8].copy_from_slice(&h.to_le_bytes());
    out[8..].copy_from_slice(&h.rotate_left(17).wrapping_mul(3).to_le_bytes());
    out
}

struct ToyCipher([u8; 32]);

impl Protection for Toy {
    fn sealer(&self, _: u16, keys: &Direction) -> Option<Box<dyn Seal>> {
        Some(Box::new(ToyCipher(keys.key)))
    }

    fn opener(&self, _: u16, keys: &Direction) -> Option<Box<dyn Open>> {
        Some(Box::new(ToyCipher(keys.key)))
    }

    fn update(&self, _: u16, keys: &mut Direction) -> bool {
        for (at, b) in keys.key.iter_mut().enumerate() {
            *b = b.wrapping_mul(7).wrapping_add(at as u8 + 1);
        }
        keys.number = 0;
        true
    }

    fn records_max(&self, _: u16) -> u64 {
        1 << 24
    }
}

impl Seal for ToyCipher {
    fn seal(&mut self, kind: u8, content: &[u8], number: u64, out: &mut Vec<u8>) -> bool {
        let mut plain = content.to_vec();
        plain.push(kind);
        out.extend([23]);
        out.extend(TLS_1_2.to_be_bytes());
        out.extend(((plain.len() + SUM) as u16).to_be_bytes());
        out.extend(plain.iter().enumerate().map(|(at, b)| b ^ mix(&self.0, number, at)));
        out.extend(sum(&self.0, number, &plain));
        true
    }
}

impl Open for ToyCipher {
    fn open<'b>(&mut self, _: u8, body: &'b mut [u8], number: u64) -> Option<(u8, &'b [u8])> {
        let (plain, tag) = body.split_at_mut_checked(body.len().checked_sub(SUM)?)?;
        for (at, b) in plain.iter_mut().enumerate() {
            *b ^= mix(&self.0, number, at);
        }
        if sum(&self.0, number, plain) != *tag {
            return None;
        }
        let (kind, content) = plain.split_last()?;
        Some((*kind, content))
    }
}

/// States of both ends of a connection: the host's, and its peer's.
pub(crate) fn pair() -> (TlsState, TlsState) {
    let direction = |seed: u8| Direction { secret_len: 48, key: [seed; 32], ..Direction::default() };
    let host = TlsState {
        version: TLS_1_3,
        suite: 0x1302,
        peer: direction(3),
        host: direction(5),
        ..TlsState::default()
    };
    let peer = TlsState { peer: host.host.clone(), host: host.peer.clone(), ..host.clone() };
    (host, peer)
}
