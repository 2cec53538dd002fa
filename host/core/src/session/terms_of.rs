//! Terms of sessions in their table: written, looked up, ended.

use super::table::Sessions;
use super::terms::{Held, Terms};
use crate::ids::Slot;
use crate::store::kind::Kind;
use crate::store::layout::Ref;
use crate::store::records::Store;

impl Sessions {
    /// Terms of a session; the default ones, if nothing is set.
    pub(crate) fn terms(&self, slot: Slot) -> Terms {
        self.terms.get(&slot).map_or(Terms::default(), |held| held.terms)
    }

    /// Gives a session terms, in place of those that it has. `told`: its peer's silence is told.
    /// Room for the record must be reserved. The caller touches the session.
    pub(crate) fn set_terms(&mut self, store: &mut Store, slot: Slot, terms: Terms, told: bool) {
        if terms.are_none() {
            return self.drop_terms(store, slot);
        }
        let before = self.terms.get(&slot).map(|held| held.record);
        let Some(s) = self.get_mut(slot) else { return };
        (s.has_terms, s.silence_told) = (true, told);
        let terms = terms.at(s, told);
        let record = store.put(before, Kind::Terms, s.id, &terms.encode());
        let record = record.expect("room was reserved before");
        self.terms.insert(slot, Held { terms, record, not_before_ns: 0, recovered: false });
    }

    /// Takes in the terms of a session that recovery found. `heard`: as its record has it.
    pub(crate) fn recover_terms(&mut self, slot: Slot, terms: Terms, record: Ref, heard: u32, now_ns: u64) {
        let Some(s) = self.get_mut(slot) else { return };
        s.heard_ns = terms.heard_by(heard, now_ns.saturating_sub(1));
        (s.has_terms, s.silence_told) = (true, terms.is_told(s.bytes_in));
        self.terms.insert(slot, Held { terms, record, not_before_ns: 0, recovered: true });
    }

    /// Takes a session's terms away, and deletes their record.
    pub(crate) fn drop_terms(&mut self, store: &mut Store, slot: Slot) {
        let Some(s) = self.get_mut(slot).filter(|s| s.has_terms) else { return };
        (s.has_terms, s.silence_told) = (false, false);
        if let Some(held) = self.terms.remove(&slot) {
            store.delete(held.record);
        }
    }

    /// Time when the silence of a session's peer is to be told.
    pub(crate) fn silent_at(&self, slot: Slot) -> Option<u64> {
        let s = self.get(slot).filter(|s| s.has_terms)?;
        self.terms.get(&slot)?.terms.silent_at(s)
    }

    /// Time when a session's terms are to be looked at.
    pub(super) fn terms_due(&self, slot: Slot) -> Option<u64> {
        let s = self.get(slot).filter(|s| s.has_terms)?;
        let held = self.terms.get(&slot)?;
        Some(held.terms.look_at(s)?.max(held.not_before_ns))
    }

    /// Whether a session's terms are to be looked at by now.
    pub(crate) fn are_terms_due(&self, slot: Slot, by_ns: u64) -> bool {
        self.terms_due(slot).is_some_and(|at| at <= by_ns)
    }

    /// Lets a session's terms wait until a time: the store is full.
    pub(crate) fn put_off_terms(&mut self, slot: Slot, until_ns: u64) {
        if let Some(held) = self.terms.get_mut(&slot) {
            held.not_before_ns = until_ns;
        }
    }

    /// Begins the silence of a session's peer anew, as the host did not let it speak until now. A
    /// session that a successor resumes did not wait for that: a silence with terms goes on.
    pub(crate) fn begin_silence(&mut self, slot: Slot, now_ns: u64) {
        let Some(s) = self.slots.get_mut(slot.0 as usize).and_then(Option::as_deref_mut) else { return };
        if !s.has_terms {
            return s.begin_silence(now_ns);
        }
        if self.terms.get(&slot).is_none_or(|held| !held.recovered) {
            s.begin_silence(now_ns);
            // The record says when the peer was heard.
            self.touch(slot);
        }
    }

    /// Notes that the kept input of a session runs, whether a successor has recovered it or not.
    pub(crate) fn begins_to_run(&mut self, slot: Slot) {
        if let Some(held) = self.terms.get_mut(&slot) {
            held.recovered = false;
        }
    }
}
