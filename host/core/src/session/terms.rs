//! Terms of a session: what its handler has set for its peer.
//!
//! A handler may bound the messages of a peer, and may ask to be told of its silence. Few sessions
//! have terms, so they lie beside the sessions, and a session has a mark of them. They are one
//! record under the number of the session, which ends with it.
//!
//! A silence is told once. The terms then hold how many bytes had come by then, so a successor
//! knows whether that silence goes on. The record of the session says when its peer was last heard,
//! in a few bits. They count from a time that the terms hold, which is written anew every two
//! hours.

use super::life::Session;
use crate::store::layout::Ref;
use greenroom_state::session_record::heard_ns;

/// Nanoseconds after which the terms hold another time to count from.
const ROUND_NS: u64 = 2 * 3_600_000_000_000;

/// Terms of one session.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Longest message that the peer may send, in bytes; 0: as its framing has it.
    frame_max: u32,
    /// Silence of the peer that the session is told of, in nanoseconds; 0: none.
    idle_after_ns: u64,
    /// Time from which the silence counts, though the peer was heard before, in nanoseconds.
    since_ns: u64,
    /// Time when the peer was last heard, as of the writing, in nanoseconds.
    heard_ns: u64,
    /// Bytes that had come from the peer when a silence was told, and one; 0: none was.
    told_at: u64,
}

/// Terms as memory holds them.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) terms: Terms,
    pub(super) record: Ref,
    /// Time before which the silence is not looked at again: the store was full.
    pub(super) not_before_ns: u64,
    /// Whether this process has recovered them, and has not run the session's kept input yet.
    pub(super) recovered: bool,
}

impl Terms {
    /// Bytes of the record.
    pub(crate) const RECORD_BYTES: usize = 40;

    /// Longest message that the peer may send, in bytes; 0: as its framing has it.
    pub fn frame_max(&self) -> u32 {
        self.frame_max
    }

    /// Silence of the peer that the session is told of, in nanoseconds; 0: none.
    pub fn idle_after_ns(&self) -> u64 {
        self.idle_after_ns
    }

    /// Returns the terms with another longest message.
    pub(crate) fn with_frame_max(self, frame_max: u32) -> Terms {
        Terms { frame_max, ..self }
    }

    /// Returns the terms with another silence to tell, which counts from this time on.
    pub(crate) fn with_idle_after(self, idle_after_ns: u64, since_ns: u64) -> Terms {
        Terms { idle_after_ns, since_ns, ..self }
    }

    /// Returns whether nothing is set, so that no record is needed.
    pub(crate) fn are_none(&self) -> bool {
        self.frame_max == 0 && self.idle_after_ns == 0
    }

    /// Returns the terms as they are written now. `told`: the silence of the peer is told.
    pub(crate) fn at(self, session: &Session, told: bool) -> Terms {
        let told_at = if told { session.bytes_in + 1 } else { 0 };
        Terms { heard_ns: session.heard_ns, told_at, ..self }
    }

    /// Returns whether the silence of the peer is told, and goes on.
    pub(crate) fn is_told(&self, bytes_in: u64) -> bool {
        self.told_at == bytes_in + 1
    }

    /// Returns when the peer was last heard, by the record of its session. At most 8 ms late, and
    /// never early.
    pub(crate) fn heard_by(&self, units: u32, now_ns: u64) -> u64 {
        heard_ns(units, self.heard_ns).min(now_ns)
    }

    /// Returns when the silence of the peer is to be told; `None`: it is told, or nobody asked.
    pub(crate) fn silent_at(&self, session: &Session) -> Option<u64> {
        let asked = self.idle_after_ns > 0 && !session.silence_told;
        asked.then(|| session.heard_ns.max(self.since_ns).saturating_add(self.idle_after_ns))
    }

    /// Returns when the terms are to be looked at, though the silence may last longer.
    pub(crate) fn look_at(&self, session: &Session) -> Option<u64> {
        Some(self.silent_at(session)?.min(self.heard_ns.saturating_add(ROUND_NS)))
    }

    /// Encodes the record. Numbers are little-endian.
    ///
    /// | bytes | field |
    /// | --- | --- |
    /// | 0 to 7 | longest message (4 bytes), zero |
    /// | 8 to 15 | silence to tell |
    /// | 16 to 23 | time that it counts from |
    /// | 24 to 31 | time when the peer was last heard |
    /// | 32 to 39 | bytes that had come, and one |
    pub(super) fn encode(&self) -> [u8; Terms::RECORD_BYTES] {
        let mut bytes = [0; Terms::RECORD_BYTES];
        let numbers = [self.frame_max.into(), self.idle_after_ns, self.since_ns, self.heard_ns, self.told_at];
        for (place, n) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&n.to_le_bytes());
        }
        bytes
    }

    /// Decodes a record. `None`: it is none.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Terms> {
        let bytes: &[u8; Terms::RECORD_BYTES] = bytes.try_into().ok()?;
        let word = |n: usize| u64::from_le_bytes(std::array::from_fn(|k| bytes[8 * n + k]));
        let frame_max = u32::try_from(word(0)).ok()?;
        Some(Terms {
            frame_max,
            idle_after_ns: word(1),
            since_ns: word(2),
            heard_ns: word(3),
            told_at: word(4),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Terms come back; bytes of another length, or a message beyond 32 bits, are none.
    #[test]
    fn survives_its_encoding() {
        let terms = Terms { frame_max: 1, idle_after_ns: 2, since_ns: 3, heard_ns: 4, told_at: 5 };
        assert_eq!(Terms::decode(&terms.encode()), Some(terms));
        assert_eq!(Terms::decode(&terms.encode()[1..]), None);
        let mut bytes = terms.encode();
        bytes[4] = 1;
        assert_eq!(Terms::decode(&bytes), None);
    }
}
