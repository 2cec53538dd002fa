//! Sessions over TLS: the records of each, and the stages in use.
//!
//! | record | holds |
//! | --- | --- |
//! | `Tls` | the state, as [`super::state`] says |
//! | `TlsInput` | a part of a record that came in; none while the peer pauses between records |
//! | `TlsFacts` | facts of the handshake for handlers and operators, written once |
//!
//! A stage is made when a pass first needs it, and dropped with the commit: its keys are wiped, and
//! an idle session has none. The buffers of a few stages are used again. The state is written
//! whenever it has changed, before anything that it sealed can be sent. Data to send wait in the
//! stage until the input under way is done, so that many short ones become one record.

use super::protection::Protection;
use super::stage::TlsStage;
use super::state::TlsState;
use crate::ids::Slot;
use crate::store::kind::Kind;
use crate::store::layout::{Full, Ref};
use crate::store::records::Store;
use zeroize::Zeroize;

/// Bytes of buffers that a place in [`TlsSessions::spare`] keeps, at most.
const SPARE_BYTES: usize = 16 * 1024;
/// Places that are kept for the next pass, at most.
const SPARE_MAX: usize = 64;

/// Records of one session.
#[derive(Debug, Clone, Copy)]
struct Records {
    /// Place of its stage among those in use, plus 1; 0: it has none.
    in_use: u32,
    /// State.
    state: Ref,
    /// Part of a record that came in.
    input: Option<Ref>,
    /// Facts of the handshake.
    facts: Option<Ref>,
}

/// Stage of one session in this pass, and data that it is to seal. Boxed: keys are not copied to
/// other places.
struct InUse {
    slot: Slot,
    /// Stage; `None`: it is wiped.
    stage: Option<TlsStage>,
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

// Boxes: a vector that grows would leave keys behind.
#[expect(clippy::vec_box)]
/// Records and stages of all sessions, by slot: one message asks for them a dozen times.
#[derive(Default)]
struct Table {
    /// Records by slot, up to the last one that had any: 16 bytes each.
    records: Vec<Option<Records>>,
    /// Number of sessions that have records.
    len: usize,
    /// Stages of this pass. Those of sessions that are gone stay until its end.
    in_use: Vec<Box<InUse>>,
    /// Wiped places for stages of later passes, with the memory of their buffers.
    spare: Vec<Box<InUse>>,
}

/// All sessions over TLS.
#[derive(Default)]
pub(crate) struct TlsSessions {
    table: Table,
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
        self.table.len == 0
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
        let records = self.table.insert(slot, put?);
        if !facts.is_empty() {
            records.facts = Some(store.put(None, Kind::TlsFacts, id, facts)?);
        }
        Ok(())
    }

    /// Takes in a record that recovery found. Records of a session may come in any order. False: it
    /// is of no use, and the caller deletes it.
    pub(crate) fn recover(&mut self, store: &Store, slot: Slot, kind: Kind, at: Ref) -> bool {
        match (kind, self.table.records_mut(slot)) {
            (Kind::Tls, before) if store.read(at, TlsState::decode).is_some() => {
                let is_first = before.is_none();
                self.table.insert(slot, at);
                is_first
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
        self.table.records(slot).is_some()
    }

    /// Bytes of a record that came in part.
    pub(crate) fn kept<'s>(&self, store: &'s Store, slot: Slot) -> &'s [u8] {
        let input = self.table.records(slot).and_then(|r| r.input);
        input.map_or(&[], |r| store.bytes_of(r))
    }

    /// Keeps a part of a record. Fails without room; what was kept before stays then.
    pub(crate) fn keep(&mut self, store: &mut Store, slot: Slot, id: u64, rest: &[u8]) -> Result<(), Full> {
        let Some(records) = self.table.records_mut(slot) else { return Ok(()) };
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
        let facts = self.table.records(slot).and_then(|r| r.facts);
        facts.map_or(&[], |r| store.bytes_of(r))
    }

    /// Returns the stage of a session, with the ciphers, made if it is not in use. `None`: the
    /// session has no TLS, or the host no ciphers. The caller marks what it changes by
    /// [`TlsSessions::change`].
    pub(crate) fn stage(&mut self, store: &Store, slot: Slot) -> Option<(&mut TlsStage, &dyn Protection)> {
        let ciphers = self.ciphers.as_deref()?;
        Some((self.table.use_stage(store, slot)?.stage.as_mut()?, ciphers))
    }

    /// Reads one thing of a session's state, as this pass has left it.
    pub(crate) fn read<T>(&self, store: &Store, slot: Slot, f: impl FnOnce(&TlsState) -> T) -> Option<T> {
        let records = self.table.records(slot)?;
        let in_use = self.table.in_use.get((records.in_use as usize).wrapping_sub(1));
        match in_use.and_then(|in_use| in_use.stage.as_ref()) {
            Some(stage) => Some(f(&stage.state)),
            None => store.read(records.state, TlsState::decode).map(|state| f(&state)),
        }
    }

    /// Adds data that are to be sealed when the input under way is done.
    pub(crate) fn push(&mut self, store: &Store, slot: Slot, data: &[u8]) {
        if let Some(in_use) = self.table.use_stage(store, slot) {
            in_use.pending.extend_from_slice(data);
            list(in_use, &mut self.changed);
        }
    }

    /// Adds records that a stage has sealed by itself, and notes that its state has changed. The
    /// data that wait were sent later, or before: the caller seals them first then.
    pub(crate) fn change(&mut self, slot: Slot, sealed: &[u8]) {
        if let Some(in_use) = self.table.in_use(slot) {
            in_use.sealed.extend_from_slice(sealed);
            in_use.changed = true;
            list(in_use, &mut self.changed);
        }
    }

    /// Takes off a session with data to seal, or with a state to write.
    #[inline]
    pub(crate) fn pop_changed(&mut self) -> Option<Slot> {
        let slot = self.changed.pop()?;
        if let Some(in_use) = self.table.in_use(slot) {
            in_use.listed = false;
        }
        Some(slot)
    }

    /// Seals the data that wait, and returns all records that are to be sent; the caller takes them
    /// off by [`TlsSessions::sent`]. True: no key seals more. The peer is told of the end then, and
    /// the session sends nothing more.
    pub(crate) fn seal(&mut self, slot: Slot, records_max: u64) -> (&[u8], bool) {
        let (Some(in_use), Some(ciphers)) = (self.table.in_use(slot), self.ciphers.as_deref()) else {
            return (&[], false);
        };
        let InUse { stage: Some(stage), pending, sealed, failed: false, .. } = in_use else {
            in_use.pending.clear();
            in_use.sealed.clear();
            return (&[], false);
        };
        if !pending.is_empty() {
            in_use.changed = true;
            if stage.seal(ciphers, pending, records_max, sealed).is_err() {
                // The records so far are whole, so the peer can read them and the end.
                let _ = stage.close(ciphers, records_max, sealed);
                in_use.failed = true;
                self.failed.push((slot, true));
            }
            pending.clear();
        }
        (sealed, in_use.failed)
    }

    /// Takes off the records that [`TlsSessions::seal`] has returned: they are in the output.
    pub(crate) fn sent(&mut self, slot: Slot) {
        if let Some(in_use) = self.table.in_use(slot) {
            in_use.sealed.clear();
        }
    }

    /// Notes a session that sends nothing more.
    pub(crate) fn fail(&mut self, slot: Slot) {
        if let Some(in_use) = self.table.in_use(slot) {
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
        let Table { records, in_use, .. } = &mut self.table;
        let Some(Some(records)) = records.get_mut(slot.0 as usize) else { return Ok(()) };
        let Some(in_use) = in_use.get_mut((records.in_use as usize).wrapping_sub(1)) else { return Ok(()) };
        if std::mem::take(&mut in_use.changed)
            && let Some(stage) = &in_use.stage
        {
            let mut bytes = stage.state.encode();
            let put = store.put(Some(records.state), Kind::Tls, id, &bytes);
            bytes.zeroize();
            records.state = put?;
        }
        Ok(())
    }

    /// Drops all stages: the pass is committed. O(stages).
    #[inline]
    pub(crate) fn end_pass(&mut self) {
        if !self.table.in_use.is_empty() {
            debug_assert!(self.changed.is_empty(), "a state that is not written");
            self.table.drop_stages();
        }
    }

    /// Forgets a session and deletes its records, which the store wipes.
    pub(crate) fn forget(&mut self, store: &mut Store, slot: Slot) {
        let Some(Records { state, input, facts, .. }) = self.table.remove(slot) else { return };
        for r in [Some(state), input, facts].into_iter().flatten() {
            store.delete(r);
        }
    }
}

/// Lists a session for [`TlsSessions::pop_changed`], once.
fn list(in_use: &mut InUse, changed: &mut Vec<Slot>) {
    if !std::mem::replace(&mut in_use.listed, true) {
        changed.push(in_use.slot);
    }
}

impl Table {
    #[inline]
    fn records(&self, slot: Slot) -> Option<&Records> {
        self.records.get(slot.0 as usize)?.as_ref()
    }

    #[inline]
    fn records_mut(&mut self, slot: Slot) -> Option<&mut Records> {
        self.records.get_mut(slot.0 as usize)?.as_mut()
    }

    /// Adds the state of a session. The other records of an earlier one are forgotten.
    fn insert(&mut self, slot: Slot, state: Ref) -> &mut Records {
        let at = slot.0 as usize;
        if self.records.len() <= at {
            self.records.resize(at + 1, None);
        }
        self.len += usize::from(self.records[at].is_none());
        self.records[at].insert(Records { in_use: 0, state, input: None, facts: None })
    }

    /// Removes a session. Its stage is wiped at once, and its place is free behind the pass.
    fn remove(&mut self, slot: Slot) -> Option<Records> {
        let records = self.records.get_mut(slot.0 as usize)?.take()?;
        self.len -= 1;
        if let Some(in_use) = self.in_use.get_mut((records.in_use as usize).wrapping_sub(1)) {
            in_use.empty();
        }
        Some(records)
    }

    /// Returns what a session has in use.
    #[inline]
    fn in_use(&mut self, slot: Slot) -> Option<&mut InUse> {
        let at = self.records(slot)?.in_use as usize;
        self.in_use.get_mut(at.wrapping_sub(1)).map(|in_use| &mut **in_use)
    }

    /// Returns what a session has in use, made of its record.
    fn use_stage(&mut self, store: &Store, slot: Slot) -> Option<&mut InUse> {
        let Table { records, in_use, spare, .. } = self;
        let records = records.get_mut(slot.0 as usize)?.as_mut()?;
        if records.in_use == 0 {
            let state = store.read(records.state, TlsState::decode)?;
            let mut place = spare.pop().unwrap_or_else(|| Box::new(InUse::new()));
            (place.slot, place.stage) = (slot, Some(TlsStage::new(state)));
            in_use.push(place);
            records.in_use = in_use.len() as u32;
        }
        in_use.get_mut(records.in_use as usize - 1).map(|in_use| &mut **in_use)
    }

    /// Wipes all stages, and keeps the memory of a few.
    fn drop_stages(&mut self) {
        for mut place in self.in_use.drain(..) {
            if let Some(Some(records)) = self.records.get_mut(place.slot.0 as usize) {
                records.in_use = 0;
            }
            if self.spare.len() < SPARE_MAX
                && place.pending.capacity() + place.sealed.capacity() <= SPARE_BYTES
            {
                place.empty();
                self.spare.push(place);
            }
        }
    }
}

impl InUse {
    /// Place without a stage.
    fn new() -> InUse {
        let (pending, sealed) = (Vec::new(), Vec::new());
        InUse { slot: Slot(0), stage: None, pending, sealed, changed: false, listed: false, failed: false }
    }

    /// Wipes the stage and forgets all else, but for the memory of the buffers.
    fn empty(&mut self) {
        // The stage wipes its keys where they are.
        self.stage = None;
        self.pending.clear();
        self.sealed.clear();
        (self.changed, self.listed, self.failed) = (false, false, false);
    }
}
