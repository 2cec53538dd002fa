//! Birth of a host: its secret, and the time when it began.
//!
//! The secret makes numbers that no peer can tell before. It is a record, since a turn that a
//! successor runs again must get the same ones. No saved file holds it: each host has its own.

use std::hash::{DefaultHasher, Hasher};

/// Bytes of a host's secret.
pub const SECRET_BYTES: usize = 32;

/// Secret of a host, and the time when it began.
#[derive(Default, Clone)]
pub(crate) struct Birth {
    secret: [u8; SECRET_BYTES],
    /// CLOCK_MONOTONIC, in nanoseconds.
    began_ns: u64,
}

impl Birth {
    /// Returns the birth of a host that begins now.
    pub(crate) fn new(secret: [u8; SECRET_BYTES], began_ns: u64) -> Birth {
        Birth { secret, began_ns }
    }

    /// Nanoseconds since the host began.
    pub(crate) fn age_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.began_ns)
    }

    /// Returns a number that follows from the secret, from numbers, and from bytes behind them. It
    /// is SipHash behind a secret prefix: good for names and samples, and no key of a cipher.
    pub(crate) fn number(&self, of: &[u64], bytes: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write(&self.secret);
        of.iter().for_each(|n| hasher.write_u64(*n));
        hasher.write(bytes);
        hasher.finish()
    }

    /// Encodes the record: the secret, then the time (u64, little-endian).
    pub(crate) fn encode(&self) -> Vec<u8> {
        [&self.secret[..], &self.began_ns.to_le_bytes()].concat()
    }

    /// Decodes a record. `None`: it is none.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Birth> {
        let (secret, began) = bytes.split_first_chunk()?;
        Some(Birth { secret: *secret, began_ns: u64::from_le_bytes(began.try_into().ok()?) })
    }
}

impl std::fmt::Debug for Birth {
    /// Prints no secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Birth")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_from_all_parts_and_survive_the_record() {
        let birth = Birth::new([7; SECRET_BYTES], 9);
        let again = Birth::decode(&birth.encode()).unwrap();
        assert_eq!(again.number(&[1, 2], b"x"), birth.number(&[1, 2], b"x"));
        assert_eq!(again.age_ns(12), 3);
        let other = Birth::new([8; SECRET_BYTES], 9).number(&[1, 2], b"x");
        let all =
            [birth.number(&[1, 2], b"x"), birth.number(&[2, 1], b"x"), birth.number(&[1, 2], b"y"), other];
        assert!((0..4).all(|a| (0..a).all(|b| all[a] != all[b])), "{all:?}");
        assert!(Birth::decode(&birth.encode()[1..]).is_none());
    }
}
