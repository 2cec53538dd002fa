//! Sessions over TLS: the records of each, and the stages in use.
//!
//! | record | holds |
//! | --- | --- |
//! | `Tls` | the state, as [`super::state`] says |
//! | `TlsInput` | a part of a record that came in; none while the peer pauses between records |
//! | `TlsFacts` | facts of the handshake for handlers and operators, written once |
//!
//! A stage is made when a pass first needs it, and dropped with the commit: its keys are wiped, and
//! an idle session has none. The state is written whenever it has changed, before anything that
//! it sealed can be sent. Data to send wait in the stage until the input under way is done, so that
//! many short ones become one record.

use super::protection::Protection;
use super::stage::TlsStage;
use super::state::TlsState;
use crate::ids::Slot;
use crate::store::kind::Kind;
use crate::store::layout::{Full, Ref};
use crate::store::records::Store;
use std::collections::HashMap;
use zeroize::Zeroize;

/// Records of one session.
#[derive(Debug, Clone, Copy)]
struct Records {
    /// State.
    state: Ref,
    /// Part of a record that came in.
    input: Option<Ref>,
    /// Facts of the handshake.
    facts: Option<Ref>,
}

/// Stage of one session in this pass, and data that it is to seal.
struct InUse {
    stage: TlsStage,
    /// Data to seal, in the order in which they were sent.
    pending: Vec<u8>,
    /// Records sealed and not put into the output.
    sealed: Vec<u8>,
    /// Whether the state differs from its record.
    changed: bool,
    /// Whether [`TlsSessions::changed`] lists it.
    listed: bool,
    /// Whether it can seal no more: it is about to be closed.
    failed: bool,
}

/// All sessions over TLS.
#[derive(Default)]
pub(crate) struct TlsSessions {
    records: HashMap<Slot, Records>,
    in_use: HashMap<Slot, InUse>,
    /// Sessions with data to seal, or with a state to write. Some may be gone.
    changed: Vec<Slot>,
    /// Sessions that can send nothing more, and that are to be closed. True: what they have sealed
    /// counts. Some may be gone.
    failed: Vec<(Slot, bool)>,
    /// Ciphers. `None`: the shell has given none, and no session over TLS can go on.
    pub(crate) ciphers: Option<Box<dyn Protection>>,
}

impl TlsSessions {
    /// Returns whether there is no session over TLS.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Begins a session: writes its state and its facts. Fails without room.
    pub(crate) fn begin(
        &mut self,
        store: &mut Store,
        slot: Slot,
        id: u64,
        state: &TlsState,
        facts: &[u8],
    ) -> Result<(), Full> {
        let mut bytes = state.encode();
        let put = store.put(None, Kind::Tls, id, &bytes);
        bytes.zeroize();
        let records = Records { state: put?, input: None, facts: None };
        self.records.insert(slot, records);
        if !facts.is_empty() {
            let facts = store.put(None, Kind::TlsFacts, id, facts)?;
            self.records.insert(slot, Records { facts: Some(facts), ..records });
        }
        Ok(())
    }

    /// Takes in a record that recovery found. Records of a session may come in any order. False: it
    /// is of no use, and the caller deletes it.
    pub(crate) fn recover(&mut self, store: &Store, slot: Slot, kind: Kind, at: Ref) -> bool {
        match (kind, self.records.get_mut(&slot)) {
            (Kind::Tls, _) if store.read(at, TlsState::decode).is_some() => {
                let before = self.records.insert(slot, Records { state: at, input: None, facts: None });
                before.is_none()
            }
            (Kind::TlsInput, Some(records)) => {
                records.input = Some(at);
                true
            }
            (Kind::TlsFacts, Some(records)) => {
                records.facts = Some(at);
                true
            }
            _ => false,
        }
    }

    /// Returns whether the records have the state of a session.
    pub(crate) fn has(&self, slot: Slot) -> bool {
        self.records.contains_key(&slot)
    }

    /// Bytes of a record that came in part.
    pub(crate) fn kept<'s>(&self, store: &'s Store, slot: Slot) -> &'s [u8] {
        let input = self.records.get(&slot).and_then(|r| r.input);
        input.map_or(&[], |r| store.bytes_of(r))
    }

    /// Keeps a part of a record. Fails without room; what was kept before stays then.
    pub(crate) fn keep(&mut self, store: &mut Store, slot: Slot, id: u64, rest: &[u8]) -> Result<(), Full> {
        let Some(records) = self.records.get_mut(&slot) else { return Ok(()) };
        match (rest, records.input) {
            ([], None) => {}
            ([], Some(kept)) => {
                store.delete(kept);
                records.input = None;
            }
            // The old block is free only after the commit, so the new one needs room of its own.
            (rest, kept) => match store.reserve([rest.len()]) {
                true => records.input = Some(store.put(kept, Kind::TlsInput, id, rest)?),
                false => return Err(Full),
            },
        }
        Ok(())
    }

    /// Facts of the handshake, as [`TlsSessions::begin`] was given them.
    pub(crate) fn facts<'s>(&self, store: &'s Store, slot: Slot) -> &'s [u8] {
        let facts = self.records.get(&slot).and_then(|r| r.facts);
        facts.map_or(&[], |r| store.bytes_of(r))
    }

    /// Returns the stage of a session, with the ciphers, made if it is not in use. `None`: the
    /// session has no TLS, or the host no ciphers. The caller marks what it changes by
    /// [`TlsSessions::change`].
    pub(crate) fn stage(&mut self, store: &Store, slot: Slot) -> Option<(&mut TlsStage, &dyn Protection)> {
        let ciphers = self.ciphers.as_deref()?;
        let in_use = in_use(&mut self.in_use, &self.records, store, slot)?;
        Some((&mut in_use.stage, ciphers))
    }

    /// Reads one thing of a session's state, as this pass has left it.
    pub(crate) fn read<T>(&self, store: &Store, slot: Slot, f: impl FnOnce(&TlsState) -> T) -> Option<T> {
        match self.in_use.get(&slot) {
            Some(in_use) => Some(f(&in_use.stage.state)),
            None => store.read(self.records.get(&slot)?.state, TlsState::decode).map(|state| f(&state)),
        }
    }

    /// Adds data that are to be sealed when the input under way is done.
    pub(crate) fn push(&mut self, store: &Store, slot: Slot, data: &[u8]) {
        if let Some(in_use) = in_use(&mut self.in_use, &self.records, store, slot) {
            in_use.pending.extend_from_slice(data);
        }
        self.list(slot);
    }

    /// Adds records that a stage has sealed by itself, and notes that its state has changed. The
    /// data that wait were sent later, or before: the caller seals them first then.
    pub(crate) fn change(&mut self, slot: Slot, sealed: &[u8]) {
        if let Some(in_use) = self.in_use.get_mut(&slot) {
            in_use.sealed.extend_from_slice(sealed);
            in_use.changed = true;
        }
        self.list(slot);
    }

    /// Lists a session for [`TlsSessions::take_changed`], once.
    fn list(&mut self, slot: Slot) {
        if let Some(in_use) = self.in_use.get_mut(&slot)
            && !std::mem::replace(&mut in_use.listed, true)
        {
            self.changed.push(slot);
        }
    }

    /// Takes off a session with data to seal, or with a state to write.
    #[inline]
    pub(crate) fn pop_changed(&mut self) -> Option<Slot> {
        let slot = self.changed.pop()?;
        if let Some(in_use) = self.in_use.get_mut(&slot) {
            in_use.listed = false;
        }
        Some(slot)
    }

    /// Seals the data that wait, and returns all records that are to be sent. True: no key seals
    /// more. The peer is told of the end then, and the session sends nothing more.
    pub(crate) fn seal(&mut self, slot: Slot, records_max: u64) -> (Vec<u8>, bool) {
        let (Some(in_use), Some(ciphers)) = (self.in_use.get_mut(&slot), self.ciphers.as_deref()) else {
            return (Vec::new(), false);
        };
        let mut sealed = std::mem::take(&mut in_use.sealed);
        let pending = std::mem::take(&mut in_use.pending);
        if in_use.failed {
            return (Vec::new(), false);
        }
        if !pending.is_empty() {
            in_use.changed = true;
            if in_use.stage.seal(ciphers, &pending, records_max, &mut sealed).is_err() {
                // The records so far are whole, so the peer can read them and the end.
                let _ = in_use.stage.close(ciphers, records_max, &mut sealed);
                in_use.failed = true;
                self.failed.push((slot, true));
            }
        }
        (sealed, in_use.failed)
    }

    /// Notes a session that sends nothing more.
    pub(crate) fn fail(&mut self, slot: Slot) {
        if let Some(in_use) = self.in_use.get_mut(&slot) {
            in_use.failed = true;
            self.failed.push((slot, false));
        }
    }

    /// Takes off a session that can send nothing more. True: what it has sealed may be sent; else
    /// its state could not be written, and nothing of it may.
    #[inline]
    pub(crate) fn pop_failed(&mut self) -> Option<(Slot, bool)> {
        self.failed.pop()
    }

    /// Writes the state of a session, if it has changed. Fails without room, even in the store's
    /// reserve: the session must not send then.
    pub(crate) fn write(&mut self, store: &mut Store, slot: Slot, id: u64) -> Result<(), Full> {
        let (Some(in_use), Some(records)) = (self.in_use.get_mut(&slot), self.records.get_mut(&slot)) else {
            return Ok(());
        };
        if std::mem::take(&mut in_use.changed) {
            let mut bytes = in_use.stage.state.encode();
            let put = store.put(Some(records.state), Kind::Tls, id, &bytes);
            bytes.zeroize();
            records.state = put?;
        }
        Ok(())
    }

    /// Drops all stages: the pass is committed. O(stages).
    #[inline]
    pub(crate) fn end_pass(&mut self) {
        if !self.in_use.is_empty() {
            debug_assert!(self.changed.is_empty(), "a state that is not written");
            self.in_use.clear();
        }
    }

    /// Forgets a session and deletes its records, which the store wipes.
    pub(crate) fn forget(&mut self, store: &mut Store, slot: Slot) {
        self.in_use.remove(&slot);
        let Some(Records { state, input, facts }) = self.records.remove(&slot) else { return };
        for r in [Some(state), input, facts].into_iter().flatten() {
            store.delete(r);
        }
    }
}

/// Returns what a session has in use, made of its record.
fn in_use<'a>(
    all: &'a mut HashMap<Slot, InUse>,
    records: &HashMap<Slot, Records>,
    store: &Store,
    slot: Slot,
) -> Option<&'a mut InUse> {
    match all.entry(slot) {
        std::collections::hash_map::Entry::Occupied(there) => Some(there.into_mut()),
        std::collections::hash_map::Entry::Vacant(place) => {
            let state = store.read(records.get(&slot)?.state, TlsState::decode)?;
            let stage = TlsStage::new(state);
            Some(place.insert(InUse {
                stage,
                pending: Vec::new(),
                sealed: Vec::new(),
                changed: false,
                listed: false,
                failed: false,
            }))
        }
    }
}
