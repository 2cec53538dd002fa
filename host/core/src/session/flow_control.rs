//! Sessions that wait until other sessions' output drains.
//!
//! A session may wait for several others, and goes on when none of them is left. A wait is a record
//! of the session that waits: a successor blocks it again, so that a takeover lets nothing through.
//! The record may name others that have drained since.
//!
//! *Invariant*: both maps hold the same pairs, no list is empty, and none holds a slot twice. So a
//! slot that is used again waits for nobody, and nobody waits for it.

use crate::ids::Slot;
use crate::store::kind::Kind;
use crate::store::layout::Ref;
use crate::store::records::Store;
use std::collections::HashMap;

/// Others that a record names. Of more, the newest are named.
const NAMED_MAX: usize = 4;

/// Waiting sessions, and the sessions whose output must drain.
#[derive(Debug, Default)]
pub(crate) struct FlowControl {
    /// Sessions that wait, by the session that they wait for.
    waiting: HashMap<Slot, Vec<Slot>>,
    /// Waits of each session that waits.
    waits_for: HashMap<Slot, Waits>,
}

/// Waits of one session.
#[derive(Debug, Default)]
struct Waits {
    /// Sessions whose output must drain, with their numbers.
    others: Vec<(Slot, u64)>,
    /// Record of kind `Waits`.
    record: Option<Ref>,
}

impl Waits {
    /// Encodes the record: numbers of up to [`NAMED_MAX`] sessions, little-endian; 0: none.
    fn encode(&self) -> [u8; FlowControl::RECORD_BYTES] {
        let mut bytes = [0; FlowControl::RECORD_BYTES];
        let newest = self.others.iter().rev().take(NAMED_MAX);
        for (place, (_, id)) in bytes.chunks_exact_mut(8).zip(newest) {
            place.copy_from_slice(&id.to_le_bytes());
        }
        bytes
    }
}

impl FlowControl {
    /// Bytes of a record, whatever number of sessions it names.
    pub(crate) const RECORD_BYTES: usize = 8 * NAMED_MAX;

    /// Lets session `id` in `slot` wait until the output of `other` drains. Room must be reserved.
    /// O(sessions that it waits for).
    pub(crate) fn wait(&mut self, store: &mut Store, (slot, id): (Slot, u64), other: (Slot, u64)) {
        let waits = self.waits_for.entry(slot).or_default();
        if waits.others.contains(&other) {
            return;
        }
        waits.others.push(other);
        let put = store.put(waits.record, Kind::Waits, id, &waits.encode());
        waits.record = Some(put.expect("room was reserved before"));
        self.waiting.entry(other.0).or_default().push(slot);
    }

    /// Reads the numbers that a record names.
    pub(crate) fn decode(bytes: &[u8]) -> Vec<u64> {
        let numbers = bytes.chunks_exact(8).map(|b| u64::from_le_bytes(std::array::from_fn(|i| b[i])));
        numbers.filter(|id| *id != 0).collect()
    }

    /// Takes in a wait that recovery found, for the others that still have output. A wait for
    /// nobody, and a double, is deleted. Returns whether the session waits.
    pub(crate) fn recover(
        &mut self,
        store: &mut Store,
        slot: Slot,
        record: Ref,
        others: Vec<(Slot, u64)>,
    ) -> bool {
        if others.is_empty() || self.waits_for.contains_key(&slot) {
            store.delete(record);
            return false;
        }
        for (other, _) in &others {
            self.waiting.entry(*other).or_default().push(slot);
        }
        self.waits_for.insert(slot, Waits { others, record: Some(record) });
        true
    }

    /// Whether no session waits for another.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Notes that the output of a session has drained, or that it is gone. Returns the sessions
    /// that wait for nothing more: the caller lets them go on. O(sessions that waited for it, and
    /// for each the sessions that it waits for).
    pub(crate) fn release(&mut self, store: &mut Store, drained: Slot) -> Vec<Slot> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let mut released = self.waiting.remove(&drained).unwrap_or_default();
        released.retain(|slot| {
            let Some(waits) = self.waits_for.get_mut(slot) else { return false };
            waits.others.retain(|(other, _)| *other != drained);
            // The record of a session that waits on names one too many: that has drained.
            waits.others.is_empty() && self.end(store, *slot)
        });
        released
    }

    /// Ends the wait of a session, and deletes its record. Returns true.
    fn end(&mut self, store: &mut Store, slot: Slot) -> bool {
        let record = self.waits_for.remove(&slot).and_then(|w| w.record);
        record.into_iter().for_each(|r| store.delete(r));
        true
    }

    /// Takes a session that ends off the lists of those that it waits for. O(1) if it waits for
    /// nobody, else O(sessions that wait for the same ones).
    pub(crate) fn forget(&mut self, store: &mut Store, slot: Slot) {
        let Some(waits) = self.waits_for.get(&slot) else { return };
        for (other, _) in &waits.others {
            let Some(list) = self.waiting.get_mut(other) else { continue };
            list.retain(|s| *s != slot);
            if list.is_empty() {
                self.waiting.remove(other);
            }
        }
        self.end(store, slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session in a slot, with the slot's number as its own.
    fn session(n: u32) -> (Slot, u64) {
        (Slot(n), u64::from(n))
    }

    #[test]
    fn a_session_goes_on_when_all_that_it_waits_for_have_drained() {
        let [a, b, c] = [1, 2, 3].map(session);
        let (mut flow, mut store) = (FlowControl::default(), Store::new(1 << 20));
        flow.wait(&mut store, a, b);
        flow.wait(&mut store, a, c);
        flow.wait(&mut store, a, c);
        flow.wait(&mut store, b, c);
        assert_eq!(store.count(Kind::Waits), 2);
        assert_eq!(flow.release(&mut store, b.0), []);
        assert_eq!(flow.release(&mut store, c.0), [a.0, b.0]);
        assert_eq!(flow.release(&mut store, c.0), []);
        assert_eq!(store.count(Kind::Waits), 0);
    }

    #[test]
    fn a_session_that_ends_waits_for_nobody() {
        let [a, b] = [1, 2].map(session);
        let (mut flow, mut store) = (FlowControl::default(), Store::new(1 << 20));
        flow.wait(&mut store, a, b);
        flow.forget(&mut store, a.0);
        // The slot is another session's by now.
        assert_eq!(flow.release(&mut store, b.0), []);
        assert!(flow.waiting.is_empty() && flow.waits_for.is_empty());
        assert_eq!(store.count(Kind::Waits), 0);
    }

    #[test]
    fn a_record_names_the_newest_others() {
        let others: Vec<_> = (1..=6).map(session).collect();
        let names = |others: &[(Slot, u64)]| {
            FlowControl::decode(&Waits { others: others.to_vec(), record: None }.encode())
        };
        assert_eq!(names(&others), [6, 5, 4, 3]);
        assert_eq!(names(&others[..1]), [1]);
    }
}
